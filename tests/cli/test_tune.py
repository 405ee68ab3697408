"""A search from the command line: safe to stop, exact in number, honest about failures, and readable at any time."""

import json
import os
import random
import shutil
import signal
from pathlib import Path

import numpy as np
import openpyxl
import optuna
import pytest
import sqlalchemy
import torch
import yaml

from tests.conftest import EXHAUSTIVE, QUICK, flags, run_folders
from tests.runs.helpers import wait_for
from visionforge.cli.main import main
from visionforge.config.schema import RunSettings
from visionforge.runs.query import load_run
from visionforge.runs.workspace import Workspace
from visionforge.tuning.trials import counted
from visionforge.tuning.tuning import Tuning, with_metric

TUNE = {
    "trainer__deterministic": "true",
    "tune__preset": "quick",
    "tune__n_trials": 5,
    "tune__n_startup_trials": 2,
    "tune__n_warmup_epochs": 1,
    "tune__target": "null",
    "tune__study": "s",
    "data__synthetic__classes": 6,
}
SPACE = '{"model.optimizer.learning_rate": {"low": 0.0001, "high": 0.3, "log": true}}'
FIGURES = (
    "param_importances",
    "optimization_history",
    "parallel_coordinates",
    "slice",
    "contour",
    "intermediate_values",
    "timeline",
)
KILLS = 30 if os.environ.get("VISIONFORGE_EXHAUSTIVE") else 6


def arguments(outputs, **changes):
    return flags(**{**TUNE, "trainer__default_root_dir": outputs, **changes})


def study_of(outputs, name="s"):
    return optuna.load_study(study_name=name, storage=f"sqlite:///{outputs}/studies/{name}/database/study.db")


def begun(outputs):
    """Return the trials of a study that may not be there yet, or that a process which stands still has locked."""
    try:
        return study_of(outputs).trials if (outputs / "studies" / "s" / "database" / "study.db").is_file() else []
    except (KeyError, AssertionError, sqlalchemy.exc.SQLAlchemyError, optuna.exceptions.StorageInternalError):
        return []


def ended(outputs, name="s"):
    return [t for t in counted(study_of(outputs, name).trials) if t.state.is_finished()]


def results(outputs, name="s"):
    return [(trial.params, trial.values, trial.state.name) for trial in ended(outputs, name)]


@pytest.fixture(scope="module")
def whole(fleet, tmp_path_factory):
    """A search that was never interrupted."""
    outputs = tmp_path_factory.mktemp("whole") / "outputs"
    done = fleet.run("tune", *arguments(outputs))
    assert done.status == 0, done.err
    return outputs, done


def test_study_folder_is_complete(whole):
    outputs, done = whole
    folder = outputs / "studies" / "s"
    for name in FIGURES:
        text = (folder / "figures" / f"{name}.html").read_text()
        assert 'data-figure="figure-1"' in text, name
        assert '<script type="application/json" id="figure-1">' in text, name
        assert "<script src=" not in text, "it opens offline"
    for name in FIGURES[:3]:
        assert (folder / "figures" / f"{name}.png").read_bytes().startswith(b"\x89PNG"), name
    index = (folder / "index.html").read_text()
    assert all(f'id="{name}"' in index for name in FIGURES)
    assert index.count('class="plot" data-figure="figure-') == len(FIGURES)
    assert "best: trial" in done.out
    assert done.err.count("trial 4 (5/5) ") == 1
    assert "FutureWarning" not in done.err
    assert "ExperimentalWarning" not in done.err
    assert not list(folder.rglob(".*"))


def test_first_trial_is_the_configuration_itself(whole):
    first = study_of(whole[0]).trials[0]
    assert first.params["model.optimizer.learning_rate"] == 0.008
    config = yaml.safe_load((Path(first.user_attrs["run"]) / "config.yaml").read_text())
    assert config["data"]["batch_size"] == QUICK["data.batch_size"]


