"""The metrics that training watches equal scikit-learn's, and leave absent classes out."""

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, roc_auc_score

from visionforge.training.metrics import accuracy, auc


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
    assert float(accuracy(shown, labels, task)) == pytest.approx(accuracy_score(labels, shown.argmax(1)), abs=1e-6)


def test_multi_label_against_scikit_learn():
    generator = torch.Generator().manual_seed(0)
    shown = torch.rand((200, 6), generator=generator)
    labels = (torch.rand((200, 6), generator=generator) < 0.3).to(torch.uint8)
    reference = roc_auc_score(labels.numpy(), shown.numpy(), average="macro")
    assert float(auc(shown, labels, "multi-label")) == pytest.approx(reference, abs=1e-6)
    reference = np.mean([accuracy_score(labels[:, k], shown[:, k] > 0.5) for k in range(6)])
    assert float(accuracy(shown, labels, "multi-label")) == pytest.approx(reference, abs=1e-6)


def test_absent_class_is_left_out():
    shown = torch.softmax(torch.randn(50, 4), dim=1)
    labels = torch.randint(0, 3, (50,))
    reference = np.mean([roc_auc_score(labels == k, shown[:, k]) for k in range(3)])
    assert float(auc(shown, labels, "multi-class")) == pytest.approx(reference, abs=1e-6)


def test_one_class_only_has_no_auc():
    assert math.isnan(auc(torch.rand(5, 2), torch.zeros(5, dtype=torch.long), "binary"))
