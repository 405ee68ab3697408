"""Gradient boosting by histograms, whose trees become arrays of nodes."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

import numpy as np
import torch
from sklearn.ensemble import HistGradientBoostingClassifier
from torch import Tensor, nn

from visionforge.config.schema.probing import ProbeSettings
from visionforge.models.feature_heads import TreeHead, cells_of
from visionforge.training.probes.features import Array, Labelled, Scale, single
from visionforge.training.probes.linear import ABSENT, constant_logit

DEEPEST = 8  # levels of a tree, all of which a prediction walks down
CELLS = 64  # of a standard deviation, to which features are rounded; scikit-learn makes 255 bins of all of them
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
    scale = Scale.of(data.values)
    mean, factor = single(scale.mean), single(scale.factor * CELLS)
    cells = cells_of(single(data.values), mean, factor).numpy()
    for (leaves, rate), group in groupby(candidates, key=lambda values: (values["leaves"], values["learning_rate"])):
        counts = [int(values["iterations"]) for values in group]
        fitted = [_boosted(cells, labels, data, leaves, rate, max(counts)) for labels in _targets(data)]
        for count in counts:
            yield _head(fitted, data, count, mean, factor)


def _targets(data: Labelled) -> list[Array]:
    """Return what is fitted: the classes, or each label that is there in some images and not in others."""
    if not data.several:
        return [data.labels]
    return [labels for labels in data.labels.T if 0 < labels.sum() < len(labels)]


def _boosted(
    cells: Array, labels: Array, data: Labelled, leaves: int, rate: float, iterations: int
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
    ).fit(cells, labels)


def _head(
    fitted: Sequence[HistGradientBoostingClassifier], data: Labelled, iterations: int, mean: Tensor, scale: Tensor
) -> TreeHead:
    """Return the first trees of what was fitted."""
    start = np.concatenate([np.ravel(model._baseline_prediction) for model in fitted])
    trees = [tree.nodes for place in range(iterations) for model in fitted for tree in model._predictors[place]]
    spread, baseline = _spread(fitted, data, start)
    depth = max(int(nodes["depth"].max()) for nodes in trees)
    tensors = {**_nodes(trees), "spread": single(spread), "baseline": single(baseline), "mean": mean, "scale": scale}
    return TreeHead(tensors, len(mean), depth)


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
        threshold[tree, split] = nodes["num_threshold"][split]  # between whole numbers, so exact in float32
        left[tree, split] = nodes["left"][split] + tree * size
        right[tree, split] = nodes["right"][split] + tree * size
        value[tree, : len(nodes)] = nodes["value"]
    found = {"feature": feature, "threshold": threshold, "left": left, "right": right}
    return {**{name: torch.from_numpy(each) for name, each in found.items()}, "value": single(value)}
