"""Metrics of labels: whole images, and decisions at the thresholds of the validation split."""

from collections.abc import Callable

import numpy as np

from visionforge.config.schema.metrics import Compute, Metric, register_metric
from visionforge.scoring.behind import means, share
from visionforge.scoring.cases import Cases, Weighted
from visionforge.scoring.limits import Behind
from visionforge.scoring.rates import Floats, mean


def _all_right(cases: Cases) -> Floats:
    return np.asarray((cases.predicted == cases.labels).all(axis=1), dtype=np.float64)


def _exact_match(weighted: Weighted) -> Floats:
    """Share of the images of which all labels are right."""
    cases = weighted.cases
    return np.asarray(_all_right(cases) @ weighted.weights / weighted.total)


def _f1_macro_tuned(weighted: Weighted) -> Floats | None:
    """Mean F1 of the labels at their thresholds."""
    return None if weighted.tuned_rates is None else mean(weighted.tuned_rates["f1"])


def _balanced_accuracy_tuned(weighted: Weighted) -> Floats | None:
    """Mean of (sensitivity + specificity) / 2 at the thresholds."""
    rates = weighted.tuned_rates
    return None if rates is None else mean((rates["sensitivity"] + rates["specificity"]) / 2)


def _sensitivity_tuned(weighted: Weighted) -> Floats | None:
    """Mean sensitivity of the labels at their thresholds."""
    return None if weighted.tuned_rates is None else mean(weighted.tuned_rates["sensitivity"])


def _specificity_tuned(weighted: Weighted) -> Floats | None:
    """Mean specificity of the labels at their thresholds."""
    return None if weighted.tuned_rates is None else mean(weighted.tuned_rates["specificity"])


def _add(compute: Compute, name: str, label: str, behind: Callable[[Weighted], Behind | None]) -> None:
    metric = Metric(
        behind=behind,
        name=name,
        label=label,
        compute=compute,
        tasks=("labels",),
        every_epoch=False,
        shared=True,
        position=40,
    )
    register_metric(metric)


_add(_exact_match, "exact_match", "all labels right", share(_all_right))
_add(_f1_macro_tuned, "f1_macro_tuned", "macro-F1, tuned thresholds", means("f1_tuned"))
_add(
    _balanced_accuracy_tuned,
    "balanced_accuracy_tuned",
    "balanced accuracy, tuned",
    means("sensitivity_tuned", "specificity_tuned"),
)
_add(_sensitivity_tuned, "sensitivity_tuned", "sensitivity, tuned", means("sensitivity_tuned"))
_add(_specificity_tuned, "specificity_tuned", "specificity, tuned", means("specificity_tuned"))
