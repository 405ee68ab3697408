"""Reported metrics are medmnist's own, on the same predictions; tables of predictions are read as they were written."""

import csv
import dataclasses

import numpy as np
import pytest
from medmnist import Evaluator
from medmnist.evaluator import getACC, getAUC
from sklearn.metrics import balanced_accuracy_score, f1_score

from visionforge.data.info import TaskSpec
from visionforge.data.registry import dataset_info
from visionforge.data.side_table import SideTable
from visionforge.engine.picture_predictions import PicturePredictions
from visionforge.errors import RunError
from visionforge.evaluation.metrics import classification_metrics
from visionforge.evaluation.predictions import read_predictions, write_medmnist_scores, write_predictions
from visionforge.inference.predictor import BatchPrediction

THEIRS = {
    "binary": "binary-class",
    "multi-class": "multi-class",
    "multi-label": "multi-label, binary-class",
    "ordinal": "ordinal-regression",
}


def predictions(task: str, count: int = 400, classes: int = 5, seed: int = 0):
    rng = np.random.default_rng(seed)
    classes = 2 if task == "binary" else classes
    if task == "multi-label":
        return rng.random((count, classes)).astype(np.float32), (rng.random((count, classes)) < 0.3).astype(np.uint8)
    shown = rng.dirichlet(np.ones(classes), count).astype(np.float32)
    return shown, rng.integers(0, classes, count)


@pytest.mark.parametrize("task", THEIRS)
@pytest.mark.parametrize("seed", range(3))
def test_accuracy_and_auc_are_medmnists(task, seed):
    shown, labels = predictions(task, seed=seed)
    ours = classification_metrics(shown, labels, task)
    truth = labels if task == "multi-label" else labels[:, None]
    assert ours["accuracy"] == pytest.approx(getACC(truth, shown, THEIRS[task]), abs=1e-12)
    assert ours["auc"] == pytest.approx(getAUC(truth, shown, THEIRS[task]), abs=1e-12)


