"""Logistic regression and linear discriminants: one linear layer, in which the standardisation is folded."""

import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from torch import nn

from visionforge.config.schema.probing import ProbeSettings
from visionforge.training.probes.features import Array, Labelled, Scale

log = logging.getLogger(__name__)

MOST_STEPS = 5000
ABSENT = -20.0  # logit of a class without an image beside standardised others: a probability below 1e-8
Fitted = tuple[Array, Array]  # coefficients (K, D) and intercepts (K,) in standardised features, as logits
Fit = Callable[[Array, Array, Labelled, Any], tuple[Array, Array]]


def logistic_candidates(settings: ProbeSettings) -> list[dict[str, Any]]:
    """Return the values to try, from the most regularised on."""
    return [{"c": c} for c in sorted(settings.c)]


def discriminant_candidates(settings: ProbeSettings) -> list[dict[str, Any]]:
    """Return the values to try, from the most regularised on; that of Ledoit and Wolf comes last."""
    shares = sorted((value for value in settings.shrinkage if not isinstance(value, str)), reverse=True)
    return [{"shrinkage": value} for value in (*shares, *(v for v in settings.shrinkage if isinstance(v, str)))]


def fit_logistic(data: Labelled, candidates: Sequence[Mapping[str, Any]]) -> Iterator[nn.Module]:
    """Yield a linear layer for each candidate."""
    return _layers(data, candidates, _logistic)


def fit_discriminants(data: Labelled, candidates: Sequence[Mapping[str, Any]]) -> Iterator[nn.Module]:
    """Yield a linear layer for each candidate."""
    return _layers(data, candidates, _discriminants)


def _layers(data: Labelled, candidates: Sequence[Mapping[str, Any]], fit: Fit) -> Iterator[nn.Module]:
    scale = Scale.of(data.values)
    standard = scale(data.values)
    for values in candidates:
        (value,) = values.values()
        yield folded(
            _of_labels(standard, data, fit, value) if data.several else _of_classes(standard, data, fit, value), scale
        )


def folded(fitted: Fitted, scale: Scale) -> nn.Linear:
    """Return the layer that gives of features what was fitted to standardised ones: W/σ and b - W·μ/σ.

    The intercepts are those of the rounded weights, whose error then grows with x - μ and not with x.
    """
    weights = (fitted[0] * scale.factor).astype(np.float32)
    bias = fitted[1] - weights.astype(np.float64) @ scale.mean
    layer = nn.Linear(weights.shape[1], len(weights))
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(weights))
        layer.bias.copy_(torch.from_numpy(bias))
    return layer


def _of_classes(standard: Array, data: Labelled, fit: Fit, value: Any) -> Fitted:
    """Return logits of classes that exclude each other; two are the halves of one score."""
    present = np.unique(data.labels)
    weights, bias = np.zeros((data.classes, standard.shape[1])), np.full(data.classes, ABSENT)
    coefficients, intercepts = fit(standard, data.labels, data, value)
    if len(present) == 2 and len(coefficients) == 1:
        coefficients = np.concatenate([-coefficients, coefficients]) / 2
        intercepts = np.concatenate([-intercepts, intercepts]) / 2
    weights[present], bias[present] = coefficients, intercepts
    return weights, bias


def _of_labels(standard: Array, data: Labelled, fit: Fit, value: Any) -> Fitted:
    """Return logits of labels, each against the rest; of one that is always or never there, its rate alone."""
    weights, bias = np.zeros((data.classes, standard.shape[1])), np.zeros(data.classes)
    for k, labels in enumerate(data.labels.T):
        if 0 < labels.sum() < len(labels):
            coefficients, intercepts = fit(standard, labels, data, value)
            weights[k], bias[k] = coefficients[0], intercepts[0]
        else:
            bias[k] = constant_logit(labels)
    return weights, bias


def constant_logit(labels: Array) -> float:
    """Return the log-odds of a label that all images have, or none, with half a case added to both sides."""
    there = float(labels.sum())
    return float(np.log((there + 0.5) / (len(labels) - there + 0.5)))


def _logistic(standard: Array, labels: Array, data: Labelled, c: float) -> tuple[Array, Array]:
    model = LogisticRegression(C=c, class_weight=data.class_weight, max_iter=MOST_STEPS, tol=1e-5)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        model.fit(standard, labels)
    if any(issubclass(each.category, ConvergenceWarning) for each in told):
        log.warning("probe: C %g: the logistic regression has not converged in %s steps", c, f"{MOST_STEPS:,}")
    return model.coef_, model.intercept_


def _discriminants(standard: Array, labels: Array, data: Labelled, shrinkage: float | str) -> tuple[Array, Array]:
    present = len(np.unique(labels))
    priors = np.full(present, 1 / present) if data.balanced else None
    model = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=shrinkage, priors=priors)
    model.fit(standard, labels)
    return model.coef_, model.intercept_
