"""Cases with their predictions, and what weightings of them have in common, computed once however many metrics ask.

A bootstrap resample is a weighting: how often each case was drawn. All metrics are sums over weighted cases, so the
same lines give the reported value (all weights are 1) and its resamples. Everything is float64.
"""

import traceback
from dataclasses import replace
from functools import cached_property
from typing import Protocol

import numpy as np
import numpy.typing as npt

from visionforge.config.schema import TaskName
from visionforge.config.schema.metrics import Metric
from visionforge.config.schema.tasks import task_named
from visionforge.errors import VisionForgeError
from visionforge.scoring.clusters import Clusters
from visionforge.scoring.decisions import predicted_labels
from visionforge.scoring.limits import Trials
from visionforge.scoring.rates import Array, Floats, Ranking, rates_of, sums_by

LEAST_RANKED, LEAST_COMPARED = 20, 20  # cases of a class, and wrong ones, of which two models are compared


class Cases:
    """Predictions of N cases and their truth.

    Args:
        probabilities: (N, K).
        labels: (N,) classes, or (N, K) 0/1 where an image may have several.
        task: Kind of labels.
        thresholds: (K,) of labels, where an image may have several.
        positive: Of two classes, the one that is to be found.
        decided_on: (N, K) probabilities that the predictions follow, as decisions are made before a calibration; None
            is `probabilities`.
        clusters: Groups of cases that were drawn whole; None: they were drawn one by one.
        folds: (N,) which of several networks a case was predicted by; None: all by the same. Cases are ranked only
            among those of their own network, since the probabilities of networks do not compare (Airola et al., 2011).

    Attributes:
        probabilities: (N, K).
        labels: (N,) int64, or (N, K).
        task: The task.
        predicted: As `labels`, at the threshold 0.5.
        tuned: The same at `thresholds`, or None without them.
    """

    def __init__(
        self,
        probabilities: Array,
        labels: Array,
        task: TaskName,
        thresholds: Array | None = None,
        positive: int = 1,
        decided_on: Array | None = None,
        clusters: Clusters | None = None,
        folds: npt.NDArray[np.int64] | None = None,
    ) -> None:
        self.clusters = clusters
        self.folds = folds
        self.probabilities = np.asarray(probabilities, dtype=np.float64)
        self.labels = np.asarray(labels, dtype=np.int64)
        self.task = task_named(task)
        self.positive = positive
        self.classes = self.probabilities.shape[1]
        deciding = np.asarray(probabilities if decided_on is None else decided_on)
        self.predicted = predicted_labels(deciding, task)
        self.tuned = None
        if self.of_labels and thresholds is not None:
            self.tuned = predicted_labels(deciding, task, np.asarray(thresholds))

    @property
    def of_labels(self) -> bool:
        """Return whether labels do not exclude each other."""
        return self.task.several

    @cached_property
    def truth(self) -> Floats:
        """Return (N, K) 0/1."""
        return self.task.indicators(self.labels, self.classes).astype(np.float64)

    @cached_property
    def rankings(self) -> list[Ranking]:
        """Return the cases ranked by the probability of each class."""
        return [Ranking(self.probabilities[:, k], self.truth[:, k]) for k in range(self.classes)]

    @cached_property
    def rankings_of_folds(self) -> list[list[tuple[npt.NDArray[np.int64], Ranking]]]:
        """Return the same of each class: positions of the cases of each network, and their ranking."""
        assert self.folds is not None
        members = [np.flatnonzero(self.folds == fold) for fold in np.unique(self.folds)]
        return [
            [(cases, Ranking(self.probabilities[cases, k], self.truth[cases, k])) for cases in members]
            for k in range(self.classes)
        ]

    @cached_property
    def per_case(self) -> dict[str, Array]:
        """Return what built-in metrics keep of the cases themselves; each fills in its own."""
        return {}


