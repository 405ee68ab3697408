"""The metrics that a run reports, in float64 through scikit-learn."""

from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score, roc_auc_score

from visionforge.config.schema import Task

Array = npt.NDArray[Any]


def predicted_labels(probabilities: Array, task: Task) -> npt.NDArray[np.int64]:
    """Return the most probable class (N,), or for multi-label data the labels (N, K) above 0.5."""
    if task == "multi-label":
        return np.asarray(probabilities > 0.5, dtype=np.int64)
    return np.asarray(probabilities.argmax(axis=1), dtype=np.int64)


def classification_metrics(probabilities: Array, labels: Array, task: Task) -> dict[str, float | None]:
    """Return accuracy, AUC, macro-F1 and balanced accuracy.

    Accuracy and AUC follow MedMNIST's own definition (Yang et al., 2023): AUC is one-vs-rest averaged over the
    classes, for two classes that of class 1; multi-label accuracy is averaged over the labels at the threshold 0.5.
    A class of which `labels` hold no case, or nothing but cases, has no AUC and is left out of the average; a value
    that is undefined altogether is None.

    Args:
        probabilities: (N, K).
        labels: (N,) classes, or (N, K) 0/1 for multi-label data.
        task: Kind of labels.
    """
    predicted = predicted_labels(probabilities, task)
    if task == "multi-label":
        columns = range(labels.shape[1])
        recalls = [balanced_accuracy_score(labels[:, k], predicted[:, k]) for k in columns if _rankable(labels[:, k])]
        return {
            "accuracy": float((predicted == labels).mean()),
            "auc": _macro_auc(labels, probabilities),
            "f1_macro": float(f1_score(labels, predicted, average="macro", zero_division=0)),
            "balanced_accuracy": float(np.mean(recalls)) if recalls else None,
        }
    return {
        "accuracy": float(accuracy_score(labels, predicted)),
        "auc": _macro_auc(np.eye(probabilities.shape[1], dtype=np.int64)[labels], probabilities),
        "f1_macro": float(f1_score(labels, predicted, average="macro", zero_division=0)),
        "balanced_accuracy": _balanced_accuracy(labels, predicted),
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
