"""How much a network loses on corrupted images of a split, with intervals from resamples of its images.

The error is 1 - accuracy, of labels averaged over them. The mean corruption error is the mean over corruptions of the
mean over their severities; the relative one is the same of the error on corrupted images minus that on clean ones.
Hendrycks and Dietterich (2019) divide both by those of AlexNet; here that is done where another network is given.

Every resample has the same images under all corruptions, and of both networks, so what they differ by is paired.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from visionforge.data.info import TaskSpec
from visionforge.data.stratify import strata_of
from visionforge.evaluation.bootstrap import SEED, estimate, resample_weights
from visionforge.evaluation.evaluation import of_probabilities
from visionforge.evaluation.hidden_classes import only_class
from visionforge.evaluation.intervals import percentiles
from visionforge.evaluation.scores import Scorer
from visionforge.inference.predictor import BatchPrediction
from visionforge.scoring.clusters import Clusters
from visionforge.scoring.decisions import predicted_labels
from visionforge.scoring.rates import Array, Floats

Value = dict[str, Any]  # `value` and `interval`


@dataclass(frozen=True)
class Condition:
    """A corruption at one severity.

    Attributes:
        corruption: Its name.
        group: What it is shown with.
        severity: 1 to 5.
        strength: What that means at the resolution of the images.
        averaged: It is part of the mean over corruptions.
    """

    corruption: str
    group: str
    severity: int
    strength: float
    averaged: bool = True


@dataclass(frozen=True)
class Observation:
    """What a network made of the images of a split, all under the same condition.

    Attributes:
        wrong: (N,) 1 where an image was classified wrong, of labels the share that was.
        metrics: Name → value, as `metrics.json` has it.
        tempered: The same of the metrics that a temperature changes, with that of the network.
        same_class: The class as which all images are predicted, though not all are of it; None elsewhere.
    """

    wrong: Floats
    metrics: Mapping[str, float | None]
    tempered: Mapping[str, float | None] = field(default_factory=dict)
    same_class: str | None = None


def observe(said: BatchPrediction, labels: Array, spec: TaskSpec, thresholds: Array | None) -> Observation:
    """Return how right a network was.

    Args:
        said: What it said of the images; that over the test-time views counts if they are on, as in a test.
        labels: (N,) classes, or (N, K) 0/1.
        spec: The task.
        thresholds: (K,) of labels, or None.
    """
    given = said.raw if said.raw_tta is None else said.raw_tta
    assert given is not None, "a network says what it is sure of before calibration"
    scorers = [Scorer(given, labels, spec.task, thresholds, spec.positive_index)]
    if not np.array_equal(said.calibrated, given):
        scorers.append(Scorer(said.calibrated, labels, spec.task, None, spec.positive_index, given))
    plain, *calibrated = (found.overall for found in estimate(scorers, resamples=0))
    tempered = {name: found[name] for found in calibrated for name in of_probabilities(spec.task)}
    predicted = predicted_labels(given, spec.task)
    same = only_class(spec.classes, predicted, labels)
    return Observation(_wrong(predicted, labels), plain, tempered, same)


def _wrong(predicted: Array, labels: Array) -> Floats:
    wrong = predicted != labels
    return np.asarray(wrong.mean(axis=1) if wrong.ndim == 2 else wrong, dtype=np.float64)


class Errors:
    """The errors of one network under all conditions, of the split and of resamples of its images.

    Args:
        clean: Without a corruption.
        corrupted: Under each condition.
        labels: Of the images.
        resamples: Number of resamples; 0 gives no intervals.
        clusters: Groups of images that are drawn whole; None draws the images.

    Attributes:
        point: (1 + C, 1) errors, the clean one first.
        drawn: (1 + C, B) those of resamples.
    """

    def __init__(
        self,
        clean: Observation,
        corrupted: Sequence[Observation],
        labels: Array,
        resamples: int,
        clusters: Clusters | None = None,
    ) -> None:
        wrong = np.stack([each.wrong for each in (clean, *corrupted)])
        self.point: Floats = wrong.mean(axis=1, keepdims=True)
        drawn = resample_weights(strata_of(labels), resamples, SEED, clusters)
        parts = [wrong @ weights / weights.sum(axis=0) for weights in drawn]
        self.drawn: Floats = np.concatenate(parts, axis=1) if parts else np.empty((len(wrong), 0))


def summary(
    conditions: Sequence[Condition],
    clean: Observation,
    corrupted: Sequence[Observation],
    labels: Array,
    resamples: int,
    confidence: float,
    baseline: tuple[Observation, Sequence[Observation]] | None = None,
    clusters: Clusters | None = None,
) -> dict[str, Any]:
    """Return what `robustness.json` holds of the numbers.

    Args:
        conditions: What was done to the images.
        clean: What the network made of them as they are.
        corrupted: And under each condition.
        labels: (N,), or (N, K) 0/1.
        resamples: Number of resamples; 0 gives no intervals.
        confidence: Share of them that an interval holds.
        baseline: The same of another network, which the mean corruption error is divided by.
        clusters: Groups of images that belong together, such as those of a patient; None: each stands for itself.
    """
    errors = Errors(clean, corrupted, labels, resamples, clusters)
    told = _Told(conditions, errors, confidence)
    names = list(dict.fromkeys(condition.corruption for condition in conditions))
    averaged = {condition.corruption for condition in conditions if condition.averaged}
    content: dict[str, Any] = {
        "groups": None if clusters is None else clusters.count,
        "clean": {
            "error": told.error([]),
            "metrics": dict(clean.metrics),
            "with_temperature": dict(clean.tempered),
            "same_class": clean.same_class,
        },
        "mean": told.both(told.rows(lambda c: c.averaged)) if averaged else None,
        "severities": {
            str(severity): told.both(told.rows(lambda c, s=severity: c.averaged and c.severity == s))  # type: ignore[misc]
            for severity in sorted({condition.severity for condition in conditions if condition.averaged})
        },
        "corruptions": {
            name: {
                "group": next(c.group for c in conditions if c.corruption == name),
                "averaged": name in averaged,
                **told.both(told.rows(lambda c, n=name: c.corruption == n)),  # type: ignore[misc]
            }
            for name in names
        },
        "conditions": [
            {
                "corruption": condition.corruption,
                "severity": condition.severity,
                "strength": condition.strength,
                **told.both([[place]]),
                "metrics": dict(seen.metrics),
                "with_temperature": dict(seen.tempered),
                "same_class": seen.same_class,
            }
            for place, (condition, seen) in enumerate(zip(conditions, corrupted, strict=True))
        ],
        "metrics": _metric_means(conditions, clean, corrupted),
        "baseline": None,
    }
    if baseline is not None and averaged:
        content["baseline"] = told.normalised(Errors(*baseline, labels, resamples, clusters))
    return content


class _Told:
    """Means of errors with their intervals; places of conditions are counted from 0."""

    def __init__(self, conditions: Sequence[Condition], errors: Errors, confidence: float) -> None:
        self._conditions = conditions
        self._errors = errors
        self._confidence = confidence

    def rows(self, wanted: Callable[[Condition], bool]) -> list[list[int]]:
        """Return the places of the conditions that are wanted, a list for each corruption."""
        found: dict[str, list[int]] = {}
        for place, condition in enumerate(self._conditions):
            if wanted(condition):
                found.setdefault(condition.corruption, []).append(place)
        return list(found.values())

    def error(self, rows: Sequence[Sequence[int]]) -> Value:
        """Return the error under conditions; of none, on clean images."""
        return self._value(lambda errors: _mean_of(errors, rows) if rows else errors[0])

    def both(self, rows: Sequence[Sequence[int]]) -> dict[str, Value]:
        """Return the error under conditions, and by how much it is above that on clean images."""
        return {"error": self.error(rows), "increase": self._value(lambda errors: _mean_of(errors, rows) - errors[0])}

    def normalised(self, other: Errors) -> dict[str, Any]:
        """Return the mean corruption errors divided, corruption by corruption, by those of another network."""
        rows = self.rows(lambda condition: condition.averaged)
        names = list(dict.fromkeys(c.corruption for c in self._conditions if c.averaged))
        mine, theirs = self._errors, other
        content: dict[str, Any] = {
            "clean_error": float(theirs.point[0, 0]),
            "error": float(_mean_of(theirs.point, rows)[0]),
            "increase": float((_mean_of(theirs.point, rows) - theirs.point[0])[0]),
            "difference": self._difference(other, lambda errors: _mean_of(errors, rows)),
            "difference_of_increase": self._difference(other, lambda errors: _mean_of(errors, rows) - errors[0]),
        }
        for key, relative in (("mce", False), ("relative_mce", True)):
            point, drawn = (
                _ratios(a, b, rows, relative) for a, b in ((mine.point, theirs.point), (mine.drawn, theirs.drawn))
            )
            each = [float(value) if np.isfinite(value) else None for value in point[:, 0]]
            whole = None if None in each else float(point.mean())
            known = bool(np.isfinite(drawn).all())
            content[key] = {"value": whole, "interval": self._interval(whole, drawn.mean(axis=0)) if known else None}
            content[f"{key}_of"] = dict(zip(names, each, strict=True))
        return content

    def _difference(self, other: Errors, statistic: Callable[[Floats], Floats]) -> Value:
        """Return by how much a mean is above that of another network, on the same resamples."""
        mine = self._errors
        value = float((statistic(mine.point) - statistic(other.point))[0])
        drawn = statistic(mine.drawn) - statistic(other.drawn)
        return {"value": value, "interval": self._interval(value, drawn)}

    def _value(self, statistic: Callable[[Floats], Floats]) -> Value:
        value = float(statistic(self._errors.point)[0])
        return {"value": value, "interval": self._interval(value, statistic(self._errors.drawn))}

    def _interval(self, value: float | None, drawn: Floats) -> list[float] | None:
        found = None if value is None else percentiles(value, drawn, self._confidence)
        return None if found is None else list(found)


def _mean_of(errors: Floats, rows: Sequence[Sequence[int]]) -> Floats:
    """Return (B,) the mean over corruptions of the mean over their severities, of errors (1 + C, B)."""
    return np.asarray(np.mean([errors[np.array(places) + 1].mean(axis=0) for places in rows], axis=0))


def _ratios(mine: Floats, theirs: Floats, rows: Sequence[Sequence[int]], relative: bool) -> Floats:
    """Return (corruptions, B) errors of one network over those of another; NaN where the other makes none."""
    sums = [[each[np.array(places) + 1].sum(axis=0) for each in (mine, theirs)] for places in rows]
    if relative:
        sums = [
            [total - len(places) * each[0] for total, each in zip(pair, (mine, theirs), strict=True)]
            for pair, places in zip(sums, rows, strict=True)
        ]
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.stack([np.where(below > 0, above / below, np.nan) for above, below in sums])


def _metric_means(
    conditions: Sequence[Condition], clean: Observation, corrupted: Sequence[Observation]
) -> dict[str, dict[str, float | None]]:
    """Return every metric on clean images, and its mean as the error's is taken; None where one is undefined."""
    places: dict[str, list[int]] = {}
    for place, condition in enumerate(conditions):
        if condition.averaged:
            places.setdefault(condition.corruption, []).append(place)
    found: dict[str, dict[str, float | None]] = {}
    for name, value in clean.metrics.items():
        values = [[corrupted[place].metrics[name] for place in each] for each in places.values()]
        known = [[item for item in each if item is not None] for each in values]
        whole = value is not None and bool(values) and all(len(k) == len(v) for k, v in zip(known, values, strict=True))
        mean = float(np.mean([np.mean(each) for each in known])) if whole else None
        change = mean - value if mean is not None and value is not None else None
        found[name] = {"clean": value, "corrupted": mean, "change": change}
    return found
