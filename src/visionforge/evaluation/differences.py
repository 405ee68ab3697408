"""Differences of two models, or of their repetitions with other seeds, on the same cases."""

from collections.abc import Sequence

import numpy as np
from scipy.special import ndtr, ndtri, stdtr, stdtrit

from visionforge.evaluation.intervals import PAIRED, RESAMPLED, STUDENT, Interval, percentiles
from visionforge.evaluation.scores import Counted, Scores
from visionforge.scoring.limits import floor_error, mean_error, paired_error
from visionforge.scoring.rates import Floats

POWER = 0.8  # share of samples in which a difference shall be told from 0


class Compared:
    """Models on the same cases, whose metrics are averaged over their repetitions.

    Args:
        point: Metrics of each, of one weighting.
        drawn: Those of the same resamples.
        counted: What intervals follow from that are not those of resamples.
        first: How many of them are repetitions of the first model.
    """

    def __init__(
        self, point: Sequence[Scores], drawn: Sequence[Scores], counted: Sequence[Counted], first: int
    ) -> None:
        self._point = point
        self._drawn = drawn
        self._counted = counted
        self._sides = slice(0, first), slice(first, len(point))

    def value(self, name: str) -> float:
        """Return by how much the first is above the other."""
        one, other = (np.mean([each.overall[name][0] for each in self._point[side]]) for side in self._sides)
        return float(one - other)

    def method(self, name: str) -> str:
        """Return how an interval is made, of `METHODS`."""
        behind = [each.overall.get(name) for each in self._counted]
        if all(each is not None and each.losses is not None for each in behind):
            return STUDENT
        return PAIRED if all(each is not None and each.right is not None for each in behind) else RESAMPLED

    def interval(self, name: str, confidence: float) -> Interval | None:
        """Return (low, high); None if a metric is undefined, or its cases are too few to tell."""
        method, quantile = self.method(name), float(ndtri((1 + confidence) / 2))
        if self._few(name):
            return None
        if method == STUDENT:
            gap, error, degrees = self._of_losses(name)
            return _around(gap, float(stdtrit(degrees, (1 + confidence) / 2)) * error)
        if method == PAIRED:
            gap, error = paired_error(self._of_cases(name))
            return _around(gap, quantile * error)
        value, floor = self.value(name), quantile * self._floor(name)
        ends = percentiles(value, self._gaps(name), confidence)
        if ends is None:
            return _around(value, floor)
        wider = self._wider(name, confidence)
        below, above = ((value - ends[0]) * wider, (ends[1] - value) * wider)
        return value - float(np.hypot(below, floor)), value + float(np.hypot(above, floor))

    def p(self, name: str) -> float | None:
        """Return the two-sided p-value; None where there is no interval."""
        method = self.method(name)
        if self._few(name):
            return None
        if method == STUDENT:
            gap, error, degrees = self._of_losses(name)
            return float(2 * stdtr(degrees, -abs(gap) / error)) if error > 0 else None
        if method == PAIRED:
            gap, error = paired_error(self._of_cases(name))
            return float(2 * ndtr(-abs(gap) / error))
        gaps, known = self._gaps(name), self._error(name)
        gaps = gaps[~np.isnan(gaps)]
        if known is None:
            return None
        side = min((gaps <= 0).mean(), (gaps >= 0).mean())
        least = 2 / (len(gaps) + 1)  # no resample on the other side is not p = 0
        if self._cases(name) is not None and known > 0:
            least = max(least, float(2 * ndtr(-abs(self.value(name)) / known)))
        return float(min(1.0, max(2 * side, least)))

    def detectable(self, name: str) -> float | None:
        """Return the true difference that such cases tell from 0 in 4 of 5 samples, at p < 0.05; None where unknown."""
        error = self._error(name)
        return None if error is None or not error > 0 else float(ndtri(0.975) + ndtri(POWER)) * error

    def _error(self, name: str) -> float | None:
        """Return the standard error of a difference; None where there is no interval."""
        method = self.method(name)
        if self._few(name):
            return None
        if method == STUDENT:
            return self._of_losses(name)[1]
        if method == PAIRED:
            return paired_error(self._of_cases(name))[1]
        gaps = self._gaps(name)
        gaps = gaps[~np.isnan(gaps)]
        if not len(gaps):
            return None
        return float(np.hypot(gaps.std() * self._wider(name, 0.95), self._floor(name)))

    def _gaps(self, name: str) -> Floats:
        """Return (B,) the differences in resamples."""
        one, other = (np.mean([each.overall[name] for each in self._drawn[side]], axis=0) for side in self._sides)
        return np.asarray(one - other)

    def _of_cases(self, name: str) -> Floats:
        """Return (P, N) by how much each case of a share is more often right by the first."""
        sides = [[each.overall[name].right for each in self._counted[side]] for side in self._sides]
        one, other = (np.mean([each for each in side if each is not None], axis=0) for side in sides)
        return np.asarray(one - other)

    def _of_losses(self, name: str) -> tuple[float, float, int]:
        """Return the mean of what the losses of each case differ by, its standard error, and degrees of freedom."""
        behind = [each.overall[name] for each in self._counted]
        strata = behind[0].strata
        assert strata is not None
        sides = [[each.losses for each in behind[side]] for side in self._sides]
        one, other = (np.mean([each for each in side if each is not None], axis=0) for side in sides)
        return float((one - other).mean()), mean_error(one - other, strata), len(strata) - 1

    def _cases(self, name: str) -> Floats | None:
        """Return the numbers of cases behind a metric, of which resamples see too little of how it varies if few."""
        behind, per_class = self._counted[0].overall.get(name), self._counted[0].per_class
        if behind is None:
            return None
        if behind.trials is not None:
            return behind.trials.cases
        return np.array([per_class[each].cases[k] for each, k in behind.values]) if behind.values else None

    def _few(self, name: str) -> bool:
        """Return whether there are fewer cases of a class, or wrong ones of both models, than differences need."""
        behind, per_class = self._counted[0].overall.get(name), self._counted[0].per_class
        if behind is not None and behind.losses is not None:
            return all(each.overall[name].few for each in self._counted)
        return behind is not None and any(
            per_class[each].cases[k] < per_class[each].least_paired for each, k in behind.values
        )

    def _wider(self, name: str, confidence: float) -> float:
        """Return by how much more a small sample varies than its resamples: their variance, and Student's t."""
        cases = self._cases(name)
        if cases is None:
            return 1.0
        least = max(2.0, float(cases.min()))
        tail = (1 + confidence) / 2
        return float(np.sqrt(least / (least - 1)) * stdtrit(least - 1, tail) / ndtri(tail))

    def _floor(self, name: str) -> float:
        """Return the standard error that is left where two models agree on all cases; of rankings there is none."""
        behind, cases, per_class = self._counted[0].overall.get(name), self._cases(name), self._counted[0].per_class
        if behind is None or cases is None:
            return 0.0
        if behind.trials is None and not all(per_class[each].jaccard for each, _ in behind.values):
            return 0.0
        return floor_error(cases) * (1 - behind.lowest)


def _around(value: float, width: float) -> Interval | None:
    """Return the interval that reaches so far to both sides; None if it has no width, or an unknown one."""
    return (value - width, value + width) if width > 0 else None