class Weighted:
    """B weightings of cases, and what several metrics need of them.

    Args:
        cases: The cases.
        weights: (N, B), how often each case counts.
    """

    def __init__(self, cases: Cases, weights: Floats) -> None:
        self.cases = cases
        self.weights = weights

    @cached_property
    def total(self) -> Floats:
        """Return (B,) sums of the weights."""
        total: Floats = self.weights.sum(axis=0)
        return total

    @cached_property
    def _ranked(self) -> tuple[Floats, Floats]:
        if self.cases.folds is not None:
            found = [self._ranked_by_fold(k, parts) for k, parts in enumerate(self.cases.rankings_of_folds)]
        else:
            found = [ranking(self.weights) for ranking in self.cases.rankings]
        area, precision = zip(*found, strict=True)
        return np.stack(area), np.stack(precision)

    def _ranked_by_fold(self, k: int, parts: list[tuple[npt.NDArray[np.int64], Ranking]]) -> tuple[Floats, Floats]:
        """Return area and average precision (B,) of a class: of all pairs, and all cases of it, within their folds."""
        sums = np.zeros((4, self.weights.shape[1]))
        for members, ranking in parts:
            weights = self.weights[members]
            area, precision = ranking(weights)
            own = self.cases.truth[members, k] @ weights
            pairs = own * (weights.sum(axis=0) - own)
            sums += np.stack([np.where(pairs > 0, area * pairs, 0), pairs, np.where(own > 0, precision * own, 0), own])
        with np.errstate(invalid="ignore", divide="ignore"):
            return sums[0] / sums[1], sums[2] / sums[3]

    @property
    def area(self) -> Floats:
        """Return (K, B) areas under the ROC curve of each class against the rest."""
        return self._ranked[0]

    @property
    def average_precision(self) -> Floats:
        """Return (K, B) average precisions of each class against the rest."""
        return self._ranked[1]

    @cached_property
    def confusion(self) -> Floats:
        """Return (K, K, B) sums of weights by truth and prediction, of classes."""
        classes = self.cases.classes
        cells = self.cases.labels * classes + self.cases.predicted
        return sums_by(cells, classes**2, self.weights).reshape(classes, classes, -1)

    @cached_property
    def support(self) -> Floats:
        """Return (K, B) cases of each class or label."""
        found: Floats = self.cases.truth.T @ self.weights if self.cases.of_labels else self.confusion.sum(axis=1)
        return found

    @cached_property
    def said(self) -> Floats:
        """Return (K, B) predictions of each class or label."""
        if self.cases.of_labels:
            return self._marked(self.cases.predicted)[1]
        found: Floats = self.confusion.sum(axis=0)
        return found

    @cached_property
    def hits(self) -> Floats:
        """Return (K, B) right predictions of each class or label."""
        if self.cases.of_labels:
            return self._marked(self.cases.predicted)[0]
        found: Floats = np.einsum("kkb->kb", self.confusion)
        return found

    def _marked(self, predicted: Array) -> tuple[Floats, Floats]:
        reported = predicted.astype(np.float64)
        return (reported * self.cases.truth).T @ self.weights, reported.T @ self.weights

    @cached_property
    def rates(self) -> dict[str, Floats]:
        """Return name → (K, B) rates of each class or label against the rest."""
        return rates_of(self.hits, self.support, self.said, self.total)

    @cached_property
    def tuned_rates(self) -> dict[str, Floats] | None:
        """Return the same of labels at their thresholds; None without thresholds."""
        if self.cases.tuned is None:
            return None
        return rates_of(*self._tuned_counts, self.total)

    @cached_property
    def _tuned_counts(self) -> tuple[Floats, Floats, Floats]:
        assert self.cases.tuned is not None
        hits, said = self._marked(self.cases.tuned)
        return hits, self.support, said

    @property
    def per_class(self) -> dict[str, Floats]:
        """Return name → (K, B) of everything that is told of each class or label."""
        found = {"auc": self.area, "average_precision": self.average_precision, **self.rates}
        if (tuned := self.tuned_rates) is not None:
            found |= {f"{name}_tuned": tuned[name] for name in ("f1", "sensitivity", "specificity", "precision")}
        return found

    @property
    def trials(self) -> dict[str, Trials]:
        """Return name → of how many cases each value of `per_class` is a share; of one weighting."""
        support, total = self.support[:, 0], self.total[0]
        others = total - support
        both = np.minimum(support, others)
        with np.errstate(divide="ignore"):
            pairs = np.where(both > 0, 2 / (1 / support + 1 / others), 0.0)
        found = {
            "auc": Trials(both, pairs, least_paired=LEAST_RANKED, least_wrong=LEAST_COMPARED),
            "average_precision": Trials(both, both, least_paired=LEAST_RANKED, least_wrong=LEAST_COMPARED),
        }
        counts = {"": (self.hits, self.said)}
        if self.cases.tuned is not None:
            hits, _, said = self._tuned_counts
            counts["_tuned"] = hits, said
        for ending, (hits, said) in counts.items():
            found |= {
                f"sensitivity{ending}": Trials(support),
                f"specificity{ending}": Trials(others),
                f"precision{ending}": Trials(said[:, 0]),
                f"f1{ending}": Trials(support + said[:, 0] - hits[:, 0], jaccard=True),
            }
        clusters = self.cases.clusters
        return found if clusters is None else {name: self._of_groups(name, each) for name, each in found.items()}

    def _of_groups(self, name: str, trials: Trials) -> Trials:
        """Return the same of cases that were drawn in whole groups."""
        clusters, truth = self.cases.clusters, self.cases.truth > 0
        assert clusters is not None
        decided = self.cases.tuned if name.endswith("_tuned") else self.cases.predicted
        assert decided is not None
        said = self.cases.task.indicators(decided, self.cases.classes) > 0
        sides = {
            "sensitivity": (truth,),
            "specificity": (~truth,),
            "precision": (said,),
            "f1": (truth | said,),
        }.get(name.removesuffix("_tuned"), (truth, ~truth))
        least = np.minimum.reduce([clusters.least_effective(side) for side in sides])
        groups = np.minimum.reduce([clusters.present(side) for side in sides])
        most = trials.cases if trials.effective is None else trials.effective
        return replace(trials, cases=least, effective=most, groups=groups)


