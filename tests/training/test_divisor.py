"""Losses of parts of a batch, by what they are divided by, make the loss of the whole batch."""

import pytest
import torch

from tests.training.helpers import data
from visionforge.config.schema import Loss
from visionforge.training.criterion import Criterion
from visionforge.training.distillation import Distilling
from visionforge.training.mask_criterion import MaskCriterion

WEIGHTS = torch.tensor([0.2, 3.0, 1.0])


def parts_and_whole(criterion, logits, targets):
    halves = [(logits[:3], targets[:3]), (logits[3:], targets[3:])]
    divisors = [criterion.divisor(t) for _, t in halves]
    losses = [criterion(*half) for half in halves]
    return sum(loss * d for loss, d in zip(losses, divisors, strict=True)) / sum(divisors), criterion(logits, targets)


@pytest.mark.parametrize("name", ["cross_entropy", "focal", "ordinal"])
@pytest.mark.parametrize("mixed", [False, True])
def test_of_classes_with_weights(name, mixed):
    torch.manual_seed(0)
    task = "ordinal" if name == "ordinal" else "multi-class"
    criterion = Criterion.of(Loss(name=name, label_smoothing=0.1), task, 3, WEIGHTS)
    logits = torch.randn(8, 2 if criterion.cumulative else 3)
    targets = torch.randn(8, 3).softmax(dim=1) if mixed else torch.randint(0, 3, (8,))
    torch.testing.assert_close(*parts_and_whole(criterion, logits, targets))
    assert Criterion.of(Loss(name=name), task, 3).divisor(targets) is None  # it is the number of images


@pytest.mark.parametrize("weights", [None, WEIGHTS])
@pytest.mark.parametrize("soft", [False, True])
def test_of_pixels_that_count(weights, soft):
    torch.manual_seed(0)
    criterion = MaskCriterion.of(Loss(name="cross_entropy"), "segmentation", 3, weights)
    targets = torch.randint(0, 3, (8, 5, 5))
    targets[:3, :4] = 255
    if soft:
        targets = torch.stack([targets == k for k in range(3)], dim=1).float()
    torch.testing.assert_close(*parts_and_whole(criterion, torch.randn(8, 3, 5, 5), targets))


def test_of_a_teachers_targets():
    torch.manual_seed(0)
    spec, targets = data().spec, torch.randint(0, 3, (8,))
    inner = Criterion.of(Loss(name="cross_entropy"), "multi-class", 4, torch.tensor([0.5, 2.0, 1.0, 1.0]))
    logits, said = torch.randn(8, 4), torch.randn(8, 4).softmax(dim=1)
    whole = Distilling(inner, said, 0.3, spec)
    halves = [
        (Distilling(inner, said[part], 0.3, spec), logits[part], targets[part]) for part in (slice(3), slice(3, 8))
    ]
    divisors = [criterion.divisor(t) for criterion, _, t in halves]
    total = sum(criterion(x, t) * d for (criterion, x, t), d in zip(halves, divisors, strict=True))
    torch.testing.assert_close(total / sum(divisors), whole(logits, targets))


def test_what_is_no_such_mean_has_none():
    several = Criterion.of(Loss(name="focal"), "multi-label", 3, WEIGHTS)
    assert several.divisor(torch.ones(4, 3)) is None
    overlap = MaskCriterion.of(Loss(name="dice"), "segmentation", 3, None)
    assert overlap.divisor(torch.zeros(4, 5, 5, dtype=torch.int64)) is None