def test_trials_are_ordinary_runs_without_a_test(whole):
    outputs, _ = whole
    runs = run_folders(outputs / "studies" / "s" / "trials")
    assert len(runs) == 5
    for trial in ended(outputs):
        if trial.state.name == "COMPLETE":
            run = Path(trial.user_attrs["run"])
            stored = json.loads((run / "run.json").read_text())
            assert stored["state"] == "complete"
            assert stored["parent"] == {"study": "s", "trial": trial.number, "reason": "trial"}
            assert not (run / "metrics.json").exists()
            assert (
                torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)["epoch"] + 1
                == (trial.user_attrs["best_epoch"])
            )


def test_summary_and_spreadsheet_say_what_the_study_says(whole):
    outputs, _ = whole
    reports = outputs / "studies" / "s" / "reports"
    content = json.loads((reports / "study_summary.json").read_text())
    assert sum(content["counts"].values()) == 5
    best = max((t for t in ended(outputs) if t.state.name == "COMPLETE"), key=lambda t: (t.value, -t.number))
    assert content["best"]["trial"] == best.number
    assert content["best"]["val/auc"] == best.value
    sheet = openpyxl.load_workbook(reports / "top_10_trials.xlsx").active
    header = [cell.value for cell in sheet[1]]
    assert header[:3] == ["rank", "trial", "val/auc"]
    assert sheet.freeze_panes == "C2"
    assert sheet.cell(2, 2).value == best.number
    assert isinstance(sheet.cell(2, 3).value, float | int)
    values = [sheet.cell(row, 3).value for row in range(2, sheet.max_row + 1)]
    assert values == sorted(values, reverse=True)
    assert Path(sheet.cell(2, len(header)).value).is_dir()


def test_best_configuration_gives_the_metrics_of_its_trial_exactly(whole, tmp_path):
    outputs, _ = whole
    best = outputs / "studies" / "s" / "reports" / "best_config.yaml"
    assert "tune" not in yaml.safe_load(best.read_text())
    number = json.loads((best.parent / "study_summary.json").read_text())["best"]["trial"]
    trial = study_of(outputs).trials[number]
    again = ["--seed_everything", "42", "--trainer.max_epochs", "2", "--trainer.default_root_dir", str(tmp_path)]
    assert main(["fit", "--config", str(best), *again]) == 0
    (run,) = run_folders(tmp_path)
    rows = (run / "metrics.csv").read_text().splitlines()
    old = (Path(trial.user_attrs["run"]) / "metrics.csv").read_text().splitlines()
    assert [row.rpartition(",")[0] for row in rows] == [row.rpartition(",")[0] for row in old]
    one, two = (
        torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
        for folder in (run, Path(trial.user_attrs["run"]))
    )
    assert all(torch.equal(one[key], two[key]) for key in one)


@pytest.mark.slow
def test_same_command_again_does_nothing_more_and_a_larger_one_goes_on(fleet, whole, tmp_path):
    outputs = tmp_path / "outputs"
    shutil.copytree(whole[0], outputs)
    before = results(outputs)
    assert fleet.run("tune", *arguments(outputs)).status == 0
    assert results(outputs) == before
    done = fleet.run("tune", *arguments(outputs, tune__n_trials=6))
    assert done.status == 0, done.err
    assert results(outputs)[:5] == before
    assert len(results(outputs)) == 6
    longer = tmp_path / "longer"
    assert fleet.run("tune", *arguments(longer, tune__n_trials=6)).status == 0
    assert results(longer) == results(outputs), "the same values are proposed as without the break"


def test_other_settings_under_the_same_name_are_refused(whole, refuse, tmp_path):
    outputs = tmp_path / "outputs"
    shutil.copytree(whole[0], outputs)
    (line,) = refuse("tune", *arguments(outputs, model__loss__label_smoothing=0.1))
    assert "tune.study: s was begun with other settings (configuration)" in line
    (line,) = refuse("tune", *arguments(outputs, tune__preset="full"))
    assert "tune.study: s was begun with other settings (space)" in line


def test_default_name_tells_searches_apart(tmp_path):
    """Two of three commands search the same, whoever does the work."""
    names = []
    for changes in ({}, {"metric": "val/loss"}, {"workers": 2}):
        tree = {"data": {"dataset": "synthetic"}, "model": {"backbone": {"name": "mini_cnn", "pretrained": False}}}
        space = {"preset": "none", "space": {"data.batch_size": {"choices": [8, 16]}}}
        settings = RunSettings.model_validate({**tree, "tune": {**space, **changes}})
        names.append(Tuning(with_metric(settings)).name)
    assert names[0] == names[2] != names[1]
    assert all(name.startswith("synthetic_mini_cnn_") for name in names)