@pytest.mark.parametrize("task", ["binary", "multi-class", "ordinal"])
def test_f1_and_balanced_accuracy(task):
    shown, labels = predictions(task)
    ours = classification_metrics(shown, labels, task)
    assert ours["f1_macro"] == pytest.approx(f1_score(labels, shown.argmax(1), average="macro"))
    assert ours["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(labels, shown.argmax(1)))


@pytest.mark.parametrize("task", ["binary", "multi-class", "multi-label"])
def test_degenerate_labels(task):
    shown, labels = predictions(task, count=6)
    ours = classification_metrics(shown, np.zeros_like(labels), task)
    assert ours["auc"] is None
    assert ours["accuracy"] is not None


def saying(shown, averaged=None, of_labels=False):
    """Return predictions whose stated probabilities are neither of the raw ones."""
    given = shown if averaged is None else averaged
    predicted = (given > 0.5).astype(np.int64) if of_labels else given.argmax(axis=1)
    return BatchPrediction(given * np.float32(0.5), predicted, shown, averaged)


@pytest.fixture(params=["breastmnist", "retinamnist"])
def table(request, archives, tmp_path):
    """A predictions table of a real test split, with and without TTA."""
    info = dataset_info(request.param)
    spec = TaskSpec.of(info, 28, force_rgb=True)
    labels = np.load(archives / f"{info.name}.npz")["test_labels"][:, 0].astype(np.int64)
    rng = np.random.default_rng(0)
    shown, averaged = (rng.dirichlet(np.ones(len(spec.classes)), len(labels)).astype(np.float32) for _ in "ab")
    write_predictions(tmp_path / "predictions.csv", spec, saying(shown, averaged), labels)
    return tmp_path / "predictions.csv", spec, shown, averaged, labels


def test_table_comes_back_exactly(table):
    path, _, shown, averaged, labels = table
    for tta, reference in ((False, shown), (True, averaged)):
        got, truth = read_predictions(path, tta)
        np.testing.assert_array_equal(got.astype(np.float32), reference)
        np.testing.assert_array_equal(truth, labels)


@pytest.mark.parametrize("tta", [False, True])
def test_medmnist_evaluator_scores_our_file_the_same(table, archives, tmp_path, tta, monkeypatch):
    path, spec, shown, averaged, labels = table
    scores = write_medmnist_scores(path, spec, "test", tmp_path / "scores", run="1", tta=tta)
    monkeypatch.setattr(Evaluator.__init__, "__defaults__", (None, str(archives)))
    theirs = Evaluator.parse_and_evaluate(str(scores))
    ours = classification_metrics(averaged if tta else shown, labels, spec.task)
    assert pytest.approx(ours["auc"], abs=1e-6) == theirs.AUC
    assert pytest.approx(ours["accuracy"], abs=1e-6) == theirs.ACC
    assert f"[AUC]{theirs.AUC:.3f}_[ACC]{theirs.ACC:.3f}@1.csv" in scores.name


def test_multi_label_table(tmp_path):
    spec = TaskSpec.of(dataset_info("chestmnist"), 28, force_rgb=True)
    rng = np.random.default_rng(0)
    shown = rng.random((20, 14)).astype(np.float32)
    labels = (rng.random((20, 14)) < 0.2).astype(np.uint8)
    labels[0] = 0
    write_predictions(tmp_path / "p.csv", spec, saying(shown, None, of_labels=True), labels)
    for task in (None, "multi-label"):
        got, truth = read_predictions(tmp_path / "p.csv", task=task)
        np.testing.assert_array_equal(got.astype(np.float32), shown)
        np.testing.assert_array_equal(truth, labels)


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_further_columns_are_those_of_their_names(tmp_path, suffix):
    spec = TaskSpec.of(dataset_info("breastmnist"), 28, force_rgb=True)
    spec = spec.model_construct(**{**dict(spec), "classes": ("a|b", "2")})
    shown = np.array([[0.25, 0.75], [0.5, 0.5], [1, 0]], np.float32)
    sets = np.array([[False, True], [True, True], [False, False]])
    columns = {"set": sets, "abstain": ~sets[:, 1], "distance": np.array([0.5, 2, -1], np.float32)}
    parts = [
        dataclasses.replace(saying(shown[rows]), columns={name: values[rows] for name, values in columns.items()})
        for rows in ([0], [1, 2])
    ]
    path = tmp_path / f"p.{suffix}"
    write_predictions(path, spec, BatchPrediction.joined(parts))
    table = PicturePredictions(path, None, 3, 0).table
    after = list(table)[list(table).index("uncertainty") + 1 :]
    assert after == ["set", "abstain", "distance", "raw_probability_a|b", "raw_probability_2"]
    assert table["set"].fillna("").tolist() == ["2", "a/b|2", ""]
    assert table["abstain"].tolist() == [False, False, True]
    assert table["distance"].tolist() == [0.5, 2, -1]
    assert BatchPrediction.joined(parts[:1]).columns.keys() == columns.keys()


def test_table_without_labels(tmp_path):
    spec = TaskSpec.of(dataset_info("breastmnist"), 28, force_rgb=True)
    write_predictions(tmp_path / "p.csv", spec, saying(np.full((3, 2), 0.5, np.float32)))
    assert read_predictions(tmp_path / "p.csv")[1] is None
    with pytest.raises(RunError, match="has no labels"):
        write_medmnist_scores(tmp_path / "p.csv", spec, "test", tmp_path)


@pytest.mark.parametrize(
    "classes", [("NA", "", "=1+1"), ("-1", "0", "'-1"), ("a", "b", "a"), ('x"y', "z,\n", "null"), ("p_1", "p", "1")]
)
@pytest.mark.parametrize("task", ["multi-class", "multi-label"])
def test_odd_and_equal_class_names_come_back(tmp_path, classes, task):
    spec = TaskSpec.of(dataset_info("retinamnist"), 28, force_rgb=True)
    spec = spec.model_construct(**{**dict(spec), "classes": classes, "task": task})
    rng = np.random.default_rng(0)
    shown = rng.dirichlet(np.ones(3), 30).astype(np.float32)
    labels = (rng.random((30, 3)) < 0.4).astype(np.int64) if task == "multi-label" else rng.integers(0, 3, 30)
    side = SideTable(names=tuple(f"@{k}" for k in range(40)), groups=tuple("NA" for _ in range(40)))
    write_predictions(tmp_path / "p.csv", spec, saying(shown, 1 - shown, task == "multi-label"), labels, side)
    got, truth = read_predictions(tmp_path / "p.csv", tta=False, task=task)
    np.testing.assert_array_equal(got.astype(np.float32), shown)
    np.testing.assert_array_equal(truth, labels)
    with (tmp_path / "p.csv").open(newline="", encoding="utf-8") as file:
        row = next(csv.DictReader(file))
    assert (row["name"], row["group"]) == ("'@0", "NA")


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("index,label,prediction,probability_0,probability_1\n0,1,0,0.75,0.25\n", [1]),
        ("index,label,prediction,probability_0,probability_1,tta_probability_0,tta_probability_1\n"
         "0,1,0,0,0,0.75,0.25\n", [1]),
        ("index,label,prediction,probability_0,probability_1\n0,01,10,0.75,0.25\n", [[0, 1]]),
    ],
)  # fmt: skip
def test_tables_of_earlier_versions_are_read(tmp_path, text, labels):
    (tmp_path / "p.csv").write_text(text)
    shown, truth = read_predictions(tmp_path / "p.csv")
    np.testing.assert_array_equal(shown, [[0.75, 0.25]])
    np.testing.assert_array_equal(truth, labels)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a,b\n1,2\n",
        "truth,raw_probability_a\nb,1\n",
        "raw_probability_a,truth\nx,a\n",
        "\xff",
        "label,probability_0\nx,1\n",
    ],
)
def test_what_is_no_table_of_predictions_is_refused(tmp_path, text):
    (tmp_path / "p.csv").write_bytes(text.encode("latin-1"))
    with pytest.raises(RunError, match=r"p\.csv: "):
        read_predictions(tmp_path / "p.csv")
