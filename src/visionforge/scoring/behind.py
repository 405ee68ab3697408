"""What the confidence limits of this package's metrics follow from; see `visionforge.scoring.limits.Behind`."""

from collections.abc import Callable

import numpy as np

from visionforge.scoring.cases import Cases, Weighted
from visionforge.scoring.limits import Behind, Trials
from visionforge.scoring.rates import Array, Floats

LEAST_WRONG, LEAST_CASES, LEAST_GROUPS = (
    3,
    30,
    10,
)  # without which losses of cases tell too little of how large they can be


def share(right: Callable[[Cases], Array]) -> Callable[[Weighted], Behind]:
    """Return what says that a metric is a share of the cases.

    Args:
        right: Returns (N,) which cases it counts; of labels (N, K) which of each.
    """

    def behind(weighted: Weighted) -> Behind:
        found = np.asarray(right(weighted.cases), dtype=np.float64)
        total = weighted.total[:1]
        each = None if found.ndim == 1 else total * found.shape[1]  # between the cases and all of their labels
        return Behind(
            trials=_drawn(weighted, Trials(total, each)),
            right=np.atleast_2d(found if found.ndim == 1 else found.mean(axis=1)),
        )

    return behind


def _drawn(weighted: Weighted, trials: Trials) -> Trials:
    """Return the same of cases that may have been drawn in whole groups."""
    clusters = weighted.cases.clusters
    if clusters is None:
        return trials
    every = np.ones((len(weighted.cases.labels), 1))
    least = trials.cases * clusters.least_effective(every) / weighted.total[0]
    most = trials.cases if trials.effective is None else trials.effective
    return Trials(least, most, groups=clusters.present(every))


def hits(cases: Cases) -> Array:
    """Return (N,) which classes are right; of labels (N, K)."""
    return np.asarray(cases.predicted == cases.labels)


def agreement(weighted: Weighted) -> Behind:
    """Return that a metric, from -1 to 1, varies about as twice a share of as many cases as classes of this size have.

    The size is the harmonic mean of those of the classes, because the rarest classes decide.
    """
    support, total = weighted.support[:, 0], weighted.total[0]
    if weighted.cases.of_labels:  # each label stands for itself
        both = np.stack([support, total - support], axis=1)
        both = both[(both > 0).all(axis=1)]
    else:
        both = support[support > 0][None]
    if not both.size:
        return Behind()
    cases = np.array([float((both.shape[1] ** 2 / (1 / both).sum(axis=1)).mean())])
    return Behind(trials=_drawn(weighted, Trials(cases, cases)), lowest=-1.0)


def losses(compute: Callable[[Cases], Floats]) -> Callable[[Weighted], Behind]:
    """Return what says that a metric is the mean of a loss of each case."""

    def behind(weighted: Weighted) -> Behind:
        cases = weighted.cases
        wrong = int(_wrong(cases).sum())
        few = wrong < LEAST_WRONG or len(cases.labels) < LEAST_CASES
        if cases.clusters is not None:
            few = few or cases.clusters.count < LEAST_GROUPS
        strata = np.zeros(len(cases.labels), np.int64) if cases.of_labels else cases.labels
        return Behind(losses=compute(cases), few=few, wrong=wrong, strata=strata)

    return behind


def means(*names: str, biased: bool = False) -> Callable[[Weighted], Behind | None]:
    """Return what says that a metric is the mean over the classes or labels of which all these values are defined.

    Args:
        names: The values.
        biased: Of few cases all are too high, so they err together.
    """

    def behind(weighted: Weighted) -> Behind | None:
        if not set(names) <= set(weighted.per_class):
            return None
        found = np.stack([weighted.per_class[name][:, 0] for name in names])
        defined = ~np.isnan(found).any(axis=0)
        if not weighted.cases.of_labels:
            defined &= weighted.support[:, 0] > 0
        values = tuple((name, int(k)) for name in names for k in np.flatnonzero(defined))
        of_labels = weighted.cases.of_labels
        apart = names == ("sensitivity",) and not of_labels  # recalls of classes are of other cases
        cases = weighted.cases
        known = None if cases.clusters is not None else 0.0 if apart else 1.0 if biased else None
        return Behind(
            values, known, 1.0 if of_labels else 0.0, right=_right(cases, values), wrong=int(_wrong(cases).sum())
        )

    return behind


def positive_or_means(name: str, biased: bool = False) -> Callable[[Weighted], Behind | None]:
    """Return the same of one value, but of two classes that of the one that is to be found."""

    def behind(weighted: Weighted) -> Behind | None:
        if weighted.cases.task.has_positive:
            values = ((name, weighted.cases.positive),)
            cases = weighted.cases
            return Behind(values, right=_right(cases, values), wrong=int(_wrong(cases).sum()))
        return means(name, biased=biased)(weighted)

    return behind


def _wrong(cases: Cases) -> Array:
    """Return (N,) whether a decision about a case is wrong, of labels any."""
    wrong = np.asarray(cases.predicted != cases.labels)
    return np.asarray(wrong.any(axis=1)) if cases.of_labels else wrong


def _right(cases: Cases, values: tuple[tuple[str, int], ...]) -> Floats | None:
    """Return (P, N) which cases of each sensitivity or specificity are right; None if a value is something else."""
    if not values or any(name.partition("_")[0] not in ("sensitivity", "specificity") for name, _ in values):
        return None
    rows = []
    for name, k in values:
        predicted = cases.tuned if name.endswith("_tuned") else cases.predicted
        assert predicted is not None
        said, true = (each[:, k] > 0 if cases.of_labels else each == k for each in (predicted, cases.labels))
        of_it = true if name.startswith("sensitivity") else ~true
        rows.append(np.where(of_it, said == true, np.nan))
    return np.stack(rows)


def recalls(weighted: Weighted) -> Behind | None:
    """Return that a metric is the mean recall of the classes; of labels, that of both of their sides."""
    names = ("sensitivity", "specificity") if weighted.cases.of_labels else ("sensitivity",)
    return means(*names)(weighted)