def test_reports_can_be_made_anew(whole, tmp_path, capsys):
    outputs = tmp_path / "outputs"
    shutil.copytree(whole[0], outputs)
    folder = outputs / "studies" / "s"
    shutil.rmtree(folder / "figures")
    shutil.rmtree(folder / "reports")
    assert main(["tune", "--report", str(folder)]) == 0
    assert "best: trial" in capsys.readouterr().out
    assert {path.stem for path in (folder / "figures").glob("*.html")} == set(FIGURES)
    assert (folder / "reports" / "best_config.yaml").is_file()


@pytest.mark.slow
def test_pruned_trials_are_cheaper_and_say_so(fleet, tmp_path):
    changes = {"tune__n_trials": 8, "trainer__max_epochs": 5, "tune__space": SPACE, "tune__n_startup_trials": 1}
    assert fleet.run("tune", *arguments(tmp_path, **changes)).status == 0
    trials = ended(tmp_path)
    pruned = [trial for trial in trials if trial.state.name == "PRUNED"]
    assert pruned
    assert all(len(trial.intermediate_values) < 5 for trial in pruned)
    runs = [json.loads((run / "run.json").read_text()) for run in run_folders(tmp_path / "studies" / "s" / "trials")]
    assert sum(run["state"] == "pruned" for run in runs) == len(pruned)
    summary = json.loads((tmp_path / "studies" / "s" / "reports" / "study_summary.json").read_text())
    assert summary["counts"]["pruned"] == len(pruned)
    assert summary["epochs_saved"] == pytest.approx(1 - sum(len(t.intermediate_values) for t in trials) / 40)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"tune__target": 0.3, "tune__target_trials": 2}, "has reached the target of 0.3"),
        ({"tune__timeout_minutes": 1e-6}, "the time of 1e-06 minutes is up"),
        ({"tune__storage": "journal", "tune__n_trials": 2}, "study.journal"),
        ({"tune__epochs": 1, "tune__n_trials": 2}, "all 2 trials are done"),
        (
            {
                "tune__sampler": "nsgaii",
                "tune__second_metric": "parameters",
                "tune__pruner": "none",
                "tune__n_trials": 2,
            },
            "parameters 94,246",
        ),
        ({"tune__metric": "val/loss", "tune__sampler": "random", "tune__n_trials": 3}, "val/loss"),
    ],
)
def test_settings_of_the_search_change_what_happens(fleet, tmp_path, changes, said):
    done = fleet.run("tune", *arguments(tmp_path, **changes))
    assert done.status == 0, done.err
    assert said in done.err + done.out
    summary = json.loads((tmp_path / "studies" / "s" / "reports" / "study_summary.json").read_text())
    number = sum(summary["counts"].values())
    if "tune__target" in changes:
        assert number == 2
    if "tune__timeout_minutes" in changes:
        assert number == 0
    if "tune__epochs" in changes:
        assert [trial["epochs"] for trial in summary["trials"]] == [1, 1]
        best = (tmp_path / "studies" / "s" / "reports" / "best_config.yaml").read_text()
        assert yaml.safe_load(best)["trainer"]["max_epochs"] == 2
    if "tune__second_metric" in changes:
        assert list(summary["objectives"].values()) == ["maximize", "minimize"]
        assert (tmp_path / "studies" / "s" / "figures" / "pareto_front.html").is_file()
    if "tune__metric" in changes:
        losses = [trial["val/loss"] for trial in summary["trials"] if trial["state"] == "complete"]
        assert summary["best"]["val/loss"] == min(losses)


