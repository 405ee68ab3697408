"""Metrics of labels: whole images, and decisions at the thresholds of the validation split."""

import numpy as np

from visionforge.config.schema.metrics import Compute, Metric, register_metric
from visionforge.scoring.cases import Weighted
from visionforge.scoring.rates import Floats, mean


def _exact_match(weighted: Weighted) -> Floats:
    """Share of the images of which all labels are right."""
    cases = weighted.cases
    right = (cases.predicted == cases.labels).all(axis=1).astype(np.float64)
    return np.asarray(right @ weighted.weights / weighted.total)


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


def _add(compute: Compute, name: str, label: str) -> None:
    metric = Metric(
        name=name,
        label=label,
        compute=compute,
        tasks=("labels",),
        every_epoch=False,
        shared=True,
        position=40,
    )
    register_metric(metric)


_add(_exact_match, "exact_match", "all labels right")
_add(_f1_macro_tuned, "f1_macro_tuned", "macro-F1, tuned thresholds")
_add(_balanced_accuracy_tuned, "balanced_accuracy_tuned", "balanced accuracy, tuned")
_add(_sensitivity_tuned, "sensitivity_tuned", "sensitivity, tuned")
_add(_specificity_tuned, "specificity_tuned", "specificity, tuned")
