"""Losses equal a float64 loop, for hard and mixed targets, with and without smoothing."""

import math

import pytest
import torch

from visionforge.training.losses import probabilities, soft_targets, task_loss


def cross_entropy_loop(logits, targets, smoothing):
    total = 0.0
    for row, target in zip(logits.double().tolist(), targets.double().tolist(), strict=True):
        log_sum = math.log(sum(math.exp(v) for v in row))
        for value, share in zip(row, target, strict=True):
            total -= (share * (1 - smoothing) + smoothing / len(row)) * (value - log_sum)
    return total / len(logits)


def binary_loop(logits, targets, smoothing):
    total = 0.0
    for row, target in zip(logits.double().tolist(), targets.double().tolist(), strict=True):
        for value, share in zip(row, target, strict=True):
            share = share * (1 - smoothing) + smoothing / 2
            p = 1 / (1 + math.exp(-value))
            total -= share * math.log(p) + (1 - share) * math.log(1 - p)
    return total / logits.numel()


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.3])
@pytest.mark.parametrize("task", ["binary", "multi-class", "ordinal"])
def test_cross_entropy(task, smoothing):
    logits = torch.randn(9, 4, dtype=torch.float64)
    labels = torch.randint(0, 4, (9,))
    soft = soft_targets(labels, 4, task).double()
    reference = cross_entropy_loop(logits, soft, smoothing)
    assert task_loss(logits, labels, task, smoothing).item() == pytest.approx(reference, rel=1e-12)
    mixed = 0.3 * soft + 0.7 * soft.roll(1, 0)
    assert task_loss(logits, mixed, task, smoothing).item() == pytest.approx(
        cross_entropy_loop(logits, mixed, smoothing), rel=1e-12
    )


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_binary_cross_entropy_per_label(smoothing):
    logits = torch.randn(9, 4, dtype=torch.float64)
    labels = torch.randint(0, 2, (9, 4), dtype=torch.uint8)
    reference = binary_loop(logits, labels, smoothing)
    assert task_loss(logits, labels, "multi-label", smoothing).item() == pytest.approx(reference, rel=1e-12)


def test_probabilities():
    logits = torch.tensor([[0.0, math.log(3.0)]])
    torch.testing.assert_close(probabilities(logits, "binary"), torch.tensor([[0.25, 0.75]]))
    torch.testing.assert_close(probabilities(logits, "multi-label"), torch.tensor([[0.5, 0.75]]))
