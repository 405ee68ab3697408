"""The metrics that training watches equal scikit-learn's, and leave absent classes out."""

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, f1_score, roc_auc_score

from visionforge.config.schema.tasks import task_named
from visionforge.training.gather import interleave
from visionforge.training.metrics import auc


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize(("task", "classes"), [("binary", 2), ("multi-class", 5), ("ordinal", 4)])
def test_against_scikit_learn(task, classes, ties):
    generator = torch.Generator().manual_seed(0)
    shown = torch.softmax(torch.randn((300, classes), generator=generator), dim=1)
    if ties:
        shown = (shown * 4).round() / 4
    labels = torch.randint(0, classes, (300,), generator=generator)
    reference = np.mean([roc_auc_score(labels == k, shown[:, k]) for k in range(classes)])
    assert float(auc(shown, labels, task)) == pytest.approx(reference, abs=1e-6)
    assert float(task_named(task).hits(shown, labels)) == pytest.approx(
        accuracy_score(labels, shown.argmax(1)), abs=1e-6
    )


def test_multi_label_against_scikit_learn():
    generator = torch.Generator().manual_seed(0)
    shown = torch.rand((200, 6), generator=generator)
    labels = (torch.rand((200, 6), generator=generator) < 0.3).to(torch.uint8)
    reference = roc_auc_score(labels.numpy(), shown.numpy(), average="macro")
    assert float(auc(shown, labels, "multi-label")) == pytest.approx(reference, abs=1e-6)
    reference = np.mean([accuracy_score(labels[:, k], shown[:, k] > 0.5) for k in range(6)])
    assert float(task_named("multi-label").hits(shown, labels)) == pytest.approx(reference, abs=1e-6)


def test_binary_area_is_that_of_class_1_where_probabilities_are_rounded_to_1():
    generator = torch.Generator().manual_seed(0)
    shown = torch.softmax(torch.randn((300, 2), generator=generator) * 15, dim=1)
    labels = (torch.rand(300, generator=generator) < shown[:, 1] * 0.5 + 0.25).long()
    assert int((shown[:, 0] == 1).sum()) > int((shown[:, 1] == 1).sum())  # class 0 ties where class 1 does not
    one, other = (roc_auc_score(labels == k, shown[:, k]) for k in (1, 0))
    assert abs(one - other) > 1e-4
    assert float(auc(shown, labels, "binary")) == pytest.approx(one, abs=1e-6)


@pytest.mark.parametrize("shift", [0.0, 2e-7, 90.0])
def test_only_the_order_of_the_scores_counts(shift):
    generator = torch.Generator().manual_seed(1)
    shown = torch.rand((400, 3), generator=generator) ** 20 + shift  # one above 1 made the others of no account
    labels = torch.randint(0, 3, (400,), generator=generator)
    shown[0, 0] = shown.max() + 2e-7 if shift else shown[0, 0]
    reference = np.mean([roc_auc_score(labels == k, shown[:, k]) for k in range(3)])
    assert float(auc(shown, labels, "multi-class")) == pytest.approx(reference, abs=1e-6)


def test_absent_class_is_left_out():
    shown = torch.softmax(torch.randn(50, 4), dim=1)
    labels = torch.randint(0, 3, (50,))
    reference = np.mean([roc_auc_score(labels == k, shown[:, k]) for k in range(3)])
    assert float(auc(shown, labels, "multi-class")) == pytest.approx(reference, abs=1e-6)


def test_one_class_only_has_no_auc():
    assert math.isnan(auc(torch.rand(5, 2), torch.zeros(5, dtype=torch.long), "binary"))


def test_training_accuracy_under_mixup_is_the_share_of_the_prediction():
    logits = torch.tensor([[2.0, 0.0], [0.0, 2.0]])
    assert float(task_named("binary").hits(logits, torch.tensor([0, 0]))) == 0.5
    assert float(task_named("binary").hits(logits, torch.tensor([[0.7, 0.3], [0.9, 0.1]]))) == pytest.approx(0.4)
    assert float(task_named("multi-label").hits(logits, torch.tensor([[1, 0], [1, 1]]))) == pytest.approx(0.75)


@pytest.mark.parametrize(("total", "ranks"), [(7, 2), (7, 3), (3, 3), (5, 1)])
def test_ranks_are_merged_in_the_order_of_the_split(total, ranks):
    rows = torch.arange(total * 2).view(total, 2)
    assert torch.equal(interleave([rows[rank::ranks] for rank in range(ranks)]), rows)


@pytest.mark.parametrize("ties", [False, True])
def test_thresholds_maximise_f1(ties):
    """Against scikit-learn's F1 at every threshold that makes a difference."""
    generator = torch.Generator().manual_seed(0)
    shown = torch.rand((80, 5), generator=generator)
    shown = (shown * 6).round() / 6 if ties else shown
    labels = (torch.rand((80, 5), generator=generator) < 0.3 * shown + 0.05).to(torch.uint8)
    labels[:, 4] = 0
    thresholds = task_named("multi-label").thresholds(shown, labels)
    assert float(thresholds[4]) == 0.5
    for k in range(4):
        truth, scores = labels[:, k].numpy(), shown[:, k].numpy()
        reachable = [f1_score(truth, scores > t, zero_division=0) for t in [-1.0, *np.unique(scores)]]
        assert f1_score(truth, scores > float(thresholds[k])) == pytest.approx(max(reachable))
