"""Somebody's own metric, registered in a module that is named, is found wherever built-in ones are."""

import csv
import json
import sys

import numpy as np
import openpyxl
import optuna
import pytest
import yaml

import visionforge as vf
from tests.conftest import flags, run_folders
from visionforge.cli.main import main
from visionforge.config.schema.metrics import ALWAYS, Metric, register_metric, watched_problem
from visionforge.errors import VisionForgeError
from visionforge.evaluation.bootstrap import estimate
from visionforge.evaluation.scores import Scorer
from visionforge.training.monitor import stored_monitor

MINE = """
import numpy as np
import visionforge as vf

@vf.register_metric(label="share of wrong ones", higher_is_better=False, tasks=("binary", "multi-class"))
def wrong_share(truth, probabilities, predicted, weights):
    assert truth.shape == predicted.shape == weights.shape == probabilities.shape[:1]
    return np.average(predicted != truth, weights=weights)
"""


@pytest.fixture
def module(tmp_path):
    (tmp_path / "metric_for_tests.py").write_text(MINE)
    yield "metric_for_tests"
    sys.modules.pop("metric_for_tests", None)


def rows(path):
    with path.open() as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_it_is_logged_monitored_evaluated_reported_and_compared(module, tmp_path, capsys):
    outputs = tmp_path / "o"
    given = {
        "trainer__default_root_dir": outputs,
        "trainer__max_epochs": 3,
        "model__optimizer__learning_rate": 0.002,
        "model__monitor": "val/wrong_share",
    }
    shown = {"evaluation__report": "true", "evaluation__figures": "true"}
    assert main(["fit", "--import", module, *flags(seed_everything=1, **given, **shown)]) == 0
    assert "share of wrong ones" in capsys.readouterr().out
    (run,) = run_folders(outputs)
    assert main(["fit", "--import", module, *flags(seed_everything=2, **given)]) == 0
    (other,) = set(run_folders(outputs)) - {run}

    epochs = rows(run / "metrics.csv")
    assert list(epochs[0])[:9] == [
        *["epoch", "train/loss", "train/accuracy", "train/accuracy_mixed"],
        *ALWAYS,
        "lr",
        "seconds",
    ]
    for row in epochs:
        assert float(row["val/wrong_share"]) == pytest.approx(1 - float(row["val/accuracy"]), abs=1e-5)
    best = min(epochs, key=lambda row: (float(row["val/wrong_share"]), -int(row["epoch"])))

    content = json.loads((run / "metrics.json").read_text())
    assert content["chosen_by"] == "val/wrong_share"
    assert content["epoch"] == int(best["epoch"]) + 1
    for reading in ("without_tta", "with_tta"):
        found, (low, high) = content[reading]["wrong_share"], content["intervals"][reading]["wrong_share"]
        assert found == pytest.approx(1 - content[reading]["accuracy"])
        assert low == pytest.approx(1 - content["intervals"][reading]["accuracy"][1], abs=0.05)
        assert low < found < high

    assert "share of wrong ones" in (run / "report.html").read_text()
    book = openpyxl.load_workbook(run / "reports" / "training_summary.xlsx")
    assert "share of wrong ones" in [row[0].value for row in book["Summary"].rows]
    assert "val/wrong_share" in [cell.value for cell in next(iter(book["Epochs"].rows))]

    capsys.readouterr()
    assert main(["runs", "compare", "--import", module, "--json", *map(str, run_folders(outputs))]) == 0
    compared = json.loads(capsys.readouterr().out)
    assert "without_tta.wrong_share" in compared["metrics"]
    (row,) = [row for row in compared["differences"] if row["metric"] == "without_tta.wrong_share"]
    assert row["interval"] is not None
    assert main(["test", "--import", module, "--run", str(other)]) == 0


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_it_is_searched_for_in_its_own_direction(module, tmp_path, workers):
    search = {"tune.metric": "val/wrong_share", "tune.n_trials": 3, "tune.preset": "quick", "tune.workers": workers}
    command = [text for key, value in search.items() for text in (f"--{key}", str(value))]
    assert main(["tune", "--import", module, *flags(trainer__default_root_dir=tmp_path / "o"), *command]) == 0
    (folder,) = (tmp_path / "o" / "studies").iterdir()
    study = optuna.load_study(study_name=folder.name, storage=f"sqlite:///{folder / 'database' / 'study.db'}")
    assert study.direction == optuna.study.StudyDirection.MINIMIZE
    done = [trial for trial in study.trials if trial.state == optuna.trial.TrialState.COMPLETE]
    assert done
    for trial in done:
        (table,) = [path for path in folder.rglob("metrics.csv") if str(path.parent.name) in trial.user_attrs["run"]]
        assert trial.value == pytest.approx(min(float(row["val/wrong_share"]) for row in rows(table)), abs=1e-5)


