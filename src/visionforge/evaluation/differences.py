"""Differences of two models, or of their repetitions with other seeds, on the same cases."""

from collections.abc import Sequence

import numpy as np
from scipy.special import ndtr, ndtri, stdtr, stdtrit

from visionforge.evaluation.intervals import ERROR, PAIRED, RESAMPLED, STUDENT, Interval, percentiles
from visionforge.evaluation.scores import Counted, Scores
from visionforge.scoring.behind import LEAST_CASES, LEAST_GROUPS
from visionforge.scoring.cases import LEAST_COMPARED
from visionforge.scoring.limits import design_effect, floor_error, mean_error, paired_error
from visionforge.scoring.rates import Floats

POWER = 0.8  # share of samples in which a difference shall be told from 0
_SAME = 1e-12  # resamples that differ by less are the same


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
        self._clusters = counted[0].clusters
        self._sides = slice(0, first), slice(first, len(point))

    def value(self, name: str) -> float:
        """Return by how much the first is above the other."""
        return float(self._gap([each.overall[name][0] for each in self._point]))

    def method(self, name: str) -> str:
        """Return how an interval is made, of `METHODS`."""
        behind = [each.overall.get(name) for each in self._counted]
        if any(each is None for each in behind):
            return RESAMPLED
        if all(each is not None and each.losses is not None for each in behind):
            return STUDENT
        return PAIRED if all(each is not None and each.right is not None for each in behind) else ERROR

    def interval(self, name: str, confidence: float) -> Interval | None:
        """Return (low, high); None if a metric is undefined, or its cases are too few to tell."""
        if self.method(name) == RESAMPLED:
            return percentiles(self.value(name), self._gaps(name), confidence)
        value, error, degrees = self._student(name)
        width = float(stdtrit(degrees, (1 + confidence) / 2)) * error
        return (value - width, value + width) if width > 0 else None

    def p(self, name: str) -> float | None:
        """Return the two-sided p-value; None where there is no interval."""
        if self.method(name) != RESAMPLED:
            value, error, degrees = self._student(name)
            return float(2 * stdtr(degrees, -abs(value) / error)) if error > 0 else None
        gaps = self._gaps(name)
        gaps = gaps[~np.isnan(gaps)]
        if not len(gaps):
            return None
        side = min((gaps <= 0).mean(), (gaps >= 0).mean())
        return float(min(1.0, max(2 * side, 2 / (len(gaps) + 1))))  # no resample on the other side is not p = 0

    def p_worse(self, name: str, margin: float, higher: bool) -> float | None:
        """Return the one-sided p-value of the hypothesis that the first is worse by a margin or more.

        It is below (1 - confidence) / 2 where the interval's limit on the worse side is better than that.

        Args:
            name: Name of the metric.
            margin: By how much, not negative.
            higher: Higher values are better.
        """
        sign = 1 if higher else -1
        if self.method(name) != RESAMPLED:
            value, error, degrees = self._student(name)
            return float(stdtr(degrees, -(sign * value + margin) / error)) if error > 0 else None
        return percentile_of_zero(sign * self.value(name) + margin, sign * self._gaps(name) + margin)

    def detectable(self, name: str) -> float | None:
        """Return the true difference that such cases tell from 0 in 4 of 5 samples, at p < 0.05; None where unknown."""
        error = self._error(name)
        return float(ndtri(0.975) + ndtri(POWER)) * error if error > 0 else None

    def _error(self, name: str) -> float:
        """Return the standard error of a difference; NaN where it cannot be told."""
        return float(np.nanstd(self._gaps(name))) if self.method(name) == RESAMPLED else self._student(name)[1]

    def _student(self, name: str) -> tuple[float, float, float]:
        """Return a difference, its standard error, NaN where it cannot be told, and degrees of freedom."""
        method, groups = self.method(name), None if self._clusters is None else self._clusters.count
        if self._few(name):
            return self.value(name), np.nan, np.inf
        if method == PAIRED:
            return *paired_error(self._of_cases(name), self._clusters), np.inf if groups is None else groups - 1.0
        if method == STUDENT:
            return self._of_losses(name)
        fewest = float(self._cases(name).min()) if groups is None else float(groups)
        least = max(2.0, fewest)  # resamples of few cases vary less than samples of them
        drawn = float(np.nanstd(self._gaps(name))) * np.sqrt(least / (least - 1))
        return self.value(name), float(np.hypot(drawn, self._floor(name))), least - 1

    def _gaps(self, name: str) -> Floats:
        """Return (B,) the differences in resamples."""
        return self._gap([each.overall[name] for each in self._drawn])

    def _gap(self, each: Sequence[Floats | None]) -> Floats:
        """Return by how much the mean over the repetitions of the first is above that of the other; all are there."""
        one, other = (np.mean([part for part in each[side] if part is not None], axis=0) for side in self._sides)
        return np.asarray(one - other)

    def _of_cases(self, name: str) -> Floats:
        """Return (P, N) by how much each case of a share is more often right by the first."""
        return self._gap([each.overall[name].right for each in self._counted])

    def _of_losses(self, name: str) -> tuple[float, float, int]:
        """Return the mean of what the losses of each case differ by, its standard error, and degrees of freedom."""
        strata = self._counted[0].overall[name].strata
        assert strata is not None
        gaps = self._gap([each.overall[name].losses for each in self._counted])
        if self._clusters is not None:
            gaps, strata = self._clusters.means(gaps), np.zeros(self._clusters.count, dtype=np.int64)
        return float(gaps.mean()), mean_error(gaps, strata), len(strata) - 1

    def _cases(self, name: str) -> Floats:
        """Return the numbers of cases behind a metric."""
        behind, per_class = self._counted[0].overall[name], self._counted[0].per_class
        if behind.trials is not None:
            return behind.trials.cases
        return np.array([per_class[each].cases[k] for each, k in behind.values])

    def _cases_apart(self, name: str) -> Floats:
        """Return the same; of whole groups as many as vary as much as the accuracies of the models differ by group."""
        cases = self._cases(name)
        every = [each.overall.get("accuracy") for each in self._counted]
        if self._clusters is None or any(each is None or each.right is None for each in every):
            return cases
        behind, per_class = self._counted[0].overall[name], self._counted[0].per_class
        trials = [behind.trials] if behind.trials is not None else [per_class[each] for each, _ in behind.values]
        places = [0] if behind.trials is not None else [k for _, k in behind.values]
        most = [
            found.cases[k] if found.effective is None else found.effective[k]
            for found, k in zip(trials, places, strict=True)
        ]
        effect, _ = design_effect(self._of_cases("accuracy"), self._clusters)
        return np.maximum(cases, np.array(most) / effect)

    def _few(self, name: str) -> bool:
        """Return whether there are fewer cases of a class, or wrong ones of both models, than differences need."""
        every, per_class = [each.overall[name] for each in self._counted], self._counted[0].per_class
        if self._clusters is not None and self._clusters.count < LEAST_GROUPS:
            return True
        wrong = max(each.wrong for each in every)
        if every[0].losses is not None:
            return len(every[0].losses) < LEAST_CASES or wrong < LEAST_COMPARED
        if every[0].trials is None and not every[0].values:
            return True
        return any(
            per_class[each].cases[k] < per_class[each].least_paired or wrong < per_class[each].least_wrong
            for each, k in every[0].values
        )

    def _floor(self, name: str) -> float:
        """Return the standard error that is left where two models agree on all cases; of rankings there is none."""
        behind, per_class = self._counted[0].overall[name], self._counted[0].per_class
        if behind.trials is None and not all(per_class[each].jaccard for each, _ in behind.values):
            return 0.0
        return floor_error(self._cases_apart(name)) * (1 - behind.lowest)


def percentile_of_zero(value: float, resampled: Floats) -> float | None:
    """Return at which share a bias-corrected percentile is 0: the one-sided p of a value that is not above 0.

    None where `visionforge.evaluation.intervals.percentiles` is None.

    Args:
        value: The value.
        resampled: (B,) that of the resamples.
    """
    defined = resampled[~np.isnan(resampled)]
    if np.isnan(value) or not len(defined) or np.ptp(defined) <= _SAME:
        return None
    edge = 1 / (len(defined) + 1)
    bias, zero = (
        ndtri(np.clip((defined < each).mean() + (defined == each).mean() / 2, edge, 1 - edge)) for each in (value, 0.0)
    )
    return float(ndtr(zero - 2 * bias))
