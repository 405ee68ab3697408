"""Every metric of a classifier, for one weighting of the cases or for thousands of them at once.

A bootstrap resample is a weighting: how often each case was drawn. All metrics are sums over weighted cases, so the
same lines give the reported value (all weights are 1) and its resamples. Everything is float64.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from visionforge.config.schema import Task
from visionforge.inference.decisions import predicted_labels

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]
ECE_BINS = 15  # equally wide, as in Guo et al. (2017)
_CLOSEST = float(np.finfo(np.float32).eps)  # probabilities are float32: log loss takes none as nearer to 0 or 1

HIGHER_IS_BETTER: dict[str, bool] = {
    "accuracy": True,
    "balanced_accuracy": True,
    "auc": True,
    "average_precision": True,
    "f1_macro": True,
    "sensitivity": True,
    "specificity": True,
    "mcc": True,
    "brier": False,
    "log_loss": False,
    "ece": False,
    "kappa_quadratic": True,
    "mae": False,
    "off_by_one": True,
    "exact_match": True,
    "f1_macro_tuned": True,
    "balanced_accuracy_tuned": True,
    "sensitivity_tuned": True,
    "specificity_tuned": True,
}


@dataclass(frozen=True)
class Scores:
    """Metrics of B weightings of the cases; NaN where a metric is undefined.

    Attributes:
        overall: Name → (B,).
        per_class: Name → (K, B).
    """

    overall: Mapping[str, Floats]
    per_class: Mapping[str, Floats]


class Scorer:
    """Computes all metrics of one set of predictions.

    For two classes, AUC, average precision, sensitivity and specificity are those of the positive class; for more, and
    for labels, they are averages. A class or label without cases is absent: it is in no average. The metrics, by name:

    - `accuracy`; of multi-label data averaged over the labels, beside `exact_match`: all labels of an image right.
    - `balanced_accuracy`: mean recall of the classes; of labels, mean of (sensitivity + specificity) / 2.
    - `auc`, `average_precision`: one-vs-rest, averaged.
    - `f1_macro`, `sensitivity`, `specificity`.
    - `mcc`: Matthews' correlation coefficient, for several classes Gorodkin's (2004); of labels averaged.
    - `brier`: squared distance of the probabilities from the truth, summed over the classes; for two classes, as for
      labels, that of the one probability (half the sum).
    - `log_loss`: mean of -log of the probability of the truth, in nats; of labels averaged.
    - `ece`: expected calibration error of the predicted class over 15 equally wide bins (Guo et al., 2017); of labels,
      that of all probabilities taken together.
    - Ordinal: `kappa_quadratic` (Cohen, 1968), `mae` in grades, `off_by_one`: share that is at most one grade off.
    - Multi-label with thresholds: `f1_macro_tuned`, `balanced_accuracy_tuned`, `sensitivity_tuned`,
      `specificity_tuned`.

    Args:
        probabilities: (N, K).
        labels: (N,) classes, or (N, K) 0/1 for multi-label data.
        task: Kind of labels.
        thresholds: (K,) of multi-label data.
        positive: The class of a binary task that is to be found.
    """

    def __init__(
        self, probabilities: Array, labels: Array, task: Task, thresholds: Array | None = None, positive: int = 1
    ) -> None:
        self.probabilities = np.asarray(probabilities, dtype=np.float64)
        self.labels = np.asarray(labels, dtype=np.int64)
        self.task = task
        self._positive = positive
        self._classes = self.probabilities.shape[1]
        self._predicted = predicted_labels(np.asarray(probabilities), task)
        one_hot = self.labels if task == "multi-label" else np.eye(self._classes, dtype=np.int64)[self.labels]
        self._truth = one_hot.astype(np.float64)
        self._rankings = [_Ranking(self.probabilities[:, k], self._truth[:, k]) for k in range(self._classes)]
        self._tuned = None
        if task == "multi-label" and thresholds is not None:
            self._tuned = predicted_labels(np.asarray(probabilities), task, np.asarray(thresholds))
        self._losses = self._per_case_losses()
        self._bins = self._calibration_bins()

    def __call__(self, weights: Floats) -> Scores:
        """Return the metrics of B weightings.

        Args:
            weights: (N, B), how often each case counts.
        """
        ranked = [ranking(weights) for ranking in self._rankings]
        area, precision = (np.stack(part) for part in zip(*ranked, strict=True))
        find = self._of_labels if self.task == "multi-label" else self._of_classes
        scores = find(weights, area, precision)
        total = weights.sum(axis=0)
        losses = {name: values @ weights / total for name, values in self._losses.items()}
        overall = {**scores.overall, **losses, "ece": self._calibration_error(weights)}
        order = [name for name in HIGHER_IS_BETTER if name in overall]
        return Scores({name: overall[name] for name in order}, scores.per_class)

    # --- classes

    def _of_classes(self, weights: Floats, area: Floats, precision: Floats) -> Scores:
        confusion = self._confusion(weights)  # (K, K, B), truth first
        total = confusion.sum(axis=(0, 1))
        hits, support, said = np.einsum("kkb->kb", confusion), confusion.sum(axis=1), confusion.sum(axis=0)
        per_class = _rates(hits, support, said, total)
        overall = {
            "accuracy": hits.sum(axis=0) / total,
            "balanced_accuracy": _mean(per_class["sensitivity"]),
            "auc": area[self._positive] if self.task == "binary" else _mean(area),
            "average_precision": precision[self._positive] if self.task == "binary" else _mean(precision),
            "f1_macro": _mean(per_class["f1"]),
            "mcc": _correlation(hits.sum(axis=0), support, said, total),
        }
        for name in ("sensitivity", "specificity"):
            present = np.where(support > 0, per_class[name], np.nan)
            overall[name] = present[self._positive] if self.task == "binary" else _mean(present)
        if self.task == "ordinal":
            overall |= _of_grades(confusion)
        return Scores(overall, {"auc": area, "average_precision": precision, **per_class})

    def _confusion(self, weights: Floats) -> Floats:
        """Return (K, K, B) sums of weights by truth and prediction."""
        cells = self.labels * self._classes + self._predicted
        return _sums_by(cells, self._classes**2, weights).reshape(self._classes, self._classes, -1)

    # --- labels

    def _of_labels(self, weights: Floats, area: Floats, precision: Floats) -> Scores:
        total = weights.sum(axis=0)
        support = self._truth.T @ weights
        per_class, overall = self._rates_of_labels(weights, self._predicted, support, total)
        agree = self._predicted == self.labels
        overall |= {
            "accuracy": agree.mean(axis=1) @ weights / total,
            "exact_match": agree.all(axis=1).astype(np.float64) @ weights / total,
            "auc": _mean(area),
            "average_precision": _mean(precision),
        }
        if self._tuned is not None:
            tuned, averages = self._rates_of_labels(weights, self._tuned, support, total)
            per_class |= {f"{name}_tuned": tuned[name] for name in ("f1", "sensitivity", "specificity", "precision")}
            kept = ("f1_macro", "balanced_accuracy", "sensitivity", "specificity")
            overall |= {f"{name}_tuned": averages[name] for name in kept}
        return Scores(overall, {"auc": area, "average_precision": precision, **per_class})

    def _rates_of_labels(
        self, weights: Floats, said: Array, support: Floats, total: Floats
    ) -> tuple[dict[str, Floats], dict[str, Floats]]:
        reported = said.astype(np.float64)
        hits, marked = (reported * self._truth).T @ weights, reported.T @ weights
        rates = _rates(hits, support, marked, total)
        kinds = np.stack([support, total - support]), np.stack([marked, total - marked])
        right = hits + (total - support - marked + hits)
        averages = {
            "balanced_accuracy": _mean((rates["sensitivity"] + rates["specificity"]) / 2),
            "f1_macro": _mean(rates["f1"]),
            "sensitivity": _mean(rates["sensitivity"]),
            "specificity": _mean(rates["specificity"]),
            "mcc": _mean(_correlation(right, *kinds, total)),
        }
        return rates, averages

    # --- probabilities

    def _per_case_losses(self) -> dict[str, Floats]:
        """Return (N,) Brier score and log loss of each case."""
        distance = (self.probabilities - self._truth) ** 2
        if self.task == "multi-label":
            clipped = self.probabilities.clip(_CLOSEST, 1 - _CLOSEST)
            losses = -np.where(self._truth > 0, np.log(clipped), np.log1p(-clipped))
            return {"brier": distance.mean(axis=1), "log_loss": losses.mean(axis=1)}
        chosen = (self.probabilities * self._truth).sum(axis=1)
        brier = distance[:, 1] if self.task == "binary" else distance.sum(axis=1)
        return {"brier": brier, "log_loss": -np.log(chosen.clip(_CLOSEST, 1.0))}

    def _calibration_bins(self) -> tuple[Floats, int]:
        """Return (bins, N), by how much the statements of each case are too sure, and their number per case."""
        if self.task == "multi-label":
            sure, right = self.probabilities, self._truth
        else:
            sure = self.probabilities.max(axis=1, keepdims=True)
            right = (self._predicted == self.labels)[:, None].astype(np.float64)
        excess = np.zeros((len(sure), ECE_BINS))
        np.add.at(excess, (np.arange(len(sure))[:, None], bin_of(sure)), sure - right)
        return np.ascontiguousarray(excess.T), sure.shape[1]

    def _calibration_error(self, weights: Floats) -> Floats:
        excess, statements = self._bins
        error: Floats = np.abs(excess @ weights).sum(axis=0) / (weights.sum(axis=0) * statements)
        return error


def bin_of(confidence: Floats) -> npt.NDArray[np.int64]:
    """Return the calibration bin, 0 to 14, of each probability; a bin includes its upper end."""
    upper = np.ceil(confidence * ECE_BINS).astype(np.int64)
    return np.asarray(np.clip(upper - 1, 0, ECE_BINS - 1))


class _Ranking:
    """AUC and average precision of one class against the rest, for many weightings.

    Both are sums over the positive cases of how many cases rank at least as high, so that only one cumulative sum goes
    over all cases.

    Args:
        scores: (N,), higher for the class.
        truth: (N,) 0/1.
    """

    def __init__(self, scores: Floats, truth: Floats) -> None:
        self._order = np.argsort(-scores, kind="stable")
        ranked, positive = scores[self._order], truth[self._order] > 0
        first = np.r_[True, ranked[1:] != ranked[:-1]]  # of the cases with equal scores
        group = np.cumsum(first) - 1
        self._starts = None if first.all() else np.flatnonzero(first)
        self._positives = self._order[positive]
        self._places, self._positive_starts = np.unique(group[positive], return_index=True)

    def __call__(self, weights: Floats) -> tuple[Floats, Floats]:
        """Return AUC (B,) and average precision (B,) of weights (N, B); NaN without cases of both kinds."""
        if not len(self._positives):
            return (np.full(weights.shape[1], np.nan),) * 2
        each, positive = weights[self._order], weights[self._positives]
        if self._starts is not None:
            each = np.add.reduceat(each, self._starts, axis=0)
            positive = np.add.reduceat(positive, self._positive_starts, axis=0)
        above = np.cumsum(each, axis=0)  # cases that rank at least as high as each group
        reported, hits = above[self._places], np.cumsum(positive, axis=0)
        misses = above[-1] - hits[-1]
        tied = each[self._places] - positive  # negative cases of the same score count as half
        lower = misses - (reported - hits) + tied / 2
        with np.errstate(divide="ignore", invalid="ignore"):
            area = np.einsum("nb,nb->b", positive, lower) / (hits[-1] * misses)
            precision = np.einsum("nb,nb->b", positive, hits / np.maximum(reported, 1e-300)) / hits[-1]
        precision[misses == 0] = np.nan
        return area, precision


def _sums_by(cells: npt.NDArray[np.int64], count: int, weights: Floats) -> Floats:
    """Return (count, B) sums of weights (N, B) over the cases of each cell."""
    columns = weights.shape[1]
    flat = (cells[:, None] * columns + np.arange(columns)).ravel()
    sums: Floats = np.bincount(flat, weights.ravel(), minlength=count * columns).astype(np.float64)
    return sums.reshape(count, columns)


def _rates(hits: Floats, support: Floats, said: Floats, total: Floats) -> dict[str, Floats]:
    """Return rates (K, B) of each class against the rest; NaN where there is no such case."""
    with np.errstate(divide="ignore", invalid="ignore"):
        others = total - support
        return {
            "sensitivity": np.where(support > 0, hits / support, np.nan),
            "specificity": np.where(others > 0, (others - said + hits) / others, np.nan),
            "precision": np.where(said > 0, hits / said, np.nan),
            "f1": np.where(support > 0, 2 * hits / (support + said), np.nan),
        }


def _correlation(hits: Floats, support: Floats, said: Floats, total: Floats) -> Floats:
    """Return Matthews' correlation coefficient; 0 for a constant prediction, NaN if all cases are of one class.

    Args:
        hits: (…) right cases.
        support: (K, …) cases per class.
        said: (K, …) predictions per class.
        total: Cases.
    """
    truth, prediction = total**2 - (support**2).sum(axis=0), total**2 - (said**2).sum(axis=0)
    above = hits * total - (support * said).sum(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        value = np.where(prediction > 0, above / np.sqrt(truth * prediction), 0.0)
    return np.where(truth > 0, value, np.nan)


def _of_grades(confusion: Floats) -> dict[str, Floats]:
    """Return what counts how far off a grade is, from confusion matrices (K, K, B)."""
    grades = np.arange(len(confusion))
    distance = np.abs(grades[:, None] - grades[None])[..., None].astype(np.float64)
    total = confusion.sum(axis=(0, 1))
    by_chance = np.einsum("ib,jb->ijb", confusion.sum(axis=1), confusion.sum(axis=0)) / total
    with np.errstate(divide="ignore", invalid="ignore"):
        expected = (distance**2 * by_chance).sum(axis=(0, 1))
        kappa = 1 - (distance**2 * confusion).sum(axis=(0, 1)) / expected
    return {
        "kappa_quadratic": np.where(expected > 0, kappa, np.nan),
        "mae": (distance * confusion).sum(axis=(0, 1)) / total,
        "off_by_one": ((distance <= 1) * confusion).sum(axis=(0, 1)) / total,
    }


def _mean(values: Floats) -> Floats:
    """Return the mean (B,) of (K, B) over what is defined; NaN if nothing is."""
    defined = ~np.isnan(values)
    count = defined.sum(axis=0)
    mean: Floats = np.where(defined, values, 0.0).sum(axis=0) / np.maximum(count, 1)
    return np.where(count > 0, mean, np.nan)
