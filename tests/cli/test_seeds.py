"""`fit --seeds` makes a run per seed and takes up what is there; `runs compare` tells mean, spread and differences."""

import json
import shutil
import statistics

import numpy as np
import pytest

from tests.conftest import flags, run_folders
from visionforge.cli.main import main
from visionforge.engine.seeds import parse_seeds
from visionforge.errors import SettingsError
from visionforge.evaluation.bootstrap import paired_differences
from visionforge.evaluation.comparison import groups_of, spread
from visionforge.evaluation.predictions import scorer_of
from visionforge.runs.query import load_run, stored_runs

SMALL = {"trainer__max_epochs": 1}


@pytest.fixture(scope="module")
def outputs(tmp_path_factory):
    """Three seeds of one setting, and one run of another."""
    outputs = tmp_path_factory.mktemp("seeds") / "outputs"
    assert main(["fit", *flags(trainer__default_root_dir=outputs, **SMALL), "--seeds", "3"]) == 0
    other = flags(trainer__default_root_dir=outputs, model__optimizer__learning_rate=0.05, **SMALL)
    assert main(["fit", *other]) == 0
    return outputs


def runs_of(outputs):
    runs, _ = stored_runs(outputs)
    return sorted(
        runs, key=lambda run: (run.config["model"]["optimizer"]["learning_rate"], run.config["seed_everything"])
    )


