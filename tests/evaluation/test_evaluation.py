"""An evaluation has every number of every reading, and says what is absent or undefined."""

import json

import numpy as np
import pytest
from medmnist.evaluator import getACC, getAUC

from tests.evaluation.helpers import CLASSES, evaluation_of
from visionforge.config.schema import EvaluationSettings
from visionforge.config.schema.tasks import task_named
from visionforge.evaluation.metrics import classification_metrics
from visionforge.evaluation.selection import confident_mistakes, least_certain

TASKS = ("binary", "multi-class", "ordinal", "multi-label")


@pytest.mark.parametrize("task", TASKS)
def test_every_reading_has_metrics_intervals_and_classes(task):
    evaluation = evaluation_of(task)
    content = json.loads(json.dumps(evaluation.as_dict(), allow_nan=False))
    for reading in ("without_tta", "with_tta"):
        metrics = content[reading]
        for name, value in metrics.items():
            ends = content["intervals"][reading].get(name)
            if name in ("ece", "loss"):
                assert ends is None
            else:
                assert ends[0] <= value <= ends[1] or abs(value - np.clip(value, *ends)) < 0.05
        assert set(content["per_class"][reading]) == set(evaluation.spec.classes)
        each = [row["auc"] for row in content["per_class"][reading].values()]
        assert metrics["auc"] == pytest.approx(each[1] if task == "binary" else np.mean(each))
        assert content["calibration"][reading]["after"]["ece"] != metrics["ece"]
    assert content["without_tta"]["loss"] == 0.7
    assert ("thresholds" in content) == (task == "multi-label")
    assert ("f1_macro_tuned" in content["with_tta"]) == (task == "multi-label")


@pytest.mark.parametrize("task", ["binary", "multi-class", "multi-label"])
def test_medmnists_own_definition_stands_beside(task):
    evaluation = evaluation_of(task)
    theirs = {"binary": "binary-class", "multi-class": "multi-class", "multi-label": "multi-label, binary-class"}[task]
    truth = evaluation.labels if task == "multi-label" else evaluation.labels[:, None]
    for reading in evaluation.readings.values():
        assert reading.medmnist["auc"] == pytest.approx(getAUC(truth, reading.probabilities, theirs))
        assert reading.medmnist["accuracy"] == pytest.approx(getACC(truth, reading.probabilities, theirs))


def test_an_absent_class_is_named_and_in_no_average():
    evaluation = evaluation_of(absent=True)
    content = evaluation.as_dict()
    assert content["absent_classes"] == [CLASSES[-1]]
    row = content["per_class"]["with_tta"][CLASSES[-1]]
    assert row["cases"] == 0
    assert row["auc"] is None
    assert row["sensitivity"] is None
    assert content["medmnist"]["with_tta"]["auc"] is None  # their average has all classes in it
    assert content["with_tta"]["auc"] is not None


def test_without_tta_and_temperature_there_is_one_reading():
    content = evaluation_of(tta=False, temperature=None).as_dict()
    assert content["with_tta"] is None
    assert content["calibration"]["temperature"] is None
    assert content["calibration"]["without_tta"]["after"] is None


def test_settings_change_the_intervals():
    narrow = evaluation_of(settings=EvaluationSettings(resamples=200, confidence=0.6)).as_dict()["intervals"]
    wide = evaluation_of(settings=EvaluationSettings(resamples=200, confidence=0.99)).as_dict()["intervals"]
    assert np.ptp(narrow["with_tta"]["accuracy"]) < np.ptp(wide["with_tta"]["accuracy"])
    assert wide["resamples"] == 200
    assert "intervals" not in evaluation_of(settings=EvaluationSettings(resamples=0)).as_dict()


@pytest.mark.parametrize("task", TASKS)
def test_metrics_are_those_of_the_raw_probabilities(task):
    evaluation = evaluation_of(task)
    for reading in evaluation.readings.values():
        again = classification_metrics(reading.probabilities, evaluation.labels, task, reading.thresholds)
        assert dict(reading.estimate.overall) == again


@pytest.mark.parametrize("task", TASKS)
def test_mistakes_are_wrong_and_sorted(task):
    evaluation = evaluation_of(task)
    chosen = confident_mistakes(evaluation)
    assert len(chosen.indices)
    wrong = evaluation.predicted[chosen.indices] != evaluation.labels[chosen.indices]
    assert (wrong.any(axis=1) if wrong.ndim == 2 else wrong).all()
    assert (np.diff(chosen.confidence) <= 0).all()
    assert len(confident_mistakes(evaluation_of(task, perfect=True)).indices) == 0


def test_least_certain_have_the_highest_entropy():
    evaluation = evaluation_of()
    every = evaluation.task.entropy(evaluation.best.probabilities.astype(np.float64))
    chosen = least_certain(evaluation, 5).indices
    assert every[chosen].min() >= np.delete(every, chosen).max()


def test_entropy_is_a_share():
    classes, labels = task_named("multi-class"), task_named("multi-label")
    np.testing.assert_allclose(classes.entropy(np.array([[0.25] * 4, [1.0, 0, 0, 0]])), [1, 0], atol=1e-12)
    np.testing.assert_allclose(labels.entropy(np.array([[0.5, 0.5], [1.0, 0.0], [0.5, 1.0]])), [1, 0, 0.5], atol=1e-12)
