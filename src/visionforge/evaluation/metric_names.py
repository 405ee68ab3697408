"""What people call the metrics, and how their intervals are written."""

from collections.abc import Mapping, Sequence
from typing import Any

METRICS: dict[str, str] = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "auc": "AUC",
    "average_precision": "average precision",
    "f1_macro": "macro-F1",
    "sensitivity": "sensitivity",
    "specificity": "specificity",
    "mcc": "MCC",
    "kappa_quadratic": "quadratic kappa",
    "mae": "mean absolute error, grades",
    "off_by_one": "at most one grade off",
    "exact_match": "all labels right",
    "f1_macro_tuned": "macro-F1, tuned thresholds",
    "balanced_accuracy_tuned": "balanced accuracy, tuned",
    "sensitivity_tuned": "sensitivity, tuned",
    "specificity_tuned": "specificity, tuned",
    "brier": "Brier score",
    "log_loss": "log loss",
    "ece": "calibration error (ECE)",
    "loss": "loss",
}
PER_CLASS: dict[str, str] = {
    "auc": "AUC",
    "average_precision": "average precision",
    "f1": "F1",
    "sensitivity": "sensitivity",
    "specificity": "specificity",
    "precision": "precision",
    "f1_tuned": "F1, tuned",
    "sensitivity_tuned": "sensitivity, tuned",
    "specificity_tuned": "specificity, tuned",
    "precision_tuned": "precision, tuned",
}
READINGS: dict[str, str] = {"without_tta": "image alone", "with_tta": "with TTA"}
OF_POSITIVE = ("sensitivity", "specificity", "average_precision")  # of two classes they depend on which is positive
NO_INTERVAL = "–"
ALL_AGREE = f"{NO_INTERVAL} no interval: all resamples agree"


def metric_name(name: str, positive: str | None) -> str:
    """Return what a metric is called, with the class that it is about.

    Args:
        name: Its key in `METRICS`.
        positive: The positive class of a binary task; None for other tasks.

    >>> metric_name("sensitivity", "malignant"), metric_name("auc", "malignant")
    ('sensitivity of malignant', 'AUC')
    """
    return METRICS[name] if positive is None or name not in OF_POSITIVE else f"{METRICS[name]} of {positive}"


def interval_text(ends: Sequence[float] | None, value: object, joint: str = " to ") -> str:
    """Return an interval as text: `NO_INTERVAL` where there is a value, and all resamples agree on it.

    Args:
        ends: Low and high end, or None.
        value: What it is of; None if it is undefined.
        joint: What stands between the ends.

    >>> interval_text((0.25, 0.75), 0.5), interval_text(None, 1.0), interval_text(None, None)
    ('0.250 to 0.750', '–', '')
    """
    if ends is None:
        return "" if value is None else NO_INTERVAL
    return f"{ends[0]:.3f}{joint}{ends[1]:.3f}"


def partial_text(content: Mapping[str, Any]) -> str:
    """Return a line that says how much of a split was evaluated.

    Args:
        content: What `metrics.json` has under `partial`; it may come from a stranger.

    >>> partial_text({"images": 60, "of": 156, "reason": "trainer.limit_test_batches 0.5"})
    '60 of 156 images only (trainer.limit_test_batches 0.5)'
    """
    return f"{content.get('images')} of {content.get('of')} images only ({content.get('reason')})"