@pytest.mark.slow
def test_refit_trains_the_best_at_full_length_and_tests_it(fleet, tmp_path):
    done = fleet.run("tune", *arguments(tmp_path, tune__epochs=1, tune__n_trials=2, tune__refit="true"))
    assert done.status == 0, done.err
    (run,) = run_folders(tmp_path)
    stored = json.loads((run / "run.json").read_text())
    assert (stored["parent"]["study"], stored["parent"]["reason"]) == ("s", "refit")
    assert stored["progress"]["epochs"] == 2
    assert json.loads((run / "metrics.json").read_text())["split"] == "test"
    done = fleet.run("tune", *arguments(tmp_path, tune__epochs=1, tune__n_trials=2, tune__refit="true"))
    assert done.status == 0, done.err
    assert f"refit: complete already, {run}" in done.out
    assert run_folders(tmp_path) == [run]


@pytest.mark.slow
def test_failed_trials_have_a_reason_and_the_search_goes_on(fleet, tmp_path):
    space = '{"trainer.limit_train_batches": {"choices": [1.0, 0.001, 0.5]}}'
    changes = {"tune__preset": "none", "tune__space": space, "tune__n_trials": 6, "tune__sampler": "grid"}
    done = fleet.run("tune", *arguments(tmp_path, **changes))
    assert done.status == 0, done.err
    failed = [trial for trial in ended(tmp_path) if trial.state.name == "FAIL"]
    assert {trial.params["trainer.limit_train_batches"] for trial in failed} == {0.001}
    assert "You requested to check 0.001" in failed[0].user_attrs["reason"]
    assert failed[0].value is None
    assert "failed: trainer: You requested to check" in done.err
    summary = json.loads((tmp_path / "studies" / "s" / "reports" / "study_summary.json").read_text())
    assert summary["counts"]["failed"] == len(failed)
    assert any(trial["reason"] for trial in summary["trials"])


@pytest.mark.slow
def test_too_many_failures_in_a_row_stop_with_the_cause(fleet, tmp_path):
    space = '{"trainer.limit_train_batches": {"choices": [0.001]}}'
    changes = {"tune__preset": "none", "tune__space": space, "tune__max_failures": 2, "tune__n_trials": 20}
    done = fleet.run("tune", *arguments(tmp_path, **changes))
    assert done.status == 2
    (line,) = [line for line in done.err.splitlines() if line.startswith("error: ")]
    assert "2 trials in a row failed, so the search stops; the most common reason" in line
    assert "You requested to check 0.001" in line
    assert (tmp_path / "studies" / "s" / "index.html").is_file()
    assert len(ended(tmp_path)) == 3, "the configuration itself, and two that failed"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["SIGTERM", pytest.param("SIGINT", marks=EXHAUSTIVE)])
def test_signal_ends_the_search_in_order_and_it_goes_on_the_same(fleet, whole, tmp_path, name):
    number = getattr(signal, name)
    pid = fleet.start("tune", *arguments(tmp_path))
    wait_for(lambda: any(trial.state.is_finished() for trial in begun(tmp_path)))
    os.kill(pid, number)
    stopped = fleet.wait()
    assert stopped.status == 128 + number, stopped.err
    assert "the same command goes on with the study s" in stopped.err
    assert (tmp_path / "studies" / "s" / "index.html").is_file()
    assert not [trial for trial in study_of(tmp_path).trials if trial.state.name == "RUNNING"]
    assert fleet.run("tune", *arguments(tmp_path)).status == 0
    assert results(tmp_path) == results(whole[0])


@pytest.mark.slow
def test_killed_at_any_moment_it_keeps_what_is_finished_and_ends_with_the_number(fleet, tmp_path, whole):
    """Ten kills at random moments or more; each time the same command again."""
    moments, kills = random.Random(7), 0
    seconds = whole[1].seconds
    expected = results(whole[0])
    while kills < KILLS:
        outputs = tmp_path / f"outputs{kills}"
        kept: list = []
        for _ in range(4):
            done = fleet.killed_after(moments.uniform(0.0, seconds), "tune", *arguments(outputs))
            if done.status == 0:
                break
            assert done.status == -signal.SIGKILL, done.err
            kills += 1
            if (outputs / "studies" / "s" / "config.yaml").is_file():
                now = results(outputs)
                assert now[: len(kept)] == kept, "a finished trial was lost"
                kept = now
        assert fleet.run("tune", *arguments(outputs)).status == 0
        found = results(outputs)
        assert len(found) == TUNE["tune__n_trials"]
        assert found[: len(kept)] == kept
        failed = [trial for trial in ended(outputs) if trial.state.name == "FAIL"]
        assert all(trial.user_attrs["reason"] == "its process was killed" for trial in failed)
        if not failed:  # a trial that was killed twice has failed
            assert found == expected
        trials = outputs / "studies" / "s" / "trials"
        states = [json.loads((run / "run.json").read_text())["state"] for run in run_folders(trials)]
        assert states.count("complete") + states.count("pruned") >= len([s for *_, s in found if s != "FAIL"])


