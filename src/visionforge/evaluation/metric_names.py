"""What people call the metrics, and how their intervals are written."""

from collections.abc import Mapping, Sequence
from typing import Any

from visionforge.config.schema.metrics import metrics
from visionforge.evaluation.intervals import METHODS

_LOSS = {"loss": "loss"}  # of the images alone, beside the metrics
PER_CLASS: dict[str, str] = {
    "auc": "AUC",
    "average_precision": "average precision",
    "ap": "AP",
    "ap_50": "AP at IoU 0.5",
    "f1": "F1",
    "sensitivity": "sensitivity",
    "specificity": "specificity",
    "precision": "precision",
    "recall": "recall",
    "f1_tuned": "F1, tuned",
    "sensitivity_tuned": "sensitivity, tuned",
    "specificity_tuned": "specificity, tuned",
    "precision_tuned": "precision, tuned",
    "dice": "Dice",
    "iou": "IoU",
    "dice_by_picture": "Dice, by picture",
    "iou_by_picture": "IoU, by picture",
    "boundary_f1": "boundary F1",
}
_PRINTED = (  # of this package's; the others are in metrics.json and in the report
    "accuracy",
    "auc",
    "f1_macro",
    "balanced_accuracy",
    "sensitivity",
    "specificity",
    "kappa_quadratic",
    "mae",
    "f1_macro_tuned",
    "balanced_accuracy_tuned",
    "mean_dice",
    "mean_iou",
    "pixel_accuracy",
    "mean_dice_by_picture",
    "mean_boundary_f1",
    "map",
    "map_50",
    "map_75",
    "mar_100",
)
READINGS: dict[str, str] = {"without_tta": "image alone", "with_tta": "with TTA"}
PROVEN = ("accuracy", "auc", "mean_dice", "mean_iou", "map")  # by which an export is compared with its network
NO_INTERVAL = "too few cases"
TOO_FEW = f"{NO_INTERVAL}: they do not tell how far off the value may be"


def labels_of_metrics() -> dict[str, str]:
    """Return name → label of every metric and of the loss, as tables list them: decisions, probabilities, loss."""
    ordered = sorted(metrics().values(), key=lambda metric: metric.of_probabilities)
    return {metric.name: metric.label for metric in ordered} | _LOSS


def printed_metrics() -> list[str]:
    """Return the metrics that a terminal shows of a split: some of this package's, and somebody's own."""
    own = [metric.name for metric in metrics().values() if not metric.shared]
    return [*_PRINTED, *own, "ece", "loss"]


def of_positive(name: str) -> bool:
    """Return whether a metric of two classes depends on which of them is positive."""
    metric = metrics().get(name)
    return metric is not None and metric.of_positive


def metric_name(name: str, positive: str | None) -> str:
    """Return what a metric is called, with the class that it is about.

    Args:
        name: Its key in `metrics.json`.
        positive: Of two classes, the one that is to be found; None for other tasks.

    >>> metric_name("sensitivity", "malignant"), metric_name("auc", "malignant")
    ('sensitivity of malignant', 'AUC')
    """
    label = labels_of_metrics()[name]
    return label if positive is None or not of_positive(name) else f"{label} of {positive}"


def interval_text(ends: Sequence[float] | None, value: object, joint: str = " to ") -> str:
    """Return an interval as text: `NO_INTERVAL` where there is a value, but too few cases tell how far off it may be.

    Args:
        ends: Low and high end, or None.
        value: What it is of; None if it is undefined.
        joint: What stands between the ends.

    >>> interval_text((0.25, 0.75), 0.5), interval_text(None, 1.0), interval_text(None, None)
    ('0.250 to 0.750', 'too few cases', '')
    """
    if ends is None:
        return "" if value is None else NO_INTERVAL
    return f"{ends[0]:.3f}{joint}{ends[1]:.3f}"


def metric_text(found: Mapping[str, Any] | None) -> str:
    """Return mean ± standard deviation over seeds.

    >>> metric_text({"mean": 0.9, "sd": 0.01}), metric_text({"mean": 0.9, "sd": None}), metric_text(None)
    ('0.900 ± 0.010', '0.900', '–')
    """
    if found is None:
        return "–"
    return f"{found['mean']:.3f}" if found["sd"] is None else f"{found['mean']:.3f} ± {found['sd']:.3f}"


def methods_text(methods: Mapping[str, str]) -> str:
    """Return which metrics have intervals of which method, as a sentence.

    Args:
        methods: Name of the metric → name of the method.

    >>> methods_text({"accuracy": "share", "sensitivity": "share", "auc": "effective"})
    'accuracy, sensitivity: Clopper–Pearson; AUC: Clopper–Pearson of the effective number of cases.'
    """
    labels, found = labels_of_metrics(), list(METHODS)
    groups = {name: [labels.get(each, each) for each in methods if methods[each] == name] for name in found}
    return "; ".join(f"{', '.join(each)}: {METHODS[name]}" for name, each in groups.items() if each) + "."


def partial_text(content: Mapping[str, Any]) -> str:
    """Return a line that says how much of a split was evaluated.

    Args:
        content: What `metrics.json` has under `partial`; it may come from a stranger.

    >>> partial_text({"images": 60, "of": 156, "reason": "trainer.limit_test_batches 0.5"})
    '60 of 156 images only (trainer.limit_test_batches 0.5)'
    """
    return f"{content.get('images')} of {content.get('of')} images only ({content.get('reason')})"
