"""A matrix is trained once, whatever comes between; the leaderboard says what is there and why the rest is not."""

import csv
import io
import json
from collections import Counter

import numpy as np
import optuna
import pytest
import yaml
from scipy import stats

import visionforge as vf
from tests.benchmarking.helpers import Fake, record, run, settings
from tests.data.test_listing import pictures
from visionforge.benchmarking import plan as planning
from visionforge.benchmarking.benchmark import folder_of, list_cells, rewrite
from visionforge.benchmarking.leaderboard import rank_tables, seeds_interval
from visionforge.benchmarking.plan import cost_of, in_order, plan, read_recipe
from visionforge.benchmarking.study import CELL, key_of, open_benchmark
from visionforge.config import shipped
from visionforge.config.schema import RunSettings
from visionforge.config.shipped import SIZES, recipe_for
from visionforge.errors import DataError, RunError, SettingsError, TrainingError
from visionforge.reporting.benchmark_page import best_published
from visionforge.reporting.published import published
from visionforge.runs.config_hash import digest
from visionforge.runs.locks import LockedError
from visionforge.runs.signals import Interrupted

TWO = {"datasets": ["synthetic", "digits"], "backbones": ["mini_cnn"], "seeds": [1, 2]}  # four cells
ONE = {"datasets": ["synthetic"], "backbones": ["mini_cnn"], "seeds": [1]}


@pytest.fixture
def chosen(tmp_path):
    return settings(tmp_path, **TWO)


def trials(chosen):
    folder = folder_of(chosen)
    return open_benchmark(chosen.benchmark, folder, "benchmark").get_trials()


def test_every_cell_is_worked_on_once_and_the_same_call_again_does_nothing(chosen):
    work = Fake()
    found = run(chosen, work)
    assert len(work.done) == len(set(work.done)) == 4
    assert found.counts == {"all": 4, "complete": 4}
    assert found.left == 0
    again = Fake()
    assert run(chosen, again).counts == found.counts
    assert again.done == []


def test_the_first_seed_of_all_comes_before_the_second_and_cheap_ones_first(tmp_path):
    chosen = settings(tmp_path, datasets=["digits"], backbones=["resnet18", "mini_cnn"], seeds=[5, 3])
    order = [(cell.seed, cell.backbone) for cell in in_order(plan(chosen))]
    assert order == [(5, "mini_cnn"), (5, "resnet18"), (3, "mini_cnn"), (3, "resnet18")]


def test_a_larger_matrix_goes_on_with_what_is_there(chosen, tmp_path):
    run(chosen, Fake())
    more = Fake()
    found = run(settings(tmp_path, **{**TWO, "seeds": [1, 2, 3]}), more)
    assert sorted(more.done) == ["digits 8 mini_cnn default seed 3", "synthetic 8 mini_cnn default seed 3"]
    assert found.counts["complete"] == 6


@pytest.mark.slow
def test_cells_of_a_data_set_that_was_imported_anew_are_not_gone_on_with(tmp_path):
    """Real fits: the record has the sum of what was read."""
    pictures(*(tmp_path / "photos" / name for name in ("cat", "dog")), count=40)
    vf.import_dataset(tmp_path / "photos", resolution=8)
    given = settings(tmp_path / "outputs", datasets=["photos"], backbones=["mini_cnn"], seeds=[1])
    assert run(given, None).counts == {"all": 1, "complete": 1}
    more = settings(tmp_path / "outputs", datasets=["photos"], backbones=["mini_cnn"], seeds=[1, 2])
    vf.import_dataset(tmp_path / "photos", resolution=8, seed=1, replace=True)
    with pytest.raises(DataError, match=r"photos is another one now .* another benchmark with --benchmark\.name NAME"):
        run(more, None)
    assert [status.state for _, status in list_cells(more)] == ["complete", "new"]
    vf.import_dataset(tmp_path / "photos", resolution=8, replace=True)
    assert run(more, None).counts == {"all": 2, "complete": 2}


def test_a_changed_recipe_is_another_cell(tmp_path):
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("model: {optimizer: {name: adamw}}")
    one = {"datasets": ["digits"], "backbones": ["mini_cnn"], "seeds": [1], "recipes": ["default", str(recipe)]}
    work = Fake()
    run(settings(tmp_path, **one), work)
    recipe.write_text("model: {optimizer: {name: sgd}}")
    found = run(settings(tmp_path, **one), work)
    assert work.done.count("digits 8 mini_cnn mine seed 1") == 2
    assert work.done.count("digits 8 mini_cnn default seed 1") == 1
    assert found.counts == {"all": 2, "complete": 2}


