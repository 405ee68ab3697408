"""Confidence limits that stay open at 0 and 1, where resampling sees no error and so no uncertainty.

- A share of cases (sensitivity, precision, accuracy, …) has the exact binomial limits of Clopper and Pearson (1934,
  Biometrika 26:404). F1 is a function of one: 2J / (1 + J), J being the share of right cases among those that are of
  the class or said to be.
- AUC, average precision, MCC and kappa are no shares, but vary like the share of an effective number of cases (Korn and
  Graubard, 1998, Survey Methodology 24:193): that of which a share would vary as much as the metric does over
  resamples, and no more than there are behind it. At 0 and 1 all of these count.
- The mean of a loss of each case (Brier score, log loss, mean absolute error) has those of Student's t, corrected for
  its skewness (Hall, 1992, Journal of the Royal Statistical Society B 54:221). Without a few wrong cases nobody knows
  how large losses can be, and there are none. The difference of two models has those of Student's t.
- The mean of such values has limits that follow from theirs and from their correlation over resamples (Zou and Donner,
  2008, Statistics in Medicine 27:1693), and reach at least as far as those of a share of all of their cases: the few
  mistakes of many classes say more together than one by one.
- The difference of two shares of the same cases has those of Bonett and Price (2012, Journal of Educational and
  Behavioral Statistics 37:479): two more cases, of which each model has one right that the other has not.

`benchmarks/coverage.py` simulates how often such limits hold the truth.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import betaincinv, stdtrit

from visionforge.scoring.clusters import Clusters, narrowed
from visionforge.scoring.rates import Floats

_SAME = 1e-12  # values that differ by less are the same
_LITTLE = 1e-9  # skewness of which nothing needs to be corrected


@dataclass(frozen=True)
class Trials:
    """Of how many cases values are shares, one number for each value.

    Attributes:
        cases: Number of cases; values without any are undefined.
        effective: Most effective cases where a value is neither 0 nor 1; None: it is a share of `cases` itself.
        jaccard: The values are F1, and `cases` those of a class or said to be.
        groups: In how many groups, which were drawn whole, these cases are; None: they were drawn one by one. `cases`
            are then those that there are at least, if all of a group are right or wrong.
        least_paired: Fewest cases of which the difference of two models is told.
        least_wrong: Fewest wrong decisions of one of them, for the same: otherwise very few cases decide about it.
    """

    cases: Floats
    effective: Floats | None = None
    jaccard: bool = False
    groups: Floats | None = None
    least_paired: int = 2
    least_wrong: int = 0


@dataclass(frozen=True)
class Behind:
    """What the limits of a metric of all classes follow from: values of classes, a share, or losses of cases.

    Attributes:
        values: Names and classes of the values whose mean it is, each as often as the others.
        correlation: Of these values, where it is known; None is that over resamples.
        otherwise: Their correlation where all resamples of one agree.
        trials: Of how many cases it is a share, if it is one.
        lowest: Its value at a share of 0.
        losses: (N,) of which it is the mean, if it is that.
        few: There are too few wrong cases to tell how large losses can be.
        wrong: Number of wrong decisions.
        strata: (N,) groups within which cases were drawn.
        right: (P, N) which cases of each of the shares are right whose mean it is, NaN for a case that is not of one;
            for the difference of two models. None if it is no mean of shares.
    """

    values: tuple[tuple[str, int], ...] = ()
    correlation: float | None = None
    otherwise: float = 1.0
    trials: Trials | None = None
    lowest: float = 0.0
    losses: Floats | None = None
    few: bool = False
    wrong: int = 0
    strata: npt.NDArray[np.int64] | None = None
    right: Floats | None = None


def clopper_pearson(share: Floats, cases: Floats, confidence: float) -> tuple[Floats, Floats]:
    """Return lower and upper limits of shares; numbers of cases may be fractions.

    Args:
        share: Shares, 0 to 1, of any shape.
        cases: Of how many cases each is a share; NaN limits where it is 0.
        confidence: Least share of samples of which the limits hold the truth.

    >>> import numpy as np
    >>> low, high = clopper_pearson(np.array([1.0, 0.5]), np.array([40.0, 40.0]), 0.95)
    >>> low.round(4).tolist(), high.round(4).tolist()
    ([0.9119, 0.338], [1.0, 0.662])
    """
    tail = (1 - confidence) / 2
    hits = share * cases
    with np.errstate(invalid="ignore", divide="ignore"):
        misses = np.maximum(cases - hits, 0.0)
        low = np.where(hits > _SAME, betaincinv(np.maximum(hits, _SAME), misses + 1, tail), 0.0)
        high = np.where(misses > _SAME, betaincinv(hits + 1, np.maximum(misses, _SAME), 1 - tail), 1.0)
    unknown = ~(cases > 0) | np.isnan(share)
    return np.where(unknown, np.nan, low), np.where(unknown, np.nan, high)


def share_limits(values: Floats, drawn: Floats, trials: Trials, confidence: float) -> tuple[Floats, Floats]:
    """Return lower and upper limits (K,) of values.

    Args:
        values: (K,), 0 to 1; NaN where undefined.
        drawn: (K, B) the same of resamples, whose variance says how many effective cases there are.
        trials: Of how many cases they are shares.
        confidence: Share of samples of which the limits hold the truth.
    """
    cases = cases_of(values, drawn, trials, confidence)
    if not trials.jaccard:
        return clopper_pearson(values, cases, confidence)
    low, high = clopper_pearson(values / (2 - values), cases, confidence)
    return 2 * low / (1 + low), 2 * high / (1 + high)


def cases_of(values: Floats, drawn: Floats, trials: Trials, confidence: float) -> Floats:
    """Return (K,) of how many effective cases values are shares; see `share_limits`."""
    cases = trials.cases
    if trials.effective is None:
        return cases
    if trials.jaccard:
        values, drawn = values / (2 - values), drawn / (2 - drawn)
    with np.errstate(invalid="ignore", divide="ignore"):
        found = values * (1 - values) / _variance(drawn)
    inside = (values > _SAME) & (values < 1 - _SAME) & np.isfinite(found)
    if trials.groups is None:
        return np.where(inside, np.minimum(found, trials.effective), cases)
    with np.errstate(invalid="ignore", divide="ignore"):
        found = found * (trials.groups - 1) / trials.groups  # resamples of few groups vary less than samples of them
    known = np.where(inside, np.clip(found, cases, np.maximum(cases, trials.effective)), cases)
    return np.asarray(known * narrowed(trials.groups, confidence))


def grouped_cases(right: npt.NDArray[np.bool_], clusters: Clusters, confidence: float) -> float:
    """Return of how many effective cases the share of right ones (N,) is, where groups of them were drawn whole.

    As of `cases_of`, with the variance between groups (Taylor's linearisation) in the place of that over resamples.
    """
    values = right.astype(np.float64)
    share, count = values.mean(), clusters.count
    least = float(clusters.least_effective(np.ones((len(values), 1)))[0])
    variance = float(clusters.means(values).var(ddof=1)) / count if count > 1 else 0.0
    inside = _SAME < share < 1 - _SAME and variance > 0
    found = float(np.clip(share * (1 - share) / variance, least, len(values))) if inside else least
    return found * float(narrowed(np.array([float(count)]), confidence)[0])


def mean_error(losses: Floats, strata: npt.NDArray[np.int64]) -> float:
    """Return the standard error of the mean of losses (N,), of each of whose strata as many were drawn as there are."""
    sizes = np.bincount(strata)
    mean = np.bincount(strata, losses) / np.maximum(sizes, 1)
    squared = np.bincount(strata, (losses - mean[strata]) ** 2)
    return float(np.sqrt((squared * sizes / np.maximum(sizes - 1, 1)).sum())) / len(losses)


def loss_limits(losses: Floats, strata: npt.NDArray[np.int64], confidence: float) -> tuple[float, float]:
    """Return the limits of the mean of losses; NaN where all are the same.

    Args:
        losses: (N,) not below 0.
        strata: (N,) groups from each of which as many were drawn as there are.
        confidence: Share of samples of which the limits hold the truth.
    """
    count, spread, error = len(losses), float(losses.std()), mean_error(losses, strata)
    if count < 2 or not spread > _SAME or not error > 0:
        return np.nan, np.nan
    skewness = float(((losses - losses.mean()) ** 3).mean()) / spread**3 / np.sqrt(count)
    quantile = float(stdtrit(count - 1, (1 + confidence) / 2))
    low, high = (losses.mean() - error * _unskewed(z, skewness) for z in (quantile, -quantile))
    return max(0.0, float(low)), float(high)


def _unskewed(z: float, skewness: float) -> float:
    """Return the value of which Hall's transformation, which takes the skewness out of a mean, is `z`."""
    if abs(skewness) < _LITTLE:
        return z
    return float(3 / skewness * (np.cbrt(1 + skewness * (z - skewness / 6)) - 1))


def mean_limits(
    values: Floats, low: Floats, high: Floats, correlation: Floats, cases: Floats, confidence: float
) -> tuple[float, float]:
    """Return the limits of the mean of P values.

    Args:
        values: (P,).
        low: (P,) lower limits of each.
        high: (P,) upper limits.
        correlation: (P, P) of the values.
        cases: (P,) of which each is a share.
        confidence: Share of samples of which the limits hold the truth.
    """
    count = len(values)
    below, above = (values - low) / count, (high - values) / count
    down, up = (max(0.0, float(each @ correlation @ each)) for each in (below, above))
    mean = float(values.mean())
    with np.errstate(divide="ignore"):  # of no effective case there are no limits
        together = np.array([count**2 / (1 / cases).sum()])
    pooled = clopper_pearson(values.mean(keepdims=True), together, confidence)
    return min(mean - float(np.sqrt(down)), float(pooled[0][0])), max(mean + float(np.sqrt(up)), float(pooled[1][0]))


def paired_error(gaps: Floats, clusters: Clusters | None = None) -> tuple[float, float]:
    """Return the difference of two means of shares, drawn a little towards 0, and its standard error.

    Args:
        gaps: (P, N) by how much a case of a share is more often right by one model than by the other, -1 to 1; NaN is a
            case that is not of the share.
        clusters: Groups of cases that were drawn whole; None: they were drawn one by one.

    >>> import numpy as np
    >>> gap, error = paired_error(np.array([[0.0] * 38]))
    >>> round(gap, 4), round(error, 4)
    (0.0, 0.0354)
    """
    there = ~np.isnan(gaps)
    cases = there.sum(axis=1) + 2  # one more that each has right and the other has not
    shares = np.where(there, gaps, 0.0) / (cases[:, None] * len(gaps))
    each = shares.sum(axis=1)
    least = floor_error(there.sum(axis=1).astype(np.float64)) ** 2
    if clusters is not None:
        effect, variance = design_effect(gaps, clusters)
        return float(each.sum()), float(np.sqrt(least * effect + variance))
    variance = float((shares.sum(axis=0) ** 2).sum()) + least - float((each**2 / cases).sum())
    return float(each.sum()), float(np.sqrt(max(least, variance)))  # shares of the same cases may cancel out


def design_effect(gaps: Floats, clusters: Clusters) -> tuple[float, float]:
    """Return how many times as much a difference of shares varies as if cases had been drawn one by one, and how much.

    At least 1, at most the mean number of cases of a group, which it is where nothing varies that would tell.

    Args:
        gaps: As in `paired_error`.
        clusters: Groups of cases that were drawn whole.
    """
    there = ~np.isnan(gaps)
    cases = np.maximum(there.sum(axis=1), 1)[:, None]
    shares = np.where(there, gaps, 0.0) / (cases * len(gaps))
    apart = (shares - np.where(there, shares.sum(axis=1, keepdims=True) / cases, 0.0)).sum(axis=0)
    alone, few = float((apart**2).sum()), clusters.count / max(1, clusters.count - 1)
    whole = float((clusters.totals(apart) ** 2).sum()) * few
    most = max(1.0, there.shape[1] / clusters.count)
    return (float(np.clip(whole / alone, 1.0, most)) if alone > 0 else most), whole


def floor_error(cases: Floats) -> float:
    """Return the standard error of a mean of shares of so many cases (P,) on which two models agree; see above."""
    return float(np.sqrt((2 / ((cases + 2) * len(cases)) ** 2).sum()))


def correlations(drawn: Floats, unknown: float) -> Floats:
    """Return (P, P) correlations over resamples.

    Args:
        drawn: (P, B) values of resamples; NaN where undefined, which counts as the mean of the others.
        unknown: That of values of which all resamples agree.
    """
    defined = ~np.isnan(drawn)
    mean = np.where(defined, drawn, 0.0).sum(axis=1, keepdims=True) / np.maximum(defined.sum(axis=1, keepdims=True), 1)
    centred: Floats = np.where(defined, drawn - mean, 0.0)
    size: Floats = np.sqrt((centred**2).sum(axis=1))
    varies = size > _SAME * np.sqrt(drawn.shape[1])
    scaled = centred / np.where(varies, size, 1.0)[:, None]
    found: Floats = np.where(varies[:, None] & varies, scaled @ scaled.T, unknown)
    np.fill_diagonal(found, 1.0)
    return found


def _variance(drawn: Floats) -> npt.NDArray[np.float64]:
    """Return (K,) variances over the resamples of which a value is defined; NaN if there are fewer than two."""
    defined = ~np.isnan(drawn)
    count = defined.sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.where(defined, drawn, 0.0).sum(axis=1) / count
        squared = np.where(defined, drawn - mean[:, None], 0.0) ** 2
        found: Floats = squared.sum(axis=1) / (count - 1)
    return np.asarray(np.where(count > 1, found, np.nan))