def test_a_built_in_metric_is_logged_where_something_goes_by_it(tmp_path):
    early = [{"class_path": "lightning.pytorch.callbacks.EarlyStopping", "init_args": {"monitor": "val/f1_macro"}}]
    (tmp_path / "early.yaml").write_text(yaml.safe_dump({"trainer": {"callbacks": early}}))
    outputs = tmp_path / "o"
    given = flags(trainer__default_root_dir=outputs, model__monitor="val/mcc")
    assert main(["fit", *given, "--config", "early.yaml"]) == 0
    (run,) = run_folders(outputs)
    assert {"val/mcc", "val/f1_macro"} <= rows(run / "metrics.csv")[0].keys()
    content = json.loads((run / "metrics.json").read_text())
    assert content["chosen_by"] == "val/mcc"
    validated = vf.evaluate(vf.open_run(run), "val").content
    best = rows(run / "metrics.csv")[content["epoch"] - 1]
    assert float(best["val/mcc"]) == pytest.approx(validated["without_tta"]["mcc"], abs=1e-5)


@pytest.mark.parametrize(
    ("setting", "value", "said"),
    [
        ("model.monitor", "val/acuracy", "is no metric that is logged; nearest: val/accuracy; allowed: val/loss, "),
        ("model.monitor", "val/kappa_quadratic", "does not fit multi-class labels"),
        ("model.monitor", "auc", "is no metric that is logged"),
    ],
)
def test_what_is_no_metric_of_the_task_is_refused_in_one_line(refuse, setting, value, said):
    (line,) = refuse("fit", *flags(), f"--{setting}", value)
    assert f"{setting}: {value!r} {said}" in line


@pytest.mark.parametrize(("value", "said"), [("val/aucc", "nearest: val/auc"), ("val/mae", "does not fit multi-class")])
def test_what_is_searched_for_has_to_be_a_metric_of_the_task(refuse, value, said):
    (line,) = refuse("tune", *flags(), "--tune.metric", value)
    assert f"tune.metric: {value!r}" in line
    assert said in line


def test_a_metric_that_fails_is_told_in_one_line(module, tmp_path, capsys):
    text = MINE.replace("    return np", "    1 / 0\n    return np")
    (tmp_path / "metric_for_tests.py").write_text(text)
    command = ["fit", "--import", module, *flags(trainer__default_root_dir=tmp_path / "o")]
    assert main(command) != 0
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error")]
    assert "metric wrong_share: cannot be computed (ZeroDivisionError: division by zero; " in line
    assert "metric_for_tests.py, line 8)" in line


def test_own_values_of_weightings():
    seen = []

    @vf.register_metric(every_epoch=False)
    def heaviest(truth, probabilities, predicted, weights):
        seen.append([array.flags.writeable for array in (truth, probabilities, predicted, weights)])
        return weights.max() if weights.max() < 4 else np.nan

    labels = np.arange(60) % 3
    shown = np.random.default_rng(0).dirichlet(np.ones(3), 60)
    (found,) = estimate([Scorer(shown, labels, "multi-class")], resamples=40)
    assert found.overall["heaviest"] == 1.0
    assert list(found.overall)[-1] == "heaviest"
    assert not np.any(seen)
    assert vf.metrics.HIGHER_IS_BETTER["heaviest"]
    assert vf.metrics.classification_metrics(shown, labels)["heaviest"] == 1.0


@pytest.mark.parametrize(("value", "said"), [("a text", "ValueError"), (None, "TypeError"), (np.zeros(2), "TypeError")])
def test_what_is_no_number_is_an_error(value, said):
    register_metric(Metric(name="odd", label="odd", compute=lambda *arrays: value))
    scorer = Scorer(np.full((4, 2), 0.5), np.array([0, 1, 0, 1]), "binary")
    with pytest.raises(VisionForgeError, match=f"metric odd: cannot be computed \\({said}"):
        scorer(np.ones((4, 1)))


def test_infinite_is_undefined():
    register_metric(Metric(name="odd", label="odd", compute=lambda *arrays: float("inf")))
    (found,) = estimate([Scorer(np.full((4, 2), 0.5), np.array([0, 1, 0, 1]), "binary")], resamples=20)
    assert found.overall["odd"] is None
    assert found.intervals["odd"] is None


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"name": "Mine"}, "small letters"),
        ({"name": "loss"}, "the name is taken"),
        ({"name": "auc_tta"}, "the name is taken"),
        ({"name": "auc"}, "registered already"),
        ({"tasks": ("ranking",)}, "allowed: some of binary"),
        ({"tasks": ()}, "allowed: some of binary"),
        ({"label": " "}, "label"),
        ({"compute": 3}, "no function"),
    ],
)
def test_a_declaration_that_is_wrong_is_refused(fields, said):
    with pytest.raises(ValueError, match=said):
        register_metric(Metric(**{"name": "mine", "label": "mine", "compute": len, **fields}))


def test_the_same_again_is_no_error():
    for _ in range(2):
        exec(compile(MINE, "cell", "exec"), {"__name__": "cell"})
    with pytest.raises(ValueError, match="registered already, by cell"):
        register_metric(name="wrong_share")(len)
    register_metric(name="wrong_share", replace=True)(len)
    with pytest.raises(ValueError, match="registered already, by visionforge"):
        register_metric(name="auc", replace=True)(len)


def test_a_checkpoint_that_names_an_unknown_metric_can_be_read():
    assert stored_monitor("val/of_somebody").name == "val/of_somebody"
    assert stored_monitor("val/loss").mode == "min"
    assert stored_monitor(None).name == stored_monitor("val/\x1b[31m").name == "val/auc"
    assert watched_problem("val/of_somebody") is not None