def test_a_failed_cell_says_why_in_a_line_and_is_tried_again_only_if_asked(chosen):
    broken = Fake(lambda cell: TrainingError("data.batch_size: out of memory") if cell.dataset == "digits" else None)
    found = run(chosen, broken)
    assert found.counts == {"all": 4, "complete": 2, "failed": 2}
    assert {each["reason"] for each in found.failed} == {"data.batch_size: out of memory"}
    assert run(chosen, again := Fake()).counts["failed"] == 2
    assert again.done == []
    assert run(chosen, last := Fake(), retry_failed=True).counts == {"all": 4, "complete": 4}
    assert len(last.done) == 2


def test_any_error_is_a_failed_cell_and_no_traceback(tmp_path):
    chosen = settings(tmp_path, **ONE)
    found = run(chosen, Fake(lambda cell: ZeroDivisionError("by nothing")))
    assert {each["reason"] for each in found.failed} == {"ZeroDivisionError: by nothing"}


def test_a_run_in_somebody_elses_hands_is_tried_again_by_the_next_call(tmp_path):
    chosen = settings(tmp_path, **ONE)
    assert run(chosen, Fake(lambda cell: LockedError("outputs/x", None))).counts["failed"] == 1
    assert run(chosen, Fake()).counts == {"all": 1, "complete": 1}


def test_an_interrupted_cell_is_in_line_again_with_what_it_has_cost(chosen, monkeypatch):
    seen = []

    def interrupt(cell):
        seen.append(cell.name)
        return Interrupted(15) if len(seen) == 2 else None

    with pytest.raises(Interrupted):
        run(chosen, Fake(interrupt))
    states = [status.state for _, status in list_cells(chosen)]
    assert sorted(states) == ["complete", "waiting", "waiting", "waiting"]
    work = Fake()
    run(chosen, work)
    assert len(work.done) == 3
    assert seen[1] in work.done


def test_cells_that_cannot_work_say_so_before_anything_is_trained(tmp_path):
    chosen = settings(
        tmp_path, datasets=["synthetic", "adrenalmnist3d"], resolutions=[8], backbones=["vit_tiny"], seeds=[1]
    )
    work = Fake()
    found = run(chosen, work)
    assert work.done == ["synthetic 8 vit_tiny default seed 1"]
    (refused,) = found.failed
    assert refused["state"] == "refused"
    assert "vit_tiny does not take volumes" in refused["reason"]
    assert "\n" not in refused["reason"]


def test_data_that_cannot_be_had_refuses_its_cells_alone(tmp_path):
    chosen = settings(tmp_path, datasets=["synthetic", "breastmnist"], resolutions=[28], backbones=["mini_cnn"])
    chosen = chosen.model_copy(
        update={"data": chosen.data.model_copy(update={"root": str(tmp_path / "none"), "download": False})}
    )
    found = run(chosen, Fake())
    assert found.counts == {"all": 6, "complete": 3, "refused": 3}
    assert "missing, and data.download is false" in found.failed[0]["reason"]
    assert [s.state for _, s in list_cells(chosen)].count("refused") == 3
    assert rewrite(chosen).counts == found.counts


def test_a_matrix_of_which_nothing_can_work_is_refused(tmp_path):
    with pytest.raises(SettingsError, match="vit_tiny does not take volumes"):
        run(settings(tmp_path, datasets=["adrenalmnist3d"], resolutions=[28], backbones=["vit_tiny"]), Fake())
    assert not (tmp_path / "benchmarks").exists()


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({"datasets": ["digtis"]}, "benchmark.datasets: 'digtis' is unknown"),
        ({"backbones": ["mini_cn"]}, "benchmark.backbones: 'mini_cn' is unknown"),
        ({"recipes": ["nothing"]}, "benchmark.recipes: nothing: no such configuration file"),
        ({"seeds": [1, 1]}, "benchmark.seeds: 1 stands there twice"),
        ({"seeds": [-1]}, "benchmark.seeds: -1 is not allowed"),
        ({"name": "a/b"}, "benchmark.name: 'a/b' is not allowed"),
        ({"suite": "all"}, "benchmark.suite: all is not allowed; allowed: medmnist2d, medmnist3d, quick"),
    ],
)
def test_mistakes_are_told_in_a_line(tmp_path, given, line):
    with pytest.raises(SettingsError) as caught:
        run(settings(tmp_path, **given), Fake())
    assert any(line in problem for problem in caught.value.problems), caught.value.problems


def test_a_recipe_may_not_ask_for_what_cannot_be_done(tmp_path):
    (tmp_path / "r.yaml").write_text("stage: dream")
    with pytest.raises(SettingsError, match="stage: 'dream' is not allowed; allowed: fit, probe"):
        read_recipe(str(tmp_path / "r.yaml"))


