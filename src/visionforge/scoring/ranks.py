"""Several methods on several data sets: average ranks, Friedman's test, and which methods cannot be told apart.

Demšar, Statistical Comparisons of Classifiers over Multiple Data Sets, Journal of Machine Learning Research 7 (2006).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import numpy.typing as npt
from scipy import stats

from visionforge.scoring.paired_tests import holm

Values = npt.NDArray[np.float64]
FEWEST_DATASETS, FEWEST_METHODS = 5, 3  # with fewer, no difference could be found whatever it is


@dataclass(frozen=True)
class Pair:
    """Two methods.

    Attributes:
        one: Place of the first.
        other: Place of the second.
        p: Of Wilcoxon's signed-rank test of their values on the data sets, two-sided; 1 if all are equal.
        p_holm: Holm's, over all pairs.
    """

    one: int
    other: int
    p: float
    p_holm: float


@dataclass(frozen=True)
class Ranks:
    """Methods ranked over data sets.

    Attributes:
        datasets: Number of data sets N.
        average: Average rank of each method, 1 the best.
        statistic: Friedman's chi-square, with k − 1 degrees of freedom.
        p: Its p-value.
        critical: Nemenyi's critical difference of average ranks.
        confidence: 1 − alpha of the critical difference.
        cliques: Places of methods, best first, whose average ranks are within the critical difference; each clique is
            as large as it can be, and has two methods at least.
        pairs: Wilcoxon's tests.
    """

    datasets: int
    average: tuple[float, ...]
    statistic: float
    p: float
    critical: float
    confidence: float
    cliques: tuple[tuple[int, ...], ...]
    pairs: tuple[Pair, ...]


def average_ranks(values: Values, higher_is_better: bool = True) -> Values:
    """Return the average rank of each method, 1 the best; equal values share the mean of their ranks.

    Args:
        values: (N, k), a row for each data set.
        higher_is_better: Whether the highest value has rank 1.

    >>> average_ranks(np.array([[0.9, 0.8, 0.8], [0.7, 0.9, 0.6]])).tolist()
    [1.5, 1.75, 2.75]
    """
    signed = -values if higher_is_better else values
    return np.asarray(stats.rankdata(signed, axis=1).mean(axis=0), dtype=np.float64)


def ranked(values: Values, higher_is_better: bool = True, confidence: float = 0.95) -> Ranks:
    """Rank methods over data sets.

    Args:
        values: (N, k), a row for each data set, N and k at least `FEWEST_DATASETS` and `FEWEST_METHODS`.
        higher_is_better: Whether the highest value has rank 1.
        confidence: 1 − alpha.

    Raises:
        ValueError: If there are too few.
    """
    count, methods = values.shape
    if count < FEWEST_DATASETS or methods < FEWEST_METHODS:
        raise ValueError(f"ranks: {count} data sets and {methods} methods are too few")
    average = average_ranks(values, higher_is_better)
    statistic, p = friedman(values)
    critical = critical_difference(methods, count, confidence)
    return Ranks(
        count,
        tuple(average.tolist()),
        statistic,
        p,
        critical,
        confidence,
        tuple(cliques(average.tolist(), critical)),
        tuple(_pairs(values)),
    )


def friedman(values: Values) -> tuple[float, float]:
    """Return Friedman's chi-square, corrected for ties, and its p-value; (0, 1) if all methods are equal everywhere.

    Args:
        values: (N, k).
    """
    count, methods = values.shape
    ranks = stats.rankdata(values, axis=1)
    ties = sum(float((n**3 - n).sum()) for n in (np.unique(row, return_counts=True)[1] for row in ranks))
    correction = 1 - ties / (count * methods * (methods**2 - 1))
    if correction <= 0:
        return 0.0, 1.0
    spread = float(((ranks.sum(axis=0) - count * (methods + 1) / 2) ** 2).sum())
    statistic = 12 * spread / (count * methods * (methods + 1)) / correction
    return statistic, float(stats.chi2.sf(statistic, methods - 1))


def critical_difference(methods: int, datasets: int, confidence: float = 0.95) -> float:
    """Return by how much two average ranks have to differ by Nemenyi's test.

    Args:
        methods: Number of methods k.
        datasets: Number of data sets N.
        confidence: 1 − alpha.

    >>> round(critical_difference(4, 14, 0.90), 2)
    1.12
    """
    quantile = float(stats.studentized_range.ppf(confidence, methods, np.inf)) / np.sqrt(2)
    return float(quantile * np.sqrt(methods * (methods + 1) / (6 * datasets)))


def cliques(average: Sequence[float], critical: float) -> list[tuple[int, ...]]:
    """Return the largest groups of methods whose average ranks differ by no more than the critical difference.

    >>> cliques([1.0, 3.0, 1.8, 3.2], 1.0)
    [(0, 2), (1, 3)]
    """
    order = sorted(range(len(average)), key=lambda place: average[place])
    found: list[tuple[int, ...]] = []
    for start, first in enumerate(order):
        members = tuple(place for place in order[start:] if average[place] - average[first] <= critical)
        if len(members) > 1 and not any(set(members) <= set(other) for other in found):
            found.append(members)
    return found


def _pairs(values: Values) -> list[Pair]:
    places = list(combinations(range(values.shape[1]), 2))
    p = [_wilcoxon(values[:, one] - values[:, other]) for one, other in places]
    return [
        Pair(one, other, each, each if adjusted is None else adjusted)
        for (one, other), each, adjusted in zip(places, p, holm(p), strict=True)
    ]


def _wilcoxon(differences: Values) -> float:
    """Return the p-value of Wilcoxon's signed-rank test; equal values are split between both sides."""
    if not differences.any():
        return 1.0
    return float(stats.wilcoxon(differences, zero_method="zsplit").pvalue)
