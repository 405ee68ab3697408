"""Temperature scaling finds the temperature that was put in, changes no decision, and refuses to guess."""

import math
from dataclasses import asdict

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from scipy.special import expit, log_softmax, softmax

from visionforge.training.calibration import Calibration, fit_temperature, negative_log_likelihood, scale


def drawn(temperature: float, count: int = 20_000, classes: int = 4, labels: bool = False):
    """Draw logits and labels that follow the probabilities of logits / temperature."""
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 3, (count, classes))
    if labels:
        shown, truth = expit(logits), (rng.random((count, classes)) < expit(logits / temperature)).astype(np.int64)
    else:
        shown = softmax(logits, axis=1)
        true = softmax(logits / temperature, axis=1)
        truth = (true.cumsum(axis=1) < rng.random((count, 1))).sum(axis=1)
    return torch.tensor(shown, dtype=torch.float32), torch.tensor(truth), logits


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
@pytest.mark.parametrize("task", ["multi-class", "multi-label"])
def test_finds_the_temperature(temperature, task):
    shown, truth, _ = drawn(temperature, labels=task == "multi-label")
    assert fit_temperature(shown, truth, task) == pytest.approx(temperature, rel=0.03)


def test_is_the_optimum_of_another_optimiser():
    shown, truth, logits = drawn(1.7, count=500)

    def loss(log_t):
        return -log_softmax(logits / math.exp(log_t[0]), axis=1)[np.arange(500), truth.numpy()].mean()

    theirs = math.exp(minimize(loss, [0.0], method="Nelder-Mead", options={"xatol": 1e-8, "fatol": 1e-12}).x[0])
    assert fit_temperature(shown, truth, "multi-class") == pytest.approx(theirs, rel=1e-3)


@pytest.mark.parametrize("task", ["binary", "multi-class", "ordinal", "multi-label"])
def test_scaling_is_that_of_the_logits_and_changes_no_decision(task):
    shown, _, logits = drawn(1.0, count=200, classes=2 if task == "binary" else 4, labels=task == "multi-label")
    found = scale(shown, 1.8, task)
    expected = expit(logits / 1.8) if task == "multi-label" else softmax(logits / 1.8, axis=1)
    np.testing.assert_allclose(found, expected, atol=2e-6)
    assert found.dtype == torch.float32
    if task == "multi-label":
        assert torch.equal(found > 0.5, shown > 0.5)
    else:
        assert torch.equal(found.argmax(1), shown.argmax(1))
    assert scale(shown, None, task) is shown


def test_lowers_the_loss_of_the_split_it_was_fitted_on():
    shown, truth, _ = drawn(2.0, count=300)
    temperature = fit_temperature(shown, truth, "multi-class")
    assert negative_log_likelihood(scale(shown, temperature, "multi-class"), truth) < negative_log_likelihood(
        shown, truth
    )


@pytest.mark.parametrize("task", ["multi-class", "multi-label"])
def test_a_split_without_a_mistake_fixes_no_temperature(task):
    shown = torch.tensor([[0.9, 0.1], [0.2, 0.8], [0.7, 0.3]])
    truth = shown.round().long() if task == "multi-label" else shown.argmax(1)
    assert fit_temperature(shown, truth, task) is None
    assert fit_temperature(shown[:0], truth[:0], task) is None


def test_saturated_probabilities_stay_finite():
    shown = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.5, 0.5]])
    truth = torch.tensor([0, 1, 1, 0])
    temperature = fit_temperature(shown, truth, "binary")
    assert temperature is None or math.isfinite(temperature)
    assert torch.isfinite(scale(shown, 3.0, "binary")).all()
    assert torch.isfinite(scale(shown, 3.0, "multi-label")).all()


def test_comes_back_from_a_checkpoint():
    calibration = Calibration(10, 1.5, None, (0.25, 0.5))
    assert Calibration.from_dict(asdict(calibration)) == calibration


@pytest.mark.parametrize("share", [0.51, 0.7, 0.94, 0.999])
@pytest.mark.parametrize("images", [3, 6, 200])
def test_where_all_is_right_there_is_no_temperature(share, images):
    """The best one would be 0; where the loss is flat in front of it, none is found by chance."""
    given = torch.tensor([[share, 1 - share]] * images)
    assert fit_temperature(given, torch.zeros(images, dtype=torch.int64), "binary") is None
