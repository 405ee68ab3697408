"""Gradient boosting by histograms, whose trees become arrays of nodes."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

import numpy as np
import torch
from sklearn.ensemble import HistGradientBoostingClassifier
from torch import Tensor, nn

from visionforge.config.schema.probing import ProbeSettings
from visionforge.models.feature_heads import TreeHead
from visionforge.training.probes.features import Array, Labelled
from visionforge.training.probes.linear import ABSENT, constant_logit

DEEPEST = 8  # levels of a tree, all of which a prediction walks down
LEAST_IN_LEAF = 5  # images; scikit-learn's 20 leave sets of a few hundred images without a split


def boosting_candidates(settings: ProbeSettings) -> list[dict[str, Any]]:
    """Return the values to try: small trees before large ones, few before many."""
    return [
        {"leaves": leaves, "learning_rate": rate, "iterations": count}
        for leaves in sorted(settings.leaves)
        for rate in sorted(settings.learning_rate)
        for count in sorted(settings.iterations)
    ]


def fit_boosting(data: Labelled, candidates: Sequence[Mapping[str, Any]]) -> Iterator[nn.Module]:
    """Yield a head for each candidate; those that differ in the number of trees only are parts of one fit."""
    for (leaves, rate), group in groupby(candidates, key=lambda values: (values["leaves"], values["learning_rate"])):
        counts = [int(values["iterations"]) for values in group]
        fitted = [_boosted(data, labels, leaves, rate, max(counts)) for labels in _targets(data)]
        for count in counts:
            yield head_of(fitted, data, count)


def _targets(data: Labelled) -> list[Array]:
    """Return what is fitted: the classes, or each label that is there in some images and not in others."""
    if not data.several:
        return [data.labels]
    return [labels for labels in data.labels.T if 0 < labels.sum() < len(labels)]


def _boosted(
    data: Labelled, labels: Array, leaves: int, rate: float, iterations: int
) -> HistGradientBoostingClassifier:
    return HistGradientBoostingClassifier(
        learning_rate=rate,
        max_iter=iterations,
        max_leaf_nodes=leaves,
        max_depth=DEEPEST,
        min_samples_leaf=LEAST_IN_LEAF,
        early_stopping=False,
        class_weight=data.class_weight,
        random_state=data.seed,
    ).fit(data.values, labels)


def head_of(fitted: Sequence[HistGradientBoostingClassifier], data: Labelled, iterations: int) -> TreeHead:
    """Return the first trees of what was fitted as a head."""
    trees, scores, start = [], [], []
    for model in fitted:
        start.append(np.ravel(model._baseline_prediction))
        scores.append(len(start[-1]))
    for place in range(iterations):
        trees += [tree.nodes for model in fitted for tree in model._predictors[place]]
    spread, baseline = _spread(fitted, data, np.concatenate(start))
    depth = max(int(nodes["depth"].max()) for nodes in trees)
    tensors = {**_nodes(trees), "spread": _single(spread), "baseline": _single(baseline)}
    return TreeHead(tensors, data.values.shape[1], depth)


def _spread(fitted: Sequence[HistGradientBoostingClassifier], data: Labelled, start: Array) -> tuple[Array, Array]:
    """Return (M, K) what scores are worth for the classes, and (K,) the logits without a tree."""
    if data.several:
        learnt = [0 < labels.sum() < len(labels) for labels in data.labels.T]
        spread = np.eye(data.classes)[learnt]
        constant = [
            0.0 if known else constant_logit(labels) for known, labels in zip(learnt, data.labels.T, strict=True)
        ]
        return spread, start @ spread + constant
    present = fitted[0].classes_.astype(np.int64)
    spread = np.zeros((len(start), data.classes))
    if len(start) == 1:
        spread[0, present] = (-0.5, 0.5)
    else:
        spread[np.arange(len(start)), present] = 1.0
    absent = np.setdiff1d(np.arange(data.classes), present)
    baseline = start @ spread
    baseline[absent] = ABSENT
    return spread, baseline


def _nodes(trees: Sequence[Array]) -> dict[str, Tensor]:
    """Return (T, S) of each: feature, threshold, row of the left and of the right child, and value."""
    size = max(len(nodes) for nodes in trees)
    rows = np.arange(len(trees) * size).reshape(len(trees), size)
    feature, left, right = np.zeros((len(trees), size), np.int64), rows.copy(), rows.copy()
    threshold, value = np.zeros((len(trees), size), np.float32), np.zeros((len(trees), size))
    for tree, nodes in enumerate(trees):
        split = np.flatnonzero(nodes["is_leaf"] == 0)
        feature[tree, split] = nodes["feature_idx"][split]
        threshold[tree, split] = _rounded_down(nodes["num_threshold"][split])
        left[tree, split] = nodes["left"][split] + tree * size
        right[tree, split] = nodes["right"][split] + tree * size
        value[tree, : len(nodes)] = nodes["value"]
    found = {"feature": feature, "threshold": threshold, "left": left, "right": right}
    return {**{name: torch.from_numpy(each) for name, each in found.items()}, "value": _single(value)}


def _rounded_down(values: Array) -> Array:
    """Return the largest float32 that are not above: of features in float32, as many are below or equal."""
    found = np.clip(values, np.finfo(np.float32).min, np.finfo(np.float32).max).astype(np.float32)
    return np.where(found > values, np.nextafter(found, np.float32(-np.inf)), found)


def _single(values: Array) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))
