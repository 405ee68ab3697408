"""Losses equal a float64 loop, for hard and mixed targets, with smoothing, focusing and class weights."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from sklearn.utils.class_weight import compute_class_weight

from visionforge.config.schema import Loss
from visionforge.config.schema.tasks import task_named
from visionforge.errors import SettingsError
from visionforge.training.criterion import (
    Criterion,
    CumulativeLogits,
    class_weights,
    cumulative_probabilities,
)

N, K = 9, 4
WEIGHTS = torch.tensor([0.5, 1.0, 2.0, 7.0], dtype=torch.float64)


def classes_loop(logits, targets, smoothing, gamma, weights):
    """Cross-entropy and focal loss over classes, a number at a time."""
    total = count = 0.0
    for row, target in zip(logits.tolist(), targets.tolist(), strict=True):
        log_sum = math.log(sum(math.exp(v) for v in row))
        for value, share, weight in zip(row, target, weights, strict=True):
            log_p = value - log_sum
            count += weight * share
            total -= weight * (share * (1 - smoothing) + smoothing / K) * (1 - math.exp(log_p)) ** gamma * log_p
    return total / count


def labels_loop(logits, targets, smoothing, gamma, weights):
    """Binary cross-entropy and sigmoid focal loss, a label at a time."""
    total = 0.0
    for row, target in zip(logits.tolist(), targets.tolist(), strict=True):
        for value, share, weight in zip(row, target, weights, strict=True):
            share = share * (1 - smoothing) + smoothing / 2
            p = 1 / (1 + math.exp(-value))
            total -= weight * share * (1 - p) ** gamma * math.log(p) + (1 - share) * p**gamma * math.log(1 - p)
    return total / (N * K)


def ordinal_loop(logits, targets, smoothing, weights):
    """Binary cross-entropies of "the grade is above k", summed over k."""
    total = count = 0.0
    for row, target in zip(logits.tolist(), targets.tolist(), strict=True):
        for grade, (share, weight) in enumerate(zip(target, weights, strict=True)):
            count += weight * share
            for k, value in enumerate(row):
                p = 1 / (1 + math.exp(-value))
                smooth = weight * (share * (1 - smoothing) + smoothing / K)
                total -= smooth * math.log(p if grade > k else 1 - p)
    return total / count


def make(task, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn((N, K), generator=generator, dtype=torch.float64)
    labels = torch.randint(0, K, (N,), generator=generator)
    if task == "multi-label":
        labels = torch.randint(0, 2, (N, K), generator=generator, dtype=torch.uint8)
    soft = task_named(task).targets(labels, K).double()
    return logits, labels, soft, 0.3 * soft + 0.7 * soft.roll(1, 0)


@pytest.mark.parametrize("weights", [None, WEIGHTS])
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.3])
@pytest.mark.parametrize(("name", "gamma"), [("cross_entropy", 0.0), ("focal", 2.0), ("focal", 0.5)])
@pytest.mark.parametrize("task", ["binary", "multi-class", "ordinal"])
def test_classes(task, name, gamma, smoothing, weights):
    logits, labels, soft, mixed = make(task)
    criterion = Criterion(name, task, K, smoothing, gamma, weights)
    plain = [1.0] * K if weights is None else weights.tolist()
    for targets, reference in ((labels, soft), (soft, soft), (mixed, mixed)):
        expected = classes_loop(logits, reference, smoothing, gamma, plain)
        assert criterion(logits, targets).item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("weights", [None, WEIGHTS])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize(("name", "gamma"), [("bce", 0.0), ("focal", 2.0), ("focal", 0.5)])
def test_labels(name, gamma, smoothing, weights):
    logits, labels, _, mixed = make("multi-label")
    criterion = Criterion(name, "multi-label", K, smoothing, gamma, weights)
    plain = [1.0] * K if weights is None else weights.tolist()
    for targets in (labels, mixed):
        expected = labels_loop(logits, targets, smoothing, gamma, plain)
        assert criterion(logits, targets).item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("weights", [None, WEIGHTS])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_ordinal(smoothing, weights):
    logits, labels, soft, mixed = make("ordinal")
    logits = logits[:, 1:]
    criterion = Criterion("ordinal", "ordinal", K, smoothing, weights=weights)
    plain = [1.0] * K if weights is None else weights.tolist()
    for targets, reference in ((labels, soft), (mixed, mixed)):
        expected = ordinal_loop(logits, reference, smoothing, plain)
        assert criterion(logits, targets).item() == pytest.approx(expected, rel=1e-12)


def test_hard_targets_equal_torchs_weighted_and_smoothed_cross_entropy():
    logits, labels, _, _ = make("multi-class")
    for smoothing in (0.0, 0.1):
        ours = Criterion("cross_entropy", "multi-class", K, smoothing, weights=WEIGHTS)(logits, labels)
        torch.testing.assert_close(ours, F.cross_entropy(logits, labels, WEIGHTS, label_smoothing=smoothing))
    logits, labels, _, _ = make("multi-label")
    ours = Criterion("bce", "multi-label", K, weights=WEIGHTS)(logits, labels)
    theirs = F.binary_cross_entropy_with_logits(logits, labels.double(), pos_weight=WEIGHTS)
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("gamma", [0.0, 0.3, 1.0, 2.0])
@pytest.mark.parametrize("task", ["multi-class", "multi-label"])
def test_focal_gradient_is_finite_for_certain_predictions(task, gamma):
    logits = torch.tensor([[200.0, -200.0], [-200.0, 200.0]], requires_grad=True)
    targets = torch.tensor([0, 0]) if task == "multi-class" else torch.tensor([[1, 0], [1, 0]])
    loss = Criterion("focal", task, 2, 0.0, gamma)(logits, targets)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(logits.grad).all()


def test_sixteen_bit_logits_are_summed_in_float32():
    logits, labels, _, _ = make("multi-class")
    loss = Criterion("cross_entropy", "multi-class", K, 0.1)(logits.bfloat16(), labels)
    assert loss.dtype == torch.float32


def test_plain_loss_compares_between_runs():
    logits, labels, soft, _ = make("multi-class")
    plain = Criterion("focal", "multi-class", K, 0.1, 2.0, WEIGHTS).plain()
    assert plain(logits, labels).item() == pytest.approx(classes_loop(logits, soft, 0, 0, [1.0] * K))


def test_auto_follows_the_task():
    assert [Loss().of_task(task).name for task in ("binary", "multi-class", "ordinal", "multi-label")] == [
        "cross_entropy",
        "cross_entropy",
        "cross_entropy",
        "bce",
    ]
    assert Loss(name="focal").of_task("multi-label").name == "focal"


def test_probabilities():
    logits = torch.tensor([[0.0, math.log(3.0)]])
    torch.testing.assert_close(task_named("multi-class").probabilities(logits), torch.tensor([[0.25, 0.75]]))
    torch.testing.assert_close(task_named("multi-label").probabilities(logits), torch.tensor([[0.5, 0.75]]))
    falling = torch.tensor([[math.log(3.0), 0.0]])  # above grade 0 with 3/4, above grade 1 with 1/2
    torch.testing.assert_close(cumulative_probabilities(falling), torch.tensor([[0.25, 0.25, 0.5]]))


def test_cumulative_logits_fall_whatever_is_learned():
    layer = CumulativeLogits(5)
    torch.testing.assert_close(cumulative_probabilities(layer(torch.zeros(1, 1))), torch.full((1, 5), 0.2))
    with torch.no_grad():
        layer.gaps.copy_(torch.tensor([-50.0, 3.0, -1.0]))
    logits = layer(torch.randn(20, 1))
    assert logits.shape == (20, 4)
    assert (logits[:, :-1] >= logits[:, 1:]).all()
    shown = cumulative_probabilities(logits)
    assert (shown >= 0).all()
    torch.testing.assert_close(shown.sum(dim=1), torch.ones(20))


COUNTS = torch.tensor([50, 30, 15, 5])
NAMES = ("a", "b", "c", "d")


def weights_for(choice, task="multi-class", **changes):
    return class_weights(Loss(class_weights=choice, **changes), COUNTS, NAMES, task, 100)


def test_balanced_weights_are_those_of_scikit_learn():
    labels = np.repeat(np.arange(4), COUNTS.numpy())
    reference = compute_class_weight("balanced", classes=np.arange(4), y=labels)
    np.testing.assert_allclose(weights_for("balanced").numpy(), reference)
    assert weights_for("none") is None


def test_effective_number_of_images():
    beta = 0.99
    raw = [(1 - beta) / (1 - beta**n) for n in COUNTS.tolist()]
    reference = [value * 4 / sum(raw) for value in raw]
    np.testing.assert_allclose(weights_for("effective-number", effective_beta=beta).numpy(), reference)
    near = weights_for("effective-number", effective_beta=1 - 1e-9)
    balanced = weights_for("balanced")
    np.testing.assert_allclose((near / near.sum()).numpy(), (balanced / balanced.sum()).numpy(), rtol=1e-5)


def test_named_weights():
    assert weights_for({"c": 3.0}).tolist() == [1.0, 1.0, 3.0, 1.0]
    with pytest.raises(SettingsError, match="no class 'e'; classes: a, b, c, d"):
        weights_for({"e": 3.0})


def test_positive_weights_of_labels():
    np.testing.assert_allclose(weights_for("balanced", "multi-label").numpy(), [1.0, 70 / 30, 85 / 15, 95 / 5])
    beta = 0.9
    reference = [(1 - beta ** (100 - n)) / (1 - beta**n) for n in COUNTS.tolist()]
    found = weights_for("effective-number", "multi-label", effective_beta=beta)
    np.testing.assert_allclose(found.numpy(), reference)


def test_class_without_images_weighs_one():
    for choice in ("balanced", "effective-number"):
        for task in ("multi-class", "multi-label"):
            found = class_weights(Loss(class_weights=choice), torch.tensor([60, 40, 0]), ("a", "b", "c"), task, 100)
            assert found[2] == 1.0
            assert torch.isfinite(found).all()
