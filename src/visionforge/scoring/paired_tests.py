"""Tests of models on the same cases: DeLong's of areas under ROC curves, McNemar's of decisions, Holm's correction.

- DeLong, DeLong and Clarke-Pearson (1988, Biometrics 44:837): an AUC is a mean over pairs of a positive and a negative
  case. What each case contributes, its structural component, gives the covariance of the AUCs of several models on the
  same cases; by midranks as of Sun and Xu (2014, IEEE Signal Processing Letters 21:1389), so in N log N.
- McNemar (1947, Psychometrika 12:153): of two models that are right equally often, either is right alone equally often.
  Its mid-p version: in Fagerland, Lydersen and Laake (2013, BMC Medical Research Methodology 13:91) it kept its level,
  where the exact one is far too careful and the one with continuity correction hardly less so.
- Holm (1979, Scandinavian Journal of Statistics 6:65): p-values of several hypotheses, of which none is to be rejected
  wrongly; whatever their correlation.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import bdtr, ndtr, ndtri

from visionforge.scoring.rates import Array, Floats

_SAME = 1e-12  # areas and errors that differ by less are the same


@dataclass(frozen=True)
class AreaDifference:
    """The difference of two AUCs on the same cases.

    Attributes:
        value: The difference, -1 to 1.
        error: Its standard error.
    """

    value: float
    error: float

    @property
    def p(self) -> float | None:
        """Return the two-sided p-value; 1 if the models rank alike, None where they differ without an error."""
        if self.error <= _SAME:
            return 1.0 if abs(self.value) <= _SAME else None
        return float(2 * ndtr(-abs(self.value) / self.error))

    def interval(self, confidence: float) -> tuple[float, float] | None:
        """Return (low, high); None where there is no error.

        Args:
            confidence: Share of samples of which it holds the truth.
        """
        width = float(ndtri((1 + confidence) / 2)) * self.error
        return (self.value - width, self.value + width) if width > _SAME else None


def components(scores: Array, truth: Array) -> tuple[Floats, Floats]:
    """Return the structural components of the AUCs of M models; the mean of either part is the AUC.

    Args:
        scores: (M, N), higher for positive cases; ties count as half.
        truth: (N,) 0/1, with a case of either kind.

    Returns:
        (M, P) of each positive case the share of negative ones below it, and (M, N - P) of each negative case the share
        of positive ones above it.

    >>> import numpy as np
    >>> of_positive, of_negative = components(np.array([[0.1, 0.4, 0.35, 0.8]]), np.array([0, 0, 1, 1]))
    >>> of_positive.tolist(), of_negative.tolist()
    ([[0.5, 1.0]], [[1.0, 0.5]])
    """
    positive = np.asarray(truth) > 0
    scores = np.asarray(scores, dtype=np.float64)
    every = np.stack([_midranks(row) for row in scores])
    above, below = (
        every[:, side] - np.stack([_midranks(row) for row in scores[:, side]]) for side in (positive, ~positive)
    )
    return above / (~positive).sum(), 1 - below / positive.sum()


def _midranks(values: Floats) -> Floats:
    """Return ranks from 1, of equal values their mean."""
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(count) - (count - 1) / 2)[place.reshape(-1)])


def area_difference(one: Array, other: Array, truth: Array) -> AreaDifference | None:
    """Return by how much the mean AUC of one model's repetitions is above that of another's.

    Args:
        one: (R, N) scores of a model, and of its repetitions with other seeds; one row is one model.
        other: (S, N) of the other.
        truth: (N,) 0/1.

    Returns:
        None with fewer than two cases of either kind.
    """
    positives = int((np.asarray(truth) > 0).sum())
    if min(positives, len(truth) - positives) < 2:
        return None
    gaps = [
        mine.mean(axis=0) - theirs.mean(axis=0)
        for mine, theirs in zip(components(one, truth), components(other, truth), strict=True)
    ]
    error = np.sqrt(sum(float(gap.var(ddof=1)) / len(gap) for gap in gaps))
    return AreaDifference(float(gaps[0].mean()), float(error))


def mcnemar(first_alone: int, other_alone: int) -> float:
    """Return McNemar's two-sided mid-p-value, from the binomial distribution, whatever the number of cases.

    Args:
        first_alone: Cases of which the first model alone is right.
        other_alone: Those of which the other alone is right.

    >>> round(mcnemar(1, 9), 6), mcnemar(3, 3), mcnemar(0, 0)
    (0.011719, 1.0, 1.0)
    """
    fewer, both = min(first_alone, other_alone), first_alone + other_alone
    if first_alone == other_alone:
        return 1.0
    below = float(bdtr(fewer - 1, both, 0.5)) if fewer else 0.0
    return min(1.0, below + float(bdtr(fewer, both, 0.5)))  # twice P(X < fewer) + P(X = fewer) / 2


def holm(p: Sequence[float | None]) -> list[float | None]:
    """Return p-values adjusted for their number; None stays so, and does not count.

    >>> holm([0.01, 0.04, None, 0.03])
    [0.03, 0.06, None, 0.06]
    """
    known = [(value, place) for place, value in enumerate(p) if value is not None]
    adjusted: list[float | None] = [None] * len(p)
    largest = 0.0
    for rank, (value, place) in enumerate(sorted(known)):
        largest = max(largest, min(1.0, (len(known) - rank) * value))
        adjusted[place] = largest
    return adjusted
