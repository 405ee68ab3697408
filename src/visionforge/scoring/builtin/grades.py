"""Metrics of classes with an order: how far off a grade is."""

from collections.abc import Callable

import numpy as np

from visionforge.config.schema.metrics import Compute, Metric, register_metric
from visionforge.scoring.behind import agreement, losses, share
from visionforge.scoring.cases import Cases, Weighted
from visionforge.scoring.limits import Behind
from visionforge.scoring.rates import Floats


def _distance(weighted: Weighted) -> Floats:
    """Return (K, K, 1) grades between truth and prediction."""
    grades = np.arange(weighted.cases.classes)
    return np.asarray(np.abs(grades[:, None] - grades[None])[..., None], dtype=np.float64)


def _kappa_quadratic(weighted: Weighted) -> Floats:
    """Cohen's kappa (1968) with quadratic weights."""
    squared, confusion = _distance(weighted) ** 2, weighted.confusion
    by_chance = np.einsum("ib,jb->ijb", weighted.support, weighted.said) / weighted.total
    with np.errstate(divide="ignore", invalid="ignore"):
        expected = (squared * by_chance).sum(axis=(0, 1))
        kappa = 1 - (squared * confusion).sum(axis=(0, 1)) / expected
    return np.where(expected > 0, kappa, np.nan)


def _grades_off(cases: Cases) -> Floats:
    return np.asarray(np.abs(cases.predicted - cases.labels), dtype=np.float64)


def _mae(weighted: Weighted) -> Floats:
    """Mean absolute error in grades."""
    return np.asarray((_distance(weighted) * weighted.confusion).sum(axis=(0, 1)) / weighted.total)


def _off_by_one(weighted: Weighted) -> Floats:
    """Share that is at most one grade off."""
    return np.asarray(((_distance(weighted) <= 1) * weighted.confusion).sum(axis=(0, 1)) / weighted.total)


def _add(
    compute: Compute,
    name: str,
    label: str,
    behind: Callable[[Weighted], Behind],
    higher: bool = True,
) -> None:
    metric = Metric(
        behind=behind,
        name=name,
        label=label,
        compute=compute,
        higher_is_better=higher,
        tasks=("grades",),
        every_epoch=False,
        shared=True,
        position=30,
    )
    register_metric(metric)


_add(_kappa_quadratic, "kappa_quadratic", "quadratic kappa", agreement)
_add(_mae, "mae", "mean absolute error, grades", losses(_grades_off), higher=False)
_add(_off_by_one, "off_by_one", "at most one grade off", share(lambda cases: _grades_off(cases) <= 1))
