"""The metrics that a run reports, in float64 through scikit-learn."""

from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score, roc_auc_score

from visionforge.config.schema import Task

Array = npt.NDArray[Any]


def predicted_labels(probabilities: Array, task: Task, thresholds: Array | None = None) -> npt.NDArray[np.int64]:
    """Return the most probable class (N,), or for multi-label data the labels (N, K) above their thresholds, or 0.5."""
    if task == "multi-label":
        return np.asarray(probabilities > (0.5 if thresholds is None else thresholds), dtype=np.int64)
    return np.asarray(probabilities.argmax(axis=1), dtype=np.int64)


def classification_metrics(
    probabilities: Array, labels: Array, task: Task, thresholds: Array | None = None
) -> dict[str, float | None]:
    """Return accuracy, AUC, macro-F1 and balanced accuracy.

    Accuracy and AUC follow MedMNIST's own definition (Yang et al., 2023): AUC is one-vs-rest averaged over the
    classes, for two classes that of class 1; multi-label accuracy is averaged over the labels at the threshold 0.5.
    A class of which `labels` hold no case, or nothing but cases, has no AUC and is left out of the average; a value
    that is undefined altogether is None.

    Args:
        probabilities: (N, K).
        labels: (N,) classes, or (N, K) 0/1 for multi-label data.
        task: Kind of labels.
        thresholds: (K,) of multi-label data; F1 and balanced accuracy at these are added as `f1_macro_tuned` and
            `balanced_accuracy_tuned`.
    """
    predicted = predicted_labels(probabilities, task)
    if task == "multi-label":
        metrics = {
            "accuracy": float((predicted == labels).mean()),
            "auc": _macro_auc(labels, probabilities),
            **_label_metrics(labels, predicted),
        }
        if thresholds is not None:
            tuned = _label_metrics(labels, predicted_labels(probabilities, task, thresholds))
            metrics |= {f"{name}_tuned": value for name, value in tuned.items()}
        return metrics
    return {
        "accuracy": float(accuracy_score(labels, predicted)),
        "auc": _macro_auc(np.eye(probabilities.shape[1], dtype=np.int64)[labels], probabilities),
        "f1_macro": float(f1_score(labels, predicted, average="macro", zero_division=0)),
        "balanced_accuracy": _balanced_accuracy(labels, predicted),
    }


def _label_metrics(labels: Array, predicted: Array) -> dict[str, float | None]:
    """Return F1 and balanced accuracy averaged over the labels; the latter over those that have cases of both kinds."""
    columns = [k for k in range(labels.shape[1]) if _rankable(labels[:, k])]
    recalls = [balanced_accuracy_score(labels[:, k], predicted[:, k]) for k in columns]
    return {
        "f1_macro": float(f1_score(labels, predicted, average="macro", zero_division=0)),
        "balanced_accuracy": float(np.mean(recalls)) if recalls else None,
    }


def _balanced_accuracy(labels: Array, predicted: Array) -> float:
    """Return the mean recall over the classes that occur in `labels`."""
    return float(np.mean([(predicted[labels == k] == k).mean() for k in np.unique(labels)]))


def _rankable(column: Array) -> bool:
    return 0 < int(column.sum()) < len(column)


def _macro_auc(truth: Array, probabilities: Array) -> float | None:
    columns = [k for k in range(truth.shape[1]) if _rankable(truth[:, k])]
    if not columns:
        return None
    return float(np.mean([roc_auc_score(truth[:, k], probabilities[:, k]) for k in columns]))