def compare(capsys, *arguments):
    capsys.readouterr()
    assert main(["runs", "compare", *map(str, arguments), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_every_seed_is_a_run_of_its_own(outputs):
    seeds = [run.config["seed_everything"] for run in runs_of(outputs)]
    assert seeds == [42, 43, 44, 42]
    hashes = {run.manifest.hash for run in runs_of(outputs)}
    assert len(hashes) == 4


def test_the_first_seed_is_the_ordinary_fit(outputs, tmp_path):
    assert main(["fit", *flags(trainer__default_root_dir=tmp_path / "o", **SMALL)]) == 0
    (alone,) = run_folders(tmp_path / "o")
    assert load_run_metrics(alone) == runs_of(outputs)[0].metrics


def load_run_metrics(folder):
    return json.loads((folder / "metrics.json").read_text())


def test_again_takes_what_is_complete_and_resumes_what_is_not(outputs, tmp_path, capsys):
    own = tmp_path / "own"
    arguments = ["fit", *flags(trainer__default_root_dir=own, **SMALL)]
    assert main([*arguments, "--seeds", "2"]) == 0
    first = {folder.name: (folder / "run.json").stat().st_mtime_ns for folder in run_folders(own)}
    assert main([*arguments, "--seeds", "5,43"]) == 0
    said = capsys.readouterr().out
    assert "seed 43 (2 of 2): complete already" in said
    assert {name: (own / name / "run.json").stat().st_mtime_ns for name in first} == first
    assert len(run_folders(own)) == 3
    assert main([*arguments, "--seeds", "1", "--resume", "never"]) == 0
    assert len(run_folders(own)) == 4


def test_mean_and_spread_are_those_of_the_runs(outputs, capsys):
    same = runs_of(outputs)[:3]
    content = compare(capsys, *(run.workspace.path for run in same))
    (group,) = content["groups"]
    values = [run.metrics["with_tta"]["accuracy"] for run in same]
    assert group["metrics"]["with_tta.accuracy"]["mean"] == pytest.approx(np.mean(values))
    assert group["metrics"]["with_tta.accuracy"]["sd"] == pytest.approx(np.std(values, ddof=1))
    assert content["settings"] == {"seed_everything": [42, 43, 44]}
    assert content["differences"] == []


def test_models_are_compared_on_the_same_cases(outputs, capsys):
    runs = runs_of(outputs)
    content = compare(capsys, *(run.workspace.path for run in runs), "--resamples", 200)
    assert [len(group["runs"]) for group in content["groups"]] == [3, 1]
    scorers = [scorer_of(run.workspace.predictions, "multi-class", True) for run in runs]
    expected = paired_differences(scorers[3:], scorers[:3], 200)
    found = {row["metric"]: row for row in content["differences"]}
    assert {(row["of"], row["from"]) for row in content["differences"]} == {("B", "A")}
    for name, gap in expected.items():
        row = found[f"with_tta.{name}"]
        assert row["value"] == pytest.approx(gap.value)
        assert row["p"] == gap.p
    own = [run.metrics["with_tta"]["brier"] for run in runs]
    assert found["with_tta.brier"]["value"] == pytest.approx(own[3] - statistics.fmean(own[:3]), abs=1e-6)


def test_two_runs_are_two_models_and_text_says_so(outputs, capsys):
    one, two = (run.workspace.path for run in runs_of(outputs)[:2])
    capsys.readouterr()
    assert main(["runs", "compare", str(one), str(two), "--resamples", "100"]) == 0
    said = capsys.readouterr().out
    assert "mean ± standard deviation over seeds" in said
    assert "differences on the same cases" in said
    assert "B − A" in said
    assert "95% interval" in said
    assert main(["runs", "compare", str(one), str(two), "--resamples", "100", "--confidence", "0.8"]) == 0
    assert "80% interval" in capsys.readouterr().out


def test_runs_of_one_seed_count_once(outputs, tmp_path, capsys):
    runs = runs_of(outputs)[:2]
    one, two = (run.workspace.path for run in runs)
    again = shutil.copytree(one, tmp_path / "again")
    capsys.readouterr()
    assert main(["runs", "compare", str(one), str(again), "--resamples", "0"]) == 0
    assert "over seeds" not in capsys.readouterr().out
    assert main(["runs", "compare", str(one), str(again), str(two), "--resamples", "0"]) == 0
    assert "n = 2" in capsys.readouterr().out
    (group,) = compare(capsys, one, again, two)["groups"]
    values = [run.metrics["with_tta"]["auc"] for run in runs]
    assert (len(group["runs"]), group["seeds"]) == (3, 2)
    assert group["metrics"]["with_tta.auc"]["mean"] == pytest.approx(statistics.fmean(values))


def test_other_data_is_not_compared(outputs, tmp_path, capsys):
    assert main(["fit", *flags(trainer__default_root_dir=tmp_path / "o", data__synthetic__test=40, **SMALL)]) == 0
    (other,) = run_folders(tmp_path / "o")
    content = compare(capsys, runs_of(outputs)[0].workspace.path, other)
    assert content["differences"] == []
    assert "not of the same cases" in content["note"]


@pytest.mark.parametrize(
    ("text", "seeds"),
    [("3", [7, 8, 9]), ("1,5,2", [1, 5, 2]), ("4,", [4]), ("1", [7]), ("0,4294967295", [0, 2**32 - 1])],
)
def test_seeds(text, seeds):
    assert parse_seeds(text, 7) == seeds


@pytest.mark.parametrize("text", ["0", "101", "x", "1,1", "", "-2", "1,4294967296", "1.5"])
def test_what_means_no_seeds(text):
    with pytest.raises(SettingsError, match="--seeds"):
        parse_seeds(text, 7)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--seeds"], "--seeds: needs a value"),
        (["--seeds", "no"], "--seeds: no is not allowed"),
        (["--seeds", "2", "--resume", "some_run"], "--resume: some_run is one run"),
        (["--seeds", "2", "--trainer.devices", "2"], "trainer.devices: with --seeds"),
        (["--seeds", "2", "--data.batch_size", "0"], "data.batch_size: 0 is not allowed"),
    ],
)
def test_mistakes_are_told_before_the_first_run(refuse, tmp_path, arguments, said):
    (line, *_) = refuse("fit", *flags(trainer__default_root_dir=tmp_path / "o"), *arguments)
    assert line.startswith(said)


@pytest.mark.parametrize("arguments", [["--resamples", "-1"], ["--confidence", "0.2"], ["--resamples", "x"]])
def test_mistakes_of_a_comparison(refuse, outputs, arguments):
    (line,) = refuse("runs", "compare", str(runs_of(outputs)[0].workspace.path), *arguments)
    assert arguments[0] in line


def test_spread_of_one_value_is_unknown():
    assert spread([0.5]) == {"mean": 0.5, "sd": None, "n": 1}
    assert spread([0.5, None]) is None


def test_groups_ignore_the_seed_alone(outputs):
    assert [len(group.runs) for group in groups_of([load_run(run.workspace) for run in runs_of(outputs)])] == [3, 1]


