"""What people call the metrics."""

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
SAME_RESAMPLES = "–: no interval, all resamples agree."


def metric_name(name: str, positive: str | None) -> str:
    """Return what a metric is called, with the class that it is about.

    Args:
        name: Its key in `METRICS`.
        positive: The positive class of a binary task; None for other tasks.

    >>> metric_name("sensitivity", "malignant"), metric_name("auc", "malignant")
    ('sensitivity of malignant', 'AUC')
    """
    return METRICS[name] if positive is None or name not in OF_POSITIVE else f"{METRICS[name]} of {positive}"
