"""Metrics with intervals, and differences of models: resamples are stratified, seeded, and drawn a part at once.

Efron and Tibshirani (1993). The cases of each class are drawn anew with replacement, as many as there are, so that
every resample has the class frequencies of the split and no class is lost. Cases that belong together, such as the
images of a patient, are drawn as whole groups (Davison and Hinkley, 1997). What intervals follow from, beside
resamples, is in `visionforge.evaluation.intervals`.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from visionforge.config.schema.metrics import metrics
from visionforge.data.stratify import strata_of
from visionforge.evaluation.differences import Compared
from visionforge.evaluation.intervals import Interval, Limits
from visionforge.evaluation.scores import Counted, Scores
from visionforge.scoring.clusters import Clusters
from visionforge.scoring.rates import Floats

RESAMPLES = 2000
CONFIDENCE = 0.95
SEED = 0
_CHUNK_VALUES = 100_000  # weights of one part; they stay in the processor's cache
Array = npt.NDArray[Any]


class Scorer(Protocol):
    """Metrics of N cases under any weighting: of predictions (`visionforge.evaluation.scores.Scorer`), masks, boxes."""

    @property
    def labels(self) -> Array:
        """Return what the strata of the cases follow from: (N,) integers, or (N, K) 0/1."""

    @property
    def clusters(self) -> Clusters | None:
        """Return groups of cases that were drawn whole; None: they were drawn one by one."""

    @property
    def counted(self) -> Counted:
        """Return what the limits of metrics follow from that are not those of resampling."""

    def __call__(self, weights: Floats) -> Scores:
        """Return the metrics of B weightings (N, B)."""


def resample_weights(
    strata: npt.NDArray[np.int64], count: int, seed: int, clusters: Clusters | None = None
) -> Iterator[Floats]:
    """Yield parts (N, B) of the weights of `count` resamples: how often each case was drawn.

    Args:
        strata: (N,) groups within which cases are exchanged.
        count: Number of resamples.
        seed: What the draws are a function of; how they are cut into parts does not matter.
        clusters: Groups that are drawn whole, within the rarest stratum of their cases; None draws the cases.
    """
    if clusters is not None:
        for part in _weights(clusters.strata(strata), count, seed, len(strata)):
            yield part[clusters.codes]
        return
    yield from _weights(strata, count, seed, len(strata))


def _weights(strata: npt.NDArray[np.int64], count: int, seed: int, cases: int) -> Iterator[Floats]:
    """Yield parts of the weights of what is drawn, cases or groups, cut by the number of cases."""
    total = len(strata)
    order = np.argsort(strata, kind="stable")
    _, first, sizes = np.unique(strata[order], return_index=True, return_counts=True)
    start, size = np.repeat(first, sizes), np.repeat(sizes, sizes)
    generator = np.random.default_rng(seed)
    step = max(1, _CHUNK_VALUES // cases)
    for begin in range(0, count, step):
        rows = min(step, count - begin)
        draws = start + (generator.random((rows, total)) * size).astype(np.int64)
        cells = order[draws] * rows + np.arange(rows)[:, None]
        yield np.bincount(cells.ravel(), minlength=total * rows).reshape(total, rows).astype(np.float64)


@dataclass(frozen=True)
class Estimate:
    """Metrics of one set of predictions; None where a metric is undefined.

    Attributes:
        overall: Name → value.
        per_class: Name → one value per class.
        intervals: Name → (low, high) of `overall`; None also where all resamples agree.
        class_intervals: Name → one (low, high) per class.
        methods: Name → how an interval of `overall` was made, of `METHODS`.
    """

    overall: Mapping[str, float | None]
    per_class: Mapping[str, list[float | None]]
    intervals: Mapping[str, Interval | None]
    class_intervals: Mapping[str, list[Interval | None]]
    methods: Mapping[str, str]


def estimate(
    scorers: Sequence[Scorer], resamples: int = RESAMPLES, confidence: float = CONFIDENCE, seed: int = SEED
) -> list[Estimate]:
    """Return metrics and intervals of several predictions of the same cases, from the same resamples.

    Args:
        scorers: The predictions; all have the same labels.
        resamples: Number of resamples; 0 gives no intervals.
        confidence: Share of the resamples that an interval holds.
        seed: Seed of the draws.
    """
    resampled = _resampled(scorers, resamples, seed)
    return [_estimate(scorer, drawn, confidence) for scorer, drawn in zip(scorers, resampled, strict=True)]


def _estimate(scorer: Scorer, drawn: Scores, confidence: float) -> Estimate:
    point = scorer(np.ones((len(scorer.labels), 1)))
    overall = {name: _plain(values[0]) for name, values in point.overall.items()}
    per_class = {name: [_plain(value) for value in values[:, 0]] for name, values in point.per_class.items()}
    if not drawn.overall and not drawn.per_class:
        return Estimate(overall, per_class, {}, {}, {})
    limits = Limits(point, drawn, scorer.counted, confidence)
    wanted = [name for name in point.overall if _has_interval(name)]
    return Estimate(
        overall,
        per_class,
        {name: limits.overall(name) for name in wanted},
        {name: limits.of_classes(name) for name in point.per_class},
        {name: limits.method(name) for name in wanted},
    )


@dataclass(frozen=True)
class Difference:
    """How much higher a metric of one model is than that of another, on the same cases.

    Attributes:
        value: The difference.
        interval: (low, high); None for a metric without intervals, and where the cases are too few to tell.
        p: Two-sided p-value: of shares and losses by their standard errors, else twice the share of the resamples on
            the other side of 0, but not below what the standard error says.
        method: How the interval was made, of `visionforge.evaluation.intervals.METHODS`.
        detectable: The size of a true difference that such a split tells from 0, at p < 0.05, in 4 of 5 samples.
        p_worse: One-sided p-value of the hypothesis that the first is worse by a margin or more, if one was given.
    """

    value: float
    interval: Interval | None
    p: float | None
    method: str | None = None
    detectable: float | None = None
    p_worse: float | None = None


def paired_differences(
    one: Sequence[Scorer],
    other: Sequence[Scorer],
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
    seed: int = SEED,
    margins: Mapping[str, float] | None = None,
) -> dict[str, Difference]:
    """Return by how much `one` is above `other`; both see the same resamples, so that they are paired.

    Args:
        one: Predictions of a model, or of its repetitions with other seeds, whose metrics are averaged.
        other: Those of the other.
        resamples: Number of resamples.
        confidence: Share of the resamples that an interval holds.
        seed: Seed of the draws.
        margins: Name of a metric → by how much `one` may be worse.

    Raises:
        ValueError: If the labels differ.
    """
    scorers = [*one, *other]
    labels = scorers[0].labels
    truths = [getattr(scorer, "truth", scorer.labels) for scorer in scorers]  # that of pictures makes no strata
    groups: list[Any] = [[] if scorer.clusters is None else scorer.clusters.codes for scorer in scorers]
    if not all(np.array_equal(each, groups[0]) for each in groups):
        raise ValueError("the predictions are not of the same groups")
    if not all(
        np.array_equal(scorer.labels, labels) and np.array_equal(truth, truths[0])
        for scorer, truth in zip(scorers, truths, strict=True)
    ):
        raise ValueError("the predictions are not of the same cases")
    point = [scorer(np.ones((len(labels), 1))) for scorer in scorers]
    drawn = _resampled(scorers, resamples, seed)
    counted = [scorer.counted for scorer in scorers]
    compared = Compared(point, drawn, counted, len(one))
    found = {}
    for name in point[0].overall:
        if not all(name in each.overall for each in point):
            continue
        value = compared.value(name)
        if np.isnan(value):
            continue
        interval = p = method = detectable = worse = None
        if _has_interval(name):
            interval, p = compared.interval(name, confidence), compared.p(name)
            method, detectable = compared.method(name), compared.detectable(name)
            if margins and name in margins:
                worse = compared.p_worse(name, margins[name], metrics()[name].higher_is_better)
        found[name] = Difference(value, interval, p, method, detectable, worse)
    return found


def _resampled(scorers: Sequence[Scorer], resamples: int, seed: int) -> list[Scores]:
    """Return the metrics of all resamples, joined from their parts."""
    parts: list[list[Scores]] = []
    if len(scorers[0].labels):
        for weights in resample_weights(strata_of(scorers[0].labels), resamples, seed, scorers[0].clusters):
            parts.append([scorer(weights) for scorer in scorers])
    return [_joined([part[position] for part in parts]) for position in range(len(scorers))]


def _joined(parts: Sequence[Scores]) -> Scores:
    if not parts:
        return Scores({}, {})
    overall = {name: np.concatenate([part.overall[name] for part in parts]) for name in parts[0].overall}
    per_class = {name: np.concatenate([part.per_class[name] for part in parts], axis=1) for name in parts[0].per_class}
    return Scores(overall, per_class)


def _has_interval(name: str) -> bool:
    metric = metrics().get(name)
    return metric is None or metric.interval  # `mar_` of another number of boxes is not registered


def _plain(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