@pytest.mark.slow
def test_killed_at_any_moment_trials_that_wait_go_on(fleet, tmp_path):
    """Six kills at random moments; each time the same command again."""
    changes = {"tune__pruner": "halving", "tune__n_trials": 8, "trainer__max_epochs": 4}
    whole = tmp_path / "whole"
    begun = fleet.run("tune", *arguments(whole, **changes))
    assert begun.status == 0, begun.err
    moments, kills = random.Random(7), 0
    while kills < 6:
        outputs = tmp_path / f"outputs{kills}"
        for _ in range(3):
            done = fleet.killed_after(moments.uniform(0.3, 1.0) * begun.seconds, "tune", *arguments(outputs, **changes))
            if done.status == 0:
                break
            assert done.status == -signal.SIGKILL, done.err
            kills += 1
        assert fleet.run("tune", *arguments(outputs, **changes)).status == 0
        assert len(ended(outputs)) == 8
        if not any(state == "FAIL" for *_, state in results(outputs)):  # a trial that was killed twice has failed
            assert sorted(map(str, results(outputs))) == sorted(map(str, results(whole)))


@pytest.mark.slow
def test_workers_share_the_study_and_the_number_is_exact(tmp_path):
    outputs = tmp_path / "outputs"
    changes = {"trainer__max_epochs": 15, "tune__pruner": "none"}  # long enough for both to have begun
    begin = ["tune", *arguments(outputs, tune__n_trials=7, tune__workers=2, tune__heartbeat_seconds=1, **changes)]
    assert main(begin) == 0
    trials = ended(outputs)
    assert len(trials) == 7
    assert len({trial.user_attrs["owner"]["pid"] for trial in trials}) == 2
    assert len(run_folders(outputs / "studies" / "s" / "trials")) >= 7
    assert (
        json.loads((outputs / "studies" / "s" / "reports" / "study_summary.json").read_text())["counts"]["running"] == 0
    )


@pytest.mark.slow
def test_killed_worker_is_replaced_and_its_trial_tried_again(fleet, tmp_path):
    outputs = tmp_path / "outputs"
    epochs = 40
    changes = {"tune__n_trials": 6, "tune__workers": 2, "trainer__max_epochs": epochs, "tune__pruner": "none"}
    fleet.start("tune", *arguments(outputs, **changes))

    def training():
        """Return the trials that have begun and are far from their end: a run is complete before its trial is."""
        running = [trial for trial in begun(outputs) if trial.state.name == "RUNNING"]
        return [trial for trial in running if 0 < len(trial.intermediate_values) < epochs - 10]

    def held():
        """Return a trial that is still in the middle of its training once its worker stands still."""
        for trial in training():
            owner = trial.user_attrs["owner"]["pid"]
            os.kill(owner, signal.SIGSTOP)
            if trial.number in [each.number for each in training()]:
                return trial
            os.kill(owner, signal.SIGCONT)
        return None

    victim = wait_for(held, 120)
    os.kill(victim.user_attrs["owner"]["pid"], signal.SIGKILL)
    done = fleet.wait()
    assert done.status == 0, done.err
    (cut,) = [trial for trial in begun(outputs) if trial.number == victim.number]
    assert (cut.state.name, cut.user_attrs["reason"]) == ("FAIL", "its process was killed")  # said by who saw it first
    trials = ended(outputs)
    assert len(trials) == 6
    assert [trial.user_attrs.get("retry_of") for trial in trials].count(victim.number) == 1
    runs = [load_run(Workspace(run)) for run in run_folders(outputs / "studies" / "s" / "trials")]
    assert [run.state for run in runs].count("interrupted") == 1, "what was half written says so"
    assert len(runs) == 7, [(run.name, run.state, run.manifest.parent) for run in runs]