def test_recipes_lie_over_the_configuration_and_under_the_cell(tmp_path):
    recipe = tmp_path / "r.yaml"
    recipe.write_text("data: {dataset: synthetic, batch_size: 8}\ntune: {n_trials: 3}\nseed_everything: 9")
    (cell,) = plan(settings(tmp_path, datasets=["digits"], backbones=["mini_cnn"], seeds=[4], recipes=[str(recipe)]))
    assert cell.settings is not None
    assert (cell.settings.data.dataset, cell.settings.data.batch_size, cell.settings.seed_everything) == (
        "digits",
        8,
        4,
    )
    assert cell.settings.tune == RunSettings().tune


def test_axes_that_are_left_out_are_those_of_the_recipe(tmp_path):
    recipe = tmp_path / "r.yaml"
    recipe.write_text("data: {resolution: 28}\nmodel: {backbone: {name: mini_cnn}}")
    given = {"datasets": ["synthetic"], "seeds": [4], "recipes": ["default", str(recipe)]}
    for axes, found in [
        ({}, [(8, "resnet18"), (28, "mini_cnn")]),
        ({"resolutions": [16]}, [(16, "resnet18"), (16, "mini_cnn")]),
        ({"backbones": ["resnet34"]}, [(8, "resnet34"), (28, "resnet34")]),
    ]:
        cells = plan(settings(tmp_path, **given, **axes))
        assert [(cell.resolution, cell.backbone) for cell in cells] == found
        for cell in cells:
            assert cell.settings is not None
            assert cell.settings.data.resolution == cell.resolution
            assert cell.settings.model.backbone.name == cell.backbone


def test_a_recipe_by_size_is_the_shipped_one_for_every_data_set(tmp_path, monkeypatch):
    folder = tmp_path / "configs"
    (folder / "recipes").mkdir(parents=True)
    for number, name in enumerate(SIZES):
        (folder / "recipes" / f"{name}.yaml").write_text(f"data: {{batch_size: {number + 10}}}")
    monkeypatch.setattr(shipped, "shipped_folder", lambda: folder)
    named = ["breastmnist", "dermamnist", "pathmnist"]  # 546, 7,007 and 89,996 training images
    given = {"datasets": named, "resolutions": [28], "backbones": ["mini_cnn"], "seeds": [4], "recipes": ["by_size"]}
    cells = plan(settings(tmp_path, **given))
    assert [cell.settings.data.batch_size for cell in cells if cell.settings] == [10, 11, 12]
    assert {cell.recipe for cell in cells} == {"by_size"}
    assert [recipe_for(count) for count in (1, 3000, 3001, 20_000, 20_001)] == [
        "tiny_28",
        "tiny_28",
        "small_28",
        "small_28",
        "large_28",
    ]


def test_a_probe_costs_one_look_at_every_image(tmp_path):
    (tmp_path / "frozen.yaml").write_text("stage: probe\nmodel: {backbone: {name: resnet18, pretrained: true}}")
    recipes = [str(tmp_path / "frozen.yaml"), "default"]
    probed, fitted = plan(settings(tmp_path, datasets=["synthetic"], seeds=[1], recipes=recipes))
    assert (probed.stage, fitted.stage) == ("probe", "fit")
    assert probed.key != fitted.key
    assert cost_of(fitted) == 3 * cost_of(probed) > 0  # one epoch, whose backward pass takes twice the forward pass


def test_recipes_of_one_name_are_told_apart(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "r.yaml").write_text("data: {batch_size: 8}")
    paths = [str(tmp_path / folder / "r.yaml") for folder in ("a", "b")]
    cells = plan(settings(tmp_path, datasets=["digits"], backbones=["mini_cnn"], seeds=[4], recipes=paths))
    assert len({cell.recipe for cell in cells}) == len({cell.key for cell in cells}) == 2


def test_suites_fill_in_the_matrix_and_what_is_given_wins(tmp_path):
    chosen = settings(tmp_path, suite="quick").benchmark
    assert chosen.datasets == ("digits", "synthetic")
    assert len(plan(settings(tmp_path, suite="quick"))) == 8
    assert settings(tmp_path, suite="quick", datasets=["digits"]).benchmark.datasets == ("digits",)
    assert folder_of(settings(tmp_path, suite="quick")).path.name == "quick"
    assert len(plan(settings(tmp_path, suite="medmnist2d", backbones=["mini_cnn"], resolutions=[28]))) == 36
    volumes = plan(settings(tmp_path, suite="medmnist3d"))
    assert len(volumes) == 18
    assert all(cell.problem is None for cell in volumes)


