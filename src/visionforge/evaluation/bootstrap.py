"""Intervals and differences by the bootstrap: stratified, seeded, and all resamples of a part at once.

Efron and Tibshirani (1993). The cases of each class are drawn anew with replacement, as many as there are, so that
every resample has the class frequencies of the split and no class is lost. Intervals are bias-corrected percentiles
(Efron, 1981): without the correction those of average precision are too high, because repeated cases rank together.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr, ndtri

from visionforge.config.schema.metrics import metrics
from visionforge.evaluation.scores import Scores
from visionforge.scoring.rates import Floats

RESAMPLES = 2000
CONFIDENCE = 0.95
SEED = 0
_SAME = 1e-12  # sums of the same values in another order differ by less
_CHUNK_VALUES = 100_000  # weights of one part; they stay in the processor's cache
Array = npt.NDArray[Any]
Interval = tuple[float, float]


class Scorer(Protocol):
    """Metrics of N cases under any weighting: of predictions (`visionforge.evaluation.scores.Scorer`), masks, boxes."""

    @property
    def labels(self) -> Array:
        """Return what the strata of the cases follow from: (N,) integers, or (N, K) 0/1."""

    def __call__(self, weights: Floats) -> Scores:
        """Return the metrics of B weightings (N, B)."""


def strata_of(labels: Array) -> npt.NDArray[np.int64]:
    """Return (N,) the stratum of each case: its class, or for labels (N, K) its rarest label.

    So the cases of a rare label stay together, and no resample is without them.
    """
    if labels.ndim == 1:
        return labels.astype(np.int64)
    rarity = np.argsort(np.argsort(labels.sum(axis=0), kind="stable"), kind="stable")
    ranks = np.where(labels > 0, rarity, labels.shape[1])
    return np.asarray(ranks.min(axis=1), dtype=np.int64)


def resample_weights(strata: npt.NDArray[np.int64], count: int, seed: int) -> Iterator[Floats]:
    """Yield parts (N, B) of the weights of `count` resamples: how often each case was drawn.

    Args:
        strata: (N,) groups within which cases are exchanged.
        count: Number of resamples.
        seed: What the draws are a function of; how they are cut into parts does not matter.
    """
    total = len(strata)
    order = np.argsort(strata, kind="stable")
    _, first, sizes = np.unique(strata[order], return_index=True, return_counts=True)
    start, size = np.repeat(first, sizes), np.repeat(sizes, sizes)
    generator = np.random.default_rng(seed)
    step = max(1, _CHUNK_VALUES // total)
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
    """

    overall: Mapping[str, float | None]
    per_class: Mapping[str, list[float | None]]
    intervals: Mapping[str, Interval | None]
    class_intervals: Mapping[str, list[Interval | None]]


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
    found = []
    for scorer, drawn in zip(scorers, resampled, strict=True):
        point = scorer(np.ones((len(scorer.labels), 1)))
        overall = {name: _plain(values[0]) for name, values in point.overall.items()}
        per_class = {name: [_plain(value) for value in values[:, 0]] for name, values in point.per_class.items()}
        intervals = {
            name: _interval(overall[name], values, confidence)
            for name, values in drawn.overall.items()
            if _has_interval(name)
        }
        of_classes = {
            name: [_interval(value, row, confidence) for value, row in zip(per_class[name], values, strict=True)]
            for name, values in drawn.per_class.items()
        }
        found.append(Estimate(overall, per_class, intervals, of_classes))
    return found


@dataclass(frozen=True)
class Difference:
    """How much higher a metric of one model is than that of another, on the same cases.

    Attributes:
        value: The difference.
        interval: (low, high) of its resamples; None for a metric without intervals, and where all resamples agree.
        p: Two-sided bootstrap p-value: twice the share of the resamples on the other side of 0, at most 1.
    """

    value: float
    interval: Interval | None
    p: float | None


def paired_differences(
    one: Sequence[Scorer],
    other: Sequence[Scorer],
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
    seed: int = SEED,
) -> dict[str, Difference]:
    """Return by how much `one` is above `other`; both see the same resamples (paired bootstrap).

    Args:
        one: Predictions of a model, or of its repetitions with other seeds, whose metrics are averaged.
        other: Those of the other.
        resamples: Number of resamples.
        confidence: Share of the resamples that an interval holds.
        seed: Seed of the draws.

    Raises:
        ValueError: If the labels differ.
    """
    scorers = [*one, *other]
    labels = scorers[0].labels
    truths = [getattr(scorer, "truth", scorer.labels) for scorer in scorers]  # that of pictures makes no strata
    if not all(
        np.array_equal(scorer.labels, labels) and np.array_equal(truth, truths[0])
        for scorer, truth in zip(scorers, truths, strict=True)
    ):
        raise ValueError("the predictions are not of the same cases")
    point = [scorer(np.ones((len(labels), 1))).overall for scorer in scorers]
    drawn = [scores.overall for scores in _resampled(scorers, resamples, seed)]
    found = {}
    for name in point[0]:
        if not all(name in values for values in point):
            continue
        value = _gap(point, len(one), name)[0]
        if np.isnan(value):
            continue
        gaps = _gap(drawn, len(one), name)
        interval = p = None
        if _has_interval(name):
            interval = _interval(float(value), gaps, confidence)
            side = min((gaps <= 0).mean(), (gaps >= 0).mean())
            p = float(min(1.0, max(2 * side, 2 / (len(gaps) + 1))))  # no resample on the other side is not p = 0
        found[name] = Difference(float(value), interval, p)
    return found


def _gap(scores: Sequence[Mapping[str, Floats]], first: int, name: str) -> Floats:
    values = np.stack([each[name] for each in scores])
    gap: Floats = values[:first].mean(axis=0) - values[first:].mean(axis=0)
    return gap


def _resampled(scorers: Sequence[Scorer], resamples: int, seed: int) -> list[Scores]:
    """Return the metrics of all resamples, joined from their parts."""
    parts: list[list[Scores]] = []
    if len(scorers[0].labels):
        for weights in resample_weights(strata_of(scorers[0].labels), resamples, seed):
            parts.append([scorer(weights) for scorer in scorers])
    return [_joined([part[position] for part in parts]) for position in range(len(scorers))]


def _joined(parts: Sequence[Scores]) -> Scores:
    if not parts:
        return Scores({}, {})
    overall = {name: np.concatenate([part.overall[name] for part in parts]) for name in parts[0].overall}
    per_class = {name: np.concatenate([part.per_class[name] for part in parts], axis=1) for name in parts[0].per_class}
    return Scores(overall, per_class)


def _interval(value: float | None, resampled: Floats, confidence: float) -> Interval | None:
    """Return the bias-corrected percentile interval of a metric.

    None if the metric is undefined, or all resamples agree: then they say nothing of how far off it may be.
    """
    defined = resampled[~np.isnan(resampled)]
    if value is None or not len(defined) or np.ptp(defined) <= _SAME:
        return None
    below = (defined < value).mean() + (defined == value).mean() / 2
    edge = 1 / (len(defined) + 1)
    bias = ndtri(np.clip(below, edge, 1 - edge))
    ends = ndtr(2 * bias + ndtri([(1 - confidence) / 2, (1 + confidence) / 2]))
    low, high = np.quantile(defined, ends)
    return float(low), float(high)


def _has_interval(name: str) -> bool:
    metric = metrics().get(name)
    return metric is None or metric.interval  # `mar_` of another number of boxes is not registered


def _plain(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
