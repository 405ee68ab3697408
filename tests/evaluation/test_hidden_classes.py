"""A good average that hides a class is told of, and very few cases raise no alarm."""

import numpy as np
import pytest
import torch

from tests.evaluation.helpers import evaluation_of
from visionforge.evaluation.bootstrap import Estimate
from visionforge.evaluation.evaluation import evaluate
from visionforge.evaluation.hidden_classes import hidden_classes, only_answer
from visionforge.training.predictions import Predictions


def estimate_of(auc, recalls, ends=None, name="sensitivity"):
    intervals = {} if ends is None else {name: ends}
    return Estimate({"auc": auc, "f1_macro": 0.4}, {name: recalls}, {}, intervals, {})


def test_an_auc_of_0_917_beside_a_recall_of_8_7_percent_is_told_in_one_line():
    found = estimate_of(0.917, [0.95, 0.087])
    assert hidden_classes(("other", "rare"), (400, 46), found) == [
        "a good average hides what is not found: AUC is 0.917, but found are only 8.7% of the 46 cases of rare "
        "(at most 20.8%)"
    ]


@pytest.mark.parametrize(
    ("auc", "recall", "cases"),
    [(0.89, 0.087, 46), (0.95, 0.0, 4), (0.95, 0.4, 60), (0.95, 0.6, 500), (0.95, None, 0), (None, 0.0, 50)],
)
def test_no_alarm_without_a_good_average_or_enough_cases(auc, recall, cases):
    assert hidden_classes(("other", "rare"), (400, cases), estimate_of(auc, [0.95, recall])) == []


def test_the_interval_of_the_evaluation_decides_where_there_is_one():
    assert hidden_classes(("a", "b"), (400, 46), estimate_of(0.95, [1.0, 0.2], [(0.9, 1.0), (0.05, 0.55)])) == []
    assert hidden_classes(("a", "b"), (400, 46), estimate_of(0.95, [1.0, 0.2], [(0.9, 1.0), None])) != []


def test_the_worst_come_first_and_the_line_stays_one():
    recalls = [0.3, 0.1, *([0.2] * 6)]
    (line,) = hidden_classes(tuple("abcdefgh"), (100,) * 8, estimate_of(0.99, recalls))
    assert line.index("of b (") < line.index("of c (") < line.index("of d (")
    assert line.endswith(" and 3 classes more")


def test_labels_are_judged_at_their_thresholds():
    found = estimate_of(0.95, [0.1, 0.1])
    tuned = Estimate(found.overall, {**found.per_class, "sensitivity_tuned": [0.9, 0.1]}, {}, {}, {})
    (line,) = hidden_classes(("a", "b"), (90, 90), tuned)
    assert "cases of b" in line
    assert "cases of a" not in line


def test_an_evaluation_warns_and_metrics_json_has_it():
    evaluation = evaluation_of(count=400, perfect=True)
    assert evaluation.as_dict()["warnings"] == []
    best = evaluation.best
    probabilities = np.where(np.arange(4) == 1, 0.49, 1.0) * best.probabilities
    probabilities[:, 0] += np.where(evaluation.labels == 1, 0.5, 0.0)
    said = torch.tensor(probabilities / probabilities.sum(axis=1, keepdims=True), dtype=torch.float32)
    again = evaluate(
        Predictions("test", said, None, torch.tensor(evaluation.labels), 0.1, None, None),
        evaluation.spec,
        "test",
        evaluation.settings,
    )
    (line,) = again.as_dict()["warnings"]
    assert line.startswith("a good average hides what is not found: AUC is 1.000, but found are only 0.0% of the ")


def test_one_answer_for_everything_is_told():
    labels = np.array([0, 0, 1, 2, 0])
    (line,) = only_answer(("a", "b", "c"), np.zeros(5, np.int64), labels)
    assert line.startswith("all 5 images are predicted as a, 2 of them are of other classes")
    assert only_answer(("a", "b", "c"), np.array([0, 0, 0, 1, 0]), labels) == []
    assert only_answer(("a", "b", "c"), np.zeros(5, np.int64), np.zeros(5, np.int64)) == []
    assert only_answer(("a", "b"), np.zeros((5, 2), np.int64), np.ones((5, 2), np.int64)) == []
    assert only_answer(("a", "b"), np.zeros(0, np.int64), np.zeros(0, np.int64)) == []