def test_the_section_is_no_part_of_a_runs_identity():
    trees = [RunSettings(), RunSettings.model_validate({"benchmark": {"suite": "quick", "workers": 7}})]
    assert len({digest(tree.model_dump(mode="json")) for tree in trees}) == 1


def test_the_base_configuration_is_a_matrix_of_one_by_three_seeds(tmp_path):
    chosen = settings(tmp_path)
    chosen = chosen.model_copy(update={"data": chosen.data.model_copy(update={"dataset": "digits"})})
    assert [(c.dataset, c.resolution, c.backbone, c.seed) for c in plan(chosen)] == [
        ("digits", 8, "resnet18", seed) for seed in (42, 43, 44)
    ]


def test_two_hosts_that_put_the_same_cells_in_line_train_each_once(chosen):
    folder = folder_of(chosen)
    study = open_benchmark(chosen.benchmark, folder, "benchmark")
    for cell in plan(chosen):
        for _ in range(2):
            study.enqueue_trial({CELL: cell.key})
    work = Fake()
    found = run(chosen, work)
    assert len(work.done) == 4
    assert found.counts == {"all": 4, "complete": 4}
    assert {key_of(trial) for trial in trials(chosen)} == {cell.key for cell in plan(chosen)}


@pytest.mark.parametrize("storage", ["journal", "sqlite"])
def test_the_study_may_lie_in_another_database(tmp_path, storage):
    where = storage if storage == "journal" else f"sqlite:///{tmp_path}/mine.db"
    chosen = settings(tmp_path, **ONE, storage=where, name="s")
    run(chosen, Fake())
    assert (folder_of(chosen).journal if storage == "journal" else tmp_path / "mine.db").is_file()
    assert rewrite(chosen).counts["complete"] == 1
    text = (folder_of(chosen).settings).read_text()
    assert yaml.safe_load(text)["benchmark"]["storage"] == ("journal" if storage == "journal" else "…")
    with pytest.raises(SettingsError) as caught:
        run(settings(tmp_path, **TWO, storage="nowhere"), Fake())
    assert caught.value.problems[0].startswith("benchmark.storage: is no address")


def test_a_leaderboard_of_nothing_is_refused(chosen):
    with pytest.raises(RunError, match=r"holds no database/study\.db"):
        rewrite(chosen)


def test_the_files_say_the_same(tmp_path):
    chosen = settings(tmp_path, **{**TWO, "seeds": [1, 2, 3]}, watts=10.0)
    found = run(chosen, Fake())
    content = json.loads((found.path / "leaderboard.json").read_text())
    assert content == found.content
    row = content["tables"][0]["rows"][0]
    auc = row["metrics"]["auc"]
    values = auc["values"]
    assert auc["mean"] == pytest.approx(np.mean(values))
    assert auc["sd"] == pytest.approx(np.std(values, ddof=1))
    expected = stats.t.interval(0.95, 2, loc=np.mean(values), scale=stats.sem(values))
    assert auc["seeds_interval"] == pytest.approx(expected)
    assert auc["images_interval"] == pytest.approx([np.mean(values) - 0.03, np.mean(values) + 0.02])
    assert row["energy_wh"] == pytest.approx(180 / 3600 * 10)
    assert row["energy_from"] == "estimated"
    lines = list(csv.DictReader(io.StringIO((found.path / "leaderboard.csv").read_text())))
    assert float(lines[0]["auc_mean"]) == auc["mean"]
    assert float(lines[0]["energy_wh"]) == row["energy_wh"]
    shown = f"{auc['mean']:.3f} ± {auc['sd']:.3f}"
    assert shown in (found.path / "leaderboard.md").read_text()
    page = found.report.read_text()
    assert shown in page
    assert "10 W per busy core" in page
    assert "http" not in page.replace("http-equiv", "")
    assert found.leaderboard.shape[0] == 2
    assert "synthetic" in repr(found)


