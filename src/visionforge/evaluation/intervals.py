"""Intervals of metrics: from how many cases they are shares, and where they are none, from resamples.

Those of resamples are bias-corrected percentiles (Efron, 1981): without the correction those of average precision are
too high, because repeated cases rank together.
"""

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr, ndtri

from visionforge.evaluation.scores import Counted, Scores
from visionforge.scoring.limits import Behind, Trials, cases_of, correlations, loss_limits, mean_limits, share_limits
from visionforge.scoring.rates import Floats

SHARE, EFFECTIVE, MEAN, PAIRED = "share", "effective", "mean", "paired"
SKEWED, STUDENT, ERROR, RESAMPLED = "skewed", "student", "error", "resampled"
METHODS = {
    SHARE: "Clopper–Pearson",
    EFFECTIVE: "Clopper–Pearson of the effective number of cases",
    MEAN: "from the intervals of the classes and their correlation over resamples (MOVER)",
    PAIRED: "Bonett and Price, of shares of the same cases",
    SKEWED: "Student's t, corrected for skewness",
    STUDENT: "Student's t of what the cases differ by",
    ERROR: "Student's t with the standard error over resamples",
    RESAMPLED: "bias-corrected percentiles of resamples",
}
_SAME = 1e-12  # sums of the same values in another order differ by less
Interval = tuple[float, float]


class Limits:
    """The intervals of one set of predictions.

    Args:
        point: Its metrics, of one weighting.
        drawn: Those of resamples.
        counted: What intervals follow from that are not those of resamples.
        confidence: Share of samples of which an interval holds the truth.
    """

    def __init__(self, point: Scores, drawn: Scores, counted: Counted, confidence: float) -> None:
        self._point = point
        self._drawn = drawn
        self._counted = counted
        self._confidence = confidence
        self._classes: dict[str, tuple[Floats, Floats]] = {}

    def of_classes(self, name: str) -> list[Interval | None]:
        """Return (low, high) of a value of each class; None where it or they are undefined."""
        if name in self._counted.per_class:
            return [_plain(low, high) for low, high in zip(*self._of_shares(name), strict=True)]
        values = zip(self._point.per_class[name][:, 0], self._drawn.per_class[name], strict=True)
        return [percentiles(float(value), drawn, self._confidence) for value, drawn in values]

    def overall(self, name: str) -> Interval | None:
        """Return (low, high) of a metric; None if it is undefined, or its cases are too few to tell."""
        value = float(self._point.overall[name][0])
        behind = self._counted.overall.get(name)
        if np.isnan(value):
            return None
        if behind is None:
            return percentiles(value, self._drawn.overall[name], self._confidence)
        if behind.trials is not None:
            return self._of_share(name, behind, behind.trials)
        if behind.losses is not None:
            assert behind.strata is not None
            if behind.few:
                return None
            return _plain(*loss_limits(*self._losses(behind.losses, behind.strata), self._confidence))
        if not behind.values:
            return None
        low, high = zip(*(self._of_class(*each) for each in behind.values), strict=True)
        if len(low) == 1:
            return _plain(low[0], high[0])
        values = np.array([self._point.per_class[each][k, 0] for each, k in behind.values])
        drawn = np.stack([self._drawn.per_class[each][k] for each, k in behind.values])
        if behind.correlation is None:
            known = correlations(drawn, behind.otherwise)
        else:
            known = behind.correlation + (1 - behind.correlation) * np.eye(len(values))
        cases = np.array([self._cases_of(each)[k] for each, k in behind.values])
        return _plain(*mean_limits(values, np.array(low), np.array(high), known, cases, self._confidence))

    def method(self, name: str) -> str:
        """Return how an interval is made, of `METHODS`."""
        behind = self._counted.overall.get(name)
        if behind is None:
            return RESAMPLED
        if behind.losses is not None:
            return SKEWED
        if len(behind.values) > 1:
            return MEAN
        trials = self._counted.per_class[behind.values[0][0]] if behind.values else behind.trials
        return SHARE if trials is None or trials.effective is None else EFFECTIVE

    def _of_share(self, name: str, behind: Behind, trials: Trials) -> Interval | None:
        """Return the interval of a metric that is itself like a share, after its values are brought to 0 to 1."""
        lowest = behind.lowest
        values, drawn = (
            (each - lowest) / (1 - lowest) for each in (self._point.overall[name][:1], self._drawn.overall[name][None])
        )
        low, high = share_limits(values, drawn, trials, self._confidence)
        return _plain(*(float(end[0]) * (1 - lowest) + lowest for end in (low, high)))

    def _of_class(self, name: str, k: int) -> tuple[float, float]:
        low, high = self._of_shares(name)
        return float(low[k]), float(high[k])

    def _losses(self, losses: Floats, strata: npt.NDArray[np.int64]) -> tuple[Floats, npt.NDArray[np.int64]]:
        """Return what was drawn: cases within strata, or whole groups."""
        clusters = self._counted.clusters
        if clusters is None:
            return losses, strata
        return clusters.means(losses), np.zeros(clusters.count, dtype=np.int64)

    def _cases_of(self, name: str) -> Floats:
        """Return of how many cases the values of the classes are shares."""
        trials = self._counted.per_class[name]
        if trials.groups is None:
            return trials.cases
        values, drawn = self._point.per_class[name][:, 0], self._drawn.per_class[name]
        return cases_of(values, drawn, trials, self._confidence)

    def _of_shares(self, name: str) -> tuple[Floats, Floats]:
        if name not in self._classes:
            values, drawn = self._point.per_class[name][:, 0], self._drawn.per_class[name]
            self._classes[name] = share_limits(values, drawn, self._counted.per_class[name], self._confidence)
        return self._classes[name]


def percentiles(value: float, resampled: Floats, confidence: float) -> Interval | None:
    """Return the bias-corrected percentile interval of a metric.

    None if the metric is undefined, or all resamples agree: then they say nothing of how far off it may be.

    Args:
        value: The metric.
        resampled: (B,) that of the resamples.
        confidence: Share of them that the interval holds.
    """
    defined = resampled[~np.isnan(resampled)]
    if np.isnan(value) or not len(defined) or np.ptp(defined) <= _SAME:
        return None
    below = (defined < value).mean() + (defined == value).mean() / 2
    edge = 1 / (len(defined) + 1)
    bias = ndtri(np.clip(below, edge, 1 - edge))
    ends = ndtr(2 * bias + ndtri([(1 - confidence) / 2, (1 + confidence) / 2]))
    low, high = np.quantile(defined, ends)
    return float(low), float(high)


def _plain(low: float, high: float) -> Interval | None:
    return None if np.isnan(low) or np.isnan(high) else (float(low), float(high))