def paths_of(outputs, *places):
    runs = runs_of(outputs)
    return [str(runs[place].workspace.path) for place in places]


def test_tests_of_models_stand_beside_their_differences(outputs, capsys):
    content = compare(capsys, *paths_of(outputs, 0, 3), "--resamples", 100)
    assert (content["left_out"], content["adjusted"]) == ([], None)
    areas = [row for row in content["tests"] if row["test"] == "delong"]
    assert len(areas) == 2 * 4
    assert {row["p"] for row in areas} == {None}, "eight images of a class are too few"
    (pairs,) = [row for row in content["tests"] if row["test"] == "mcnemar" and row["metric"] == "with_tta.accuracy"]
    (gap,) = [row for row in content["differences"] if row["metric"] == "with_tta.accuracy"]
    assert pairs["value"] == pytest.approx(gap["value"])
    assert (pairs["of"], pairs["from"]) == ("B", "A")
    assert pairs["n10"] - pairs["n01"] == round(gap["value"] * 32)
    assert main(["runs", "compare", *paths_of(outputs, 0, 3), "--resamples", "100"]) == 0
    said = capsys.readouterr().out
    assert "tests on the same cases" in said
    assert f"{pairs['n01']} / {pairs['n10']}" in said
    content = compare(capsys, *paths_of(outputs, 0, 1, 3), "--resamples", 100)
    assert {row["test"] for row in content["tests"]} == {"delong"}
    assert "several seeds" in content["left_out"][0]


def test_margins_have_verdicts(outputs, capsys):
    asked = ["--resamples", "100", "--margin", "accuracy=1", "--margin", "log_loss=0"]
    content = compare(capsys, *paths_of(outputs, 0, 3), *asked)
    rows = {row["metric"]: row for row in content["verdicts"]}
    assert set(rows) == {
        f"{reading}.{name}" for reading in ("without_tta", "with_tta") for name in ("accuracy", "log_loss")
    }
    row = rows["with_tta.accuracy"]
    assert (row["verdict"], row["margin"], row["alpha"]) == ("non-inferior", 1, pytest.approx(0.025))
    assert (rows["with_tta.log_loss"]["higher_is_better"], row["higher_is_better"]) == (False, True)
    several = rows["with_tta.log_loss"]["p"] is not None  # the losses of so few images may have no interval
    assert row["p_adjusted"] >= row["p"] if several else row["p_adjusted"] is None
    assert main(["runs", "compare", *paths_of(outputs, 0, 3), *asked, "--confidence", "0.9"]) == 0
    said = capsys.readouterr().out
    assert "one-sided level of 5.00%" in said
    assert "non-inferior" in said


def test_several_models_have_adjusted_p_values(outputs, tmp_path, capsys):
    third = flags(trainer__default_root_dir=tmp_path / "o", model__optimizer__learning_rate=0.02, **SMALL)
    assert main(["fit", *third]) == 0
    runs = [*paths_of(outputs, 0, 3), str(run_folders(tmp_path / "o")[0])]
    content = compare(capsys, *runs, "--resamples", 100)
    p, adjusted = zip(
        *[(row["p"], row["p_adjusted"]) for row in content["differences"] if row["metric"] == "with_tta.accuracy"],
        strict=True,
    )
    assert len(p) == 2
    assert min(adjusted) == pytest.approx(min(1, 2 * min(p)))
    assert "differences, over the pairs of models" in content["adjusted"]
    assert main(["runs", "compare", *runs, "--resamples", "100"]) == 0
    assert "Holm p" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--margin", "acuracy=0.1"], "--margin: 'acuracy' is no metric; nearest: accuracy"),
        (["--margin", "ece=0.1"], "--margin: ece has no interval"),
        (["--margin", "auc=-1"], "--margin: auc=-1.0 is not allowed"),
        (["--margin", "auc"], "--margin: 'auc' is not allowed; allowed: METRIC=NUMBER"),
        (["--margin", "map=0.1"], "--margin: model B has no difference of map; there are accuracy"),
        (["--margin", "auc=0.1", "--resamples", "0"], "--margin: there are no differences to judge"),
    ],
)
def test_mistakes_of_margins(refuse, outputs, arguments, line):
    (said,) = refuse("runs", "compare", *paths_of(outputs, 0, 3), *arguments)
    assert said.startswith(line)