class AnyCases(Protocol):
    """Predictions and their truth, of whichever form."""

    @property
    def labels(self) -> Array:
        """Return the truth."""

    @property
    def probabilities(self) -> Array | None:
        """Return the probabilities, if they are kept."""

    @property
    def predicted(self) -> Array:
        """Return what was decided."""


class AnyWeighted(Protocol):
    """Weightings of cases of whichever form."""

    @property
    def cases(self) -> AnyCases:
        """Return the cases."""

    @property
    def weights(self) -> Floats:
        """Return (N, B), how often each case counts."""


def values_of(metric: Metric, weighted: AnyWeighted) -> Floats | None:
    """Return a metric of each weighting (B,), NaN where it is undefined; None if the cases lack what it needs.

    Raises:
        VisionForgeError: If somebody's own metric fails, or returns something else than a number.
    """
    if metric.shared:
        found: Floats | None = metric.compute(weighted)
        return found
    cases = weighted.cases
    arrays = cases.labels, cases.probabilities, cases.predicted
    given = [None if array is None else _read_only(array) for array in arrays]
    columns = _read_only(np.ascontiguousarray(weighted.weights.T))
    with np.errstate(all="ignore"):  # what is undefined is NaN
        return np.array([_own_value(metric, given, column) for column in columns], dtype=np.float64)


def _own_value(metric: Metric, given: list[npt.NDArray[np.generic] | None], weights: Floats) -> float:
    try:
        value = float(metric.compute(*given, weights))
    except Exception as error:  # somebody's function may raise anything
        frame = traceback.extract_tb(error.__traceback__)[-1]
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        raise VisionForgeError(
            f"metric {metric.name}: cannot be computed ({reason}; {frame.filename}, line {frame.lineno})"
        ) from error
    return value if np.isfinite(value) else np.nan


def _read_only(array: Array) -> Array:
    view = array.view()
    view.flags.writeable = False
    return view