def test_rows_stand_best_first_and_published_values_beside_them(tmp_path, monkeypatch):
    monkeypatch.setattr(planning, "prepare", lambda *_: None)
    chosen = settings(
        tmp_path, datasets=["breastmnist"], resolutions=[28], backbones=["mini_cnn", "resnet18", "resnet34"], seeds=[1]
    )
    found = run(chosen, Fake())
    (table,) = found.content["tables"]
    means = [row["metrics"]["auc"]["mean"] for row in table["rows"]]
    assert means == sorted(means, reverse=True)
    yang = {"auc": 0.901, "accuracy": 0.863}
    assert any(each["values"] == yang and each["resolution"] == 28 for each in table["published"])
    beside = best_published(table)
    assert [each["resolution"] == 28 for each in beside] == [True] * 8 + [False] * 4
    for part in (beside[:8], beside[8:]):
        assert [each["values"]["auc"] for each in part] == sorted((e["values"]["auc"] for e in part), reverse=True)
    assert max(each["values"]["auc"] for each in table["published"]) == beside[8]["values"]["auc"]
    for name in ("index.html", "leaderboard.md", "leaderboard.csv"):
        assert "0.863" in (found.path / name).read_text(), name
    assert "stand in leaderboard.csv" in (found.path / "leaderboard.md").read_text()
    assert "10.1038/s41597-022-01721-8" in found.report.read_text()


def test_a_diagram_is_drawn_where_there_are_enough_data_sets(tmp_path, monkeypatch):
    monkeypatch.setattr(planning, "prepare", lambda *_: None)
    names = ["breastmnist", "retinamnist", "pneumoniamnist", "dermamnist", "bloodmnist"]
    few = {"resolutions": [28], "backbones": ["mini_cnn", "resnet18", "resnet34"], "seeds": [1]}
    found = run(settings(tmp_path, datasets=names[:4], **few), Fake())
    assert "4 data sets and 3 methods are too few" in found.report.read_text()
    assert not list((found.path / "figures").glob("*"))
    found = run(settings(tmp_path, datasets=names, **few), Fake())
    tests = found.content["ranks"]["tests"]
    assert tests["critical"] == pytest.approx(1.4822, abs=1e-3)  # 2.3437 × sqrt(3 × 4 / (6 × 5))
    assert (found.path / "figures" / "critical_difference.png").read_bytes().startswith(b"\x89PNG")
    assert b"<svg" in (found.path / "figures" / "critical_difference.svg").read_bytes()
    assert 'class="diagram"' in found.report.read_text()


def test_a_data_set_without_a_result_of_every_method_is_left_out_of_the_ranks():
    def table(dataset, **values):
        metric = {name: {"auc": None if v is None else {"mean": v}} for name, v in values.items()}
        rows = [{"backbone": name, "recipe": "default", "metrics": metric[name]} for name in values]
        return {"dataset": dataset, "resolution": 28, "task": "binary", "rows": rows}

    found = rank_tables([table("a", x=0.9, y=0.8), table("b", x=0.7, y=None), table("c", x=0.5, y=0.6)])
    assert found["average"] == {"x": 1.5, "y": 1.5}
    assert found["left_out"] == ["b"]
    assert rank_tables([table("a", x=0.9)])["reason"] == "there is one method"


def test_names_from_outside_are_no_markup(tmp_path):
    recipe = tmp_path / "<b>x|y.yaml"
    recipe.write_text("data: {batch_size: 8}")
    found = run(settings(tmp_path, datasets=["digits"], backbones=["mini_cnn"], recipes=[str(recipe)]), Fake())
    assert "<b>x" not in found.report.read_text()
    assert "&lt;b>x\\|y" in (found.path / "leaderboard.md").read_text()


def test_unknown_costs_are_dashes_and_killed_processes_are_told(tmp_path):
    def work(cell, name, meter, interruption):
        return record(cell, spent=None, whole=False, parameters=None)

    found = run(settings(tmp_path, datasets=["digits"], backbones=["mini_cnn"], seeds=[1]), work)
    row = found.content["tables"][0]["rows"][0]
    assert row["cpu_seconds"] is None
    assert row["metrics"]["auc"]["sd"] is None
    assert "≥ 1.7 min" in found.report.read_text()


def test_published_tables_are_whole():
    found = published()
    assert {each.dataset for each in found} >= {"breastmnist", "organmnist3d", "adrenalmnist3d"}
    assert len({(each.dataset, each.resolution, each.method) for each in found}) == len(found)
    (breast,) = (e for e in found if (e.dataset, e.resolution, e.method) == ("breastmnist", 28, "ResNet-18"))
    assert breast.values == {"auc": 0.901, "accuracy": 0.863}
    assert "Scientific Data" in breast.source
    by_table = Counter(each.table for each in found)
    assert by_table["MedMNIST v2"] == 12 * 7 + 6 * 8
    assert by_table["MedMNIST+"] == 2 * 2 * 10 * 4


def test_students_interval():
    assert seeds_interval(0.5, 0.1, 4) == pytest.approx(list(stats.t.interval(0.95, 3, loc=0.5, scale=0.05)))


@pytest.fixture(autouse=True)
def restore_optuna():
    level = optuna.logging.get_verbosity()
    yield
    optuna.logging.set_verbosity(level)