MISTAKES = {
    "misspelt": (
        ["--tune.n_trails", "3"],
        "tune.n_trails: unknown setting (on the command line); nearest: tune.n_trials",
    ),
    "out of range": (["--tune.n_trials", "0"], "tune.n_trials: 0 is not allowed"),
    "two objectives and a pruner": (["--tune.second_metric", "parameters"], "tune.pruner: nothing can be pruned"),
    "nsgaii alone": (["--tune.sampler", "nsgaii"], "tune.sampler: nsgaii is for two objectives"),
    "endless grid": (["--tune.sampler", "grid"], "a grid needs choices, or low and high with a step"),
    "pool without use": (["--tune.pool", "[resnet18]"], "tune.pool: would be ignored"),
    "unknown backbone": (["--tune.preset", "architectures", "--tune.pool", "[resnet19]"], "tune.pool: 'resnet19'"),
    "name with a slash": (["--tune.study", "../x"], "tune.study: '../x' is not allowed"),
    "several machines": (
        ["--trainer.num_nodes", "2"],
        "trainer.num_nodes: 2 is not allowed; a trial runs on one machine",
    ),
    "resume": (["--resume", "auto"], "a search begins anew or goes on by itself"),
    "storage": (["--tune.storage", "foo"], "tune.storage: is no address of a database"),
    "no study": (["--report", "nothing"], "--report: nothing is no study"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_one_line_and_leave_nothing(refuse, name):
    mistake, line = MISTAKES[name]
    given = mistake if name == "no study" else [*flags(tune__preset="quick"), *mistake]
    lines = refuse("tune", *given)
    assert any(found.startswith(line) or line in found for found in lines), lines


def test_help_names_every_setting_of_the_search(capsys):
    assert main(["tune", "--help"]) == 0
    shown = capsys.readouterr().out
    for name in RunSettings.model_fields["tune"].annotation.model_fields:
        assert f"--tune.{name} " in shown


def test_fit_passes_over_the_section(tmp_path):
    (tmp_path / "x.yaml").write_text("tune: {n_trials: 3, preset: quick}\n")
    begin = ["fit", "--config", "x.yaml", "--tune.n_trials", "4"]
    assert main([*begin, *flags(trainer__default_root_dir=tmp_path / "one", trainer__max_epochs=1)]) == 0
    assert main(["fit", *flags(trainer__default_root_dir=tmp_path / "two", trainer__max_epochs=1)]) == 0
    (one,), (two,) = run_folders(tmp_path / "one"), run_folders(tmp_path / "two")
    assert one.name == two.name
    assert "tune" not in yaml.safe_load((one / "config.yaml").read_text())


@pytest.mark.slow
@EXHAUSTIVE
def test_memory_does_not_grow_from_trial_to_trial(tmp_path):
    """Resident memory after ten more trials, in a process that has run five."""
    import psutil

    sizes = []
    for number in (5, 10, 15):
        changes = {"tune__n_trials": number, "tune__pruner": "none", "trainer__max_epochs": 1}
        assert main(["tune", *arguments(tmp_path, **changes)]) == 0
        sizes.append(psutil.Process().memory_info().rss / 1e6)
    assert np.diff(sizes).max() < 60, sizes


def test_print_config_searches_nothing(tmp_path, capsys):
    given = flags(trainer__default_root_dir=tmp_path / "o")
    assert main(["tune", *given, "--tune.n_trials", "3", "--print_config"]) == 0
    printed = yaml.safe_load(capsys.readouterr().out)
    assert printed["tune"]["n_trials"] == 3
    assert printed["model"]["backbone"]["name"] == "mini_cnn"
    assert main(["tune", *given, "--tune.n_trials", "3", "--print_config=skip_default"]) == 0
    assert yaml.safe_load(capsys.readouterr().out)["tune"] == {"n_trials": 3}
    assert not (tmp_path / "o").exists()
