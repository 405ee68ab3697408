"""Rates, rankings and averages over weighted cases, for many weightings at once. Everything is float64."""

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]


class Ranking:
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


def ratio(above: Floats, below: Floats) -> Floats:
    """Return `above` / `below`; NaN where `below` is 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        found: Floats = np.where(below > 0, above / below, np.nan)
    return found


def sums_by(cells: npt.NDArray[np.int64], count: int, weights: Floats) -> Floats:
    """Return (count, B) sums of weights (N, B) over the cases of each cell."""
    columns = weights.shape[1]
    flat = (cells[:, None] * columns + np.arange(columns)).ravel()
    sums: Floats = np.bincount(flat, weights.ravel(), minlength=count * columns).astype(np.float64)
    return sums.reshape(count, columns)


def rates_of(hits: Floats, support: Floats, said: Floats, total: Floats) -> dict[str, Floats]:
    """Return rates (K, B) of each class against the rest; NaN where there is no such case."""
    with np.errstate(divide="ignore", invalid="ignore"):
        others = total - support
        return {
            "sensitivity": np.where(support > 0, hits / support, np.nan),
            "specificity": np.where(others > 0, (others - said + hits) / others, np.nan),
            "precision": np.where(said > 0, hits / said, np.nan),
            "f1": np.where(support > 0, 2 * hits / (support + said), np.nan),
        }


def correlation(hits: Floats, support: Floats, said: Floats, total: Floats) -> Floats:
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


def mean(values: Floats) -> Floats:
    """Return the mean (B,) of (K, B) over what is defined; NaN if nothing is."""
    defined = ~np.isnan(values)
    count = defined.sum(axis=0)
    mean: Floats = np.where(defined, values, 0.0).sum(axis=0) / np.maximum(count, 1)
    return np.where(count > 0, mean, np.nan)
