"""The metrics of one set of predictions, and accuracy and AUC as MedMNIST's evaluator defines them."""

from typing import Any

import numpy as np
import numpy.typing as npt

from visionforge.config.schema import TaskName
from visionforge.config.schema.tasks import task_named
from visionforge.evaluation.bootstrap import estimate
from visionforge.evaluation.scores import Scorer

Array = npt.NDArray[Any]


def classification_metrics(
    probabilities: Array, labels: Array, task: TaskName, thresholds: Array | None = None, positive: int = 1
) -> dict[str, float | None]:
    """Return the metrics that `Scorer` describes; one that is undefined is None.

    Args:
        probabilities: (N, K).
        labels: (N,) classes, or (N, K) 0/1 where an image may have several.
        task: Kind of labels.
        thresholds: (K,) of labels; adds the metrics at these.
        positive: Of two classes, the one that is to be found.
    """
    (found,) = estimate([Scorer(probabilities, labels, task, thresholds, positive)], resamples=0)
    return dict(found.overall)


def medmnist_metrics(probabilities: Array, labels: Array, task: TaskName) -> dict[str, float | None]:
    """Return accuracy and AUC as published results of MedMNIST have them (Yang et al., 2023).

    AUC is averaged over all classes one-vs-rest, so it is None if a class has no case; for two classes it is that of
    class 1, which is also that of class 0. The accuracy of labels is averaged over them, at the threshold 0.5.

    Args:
        probabilities: (N, K).
        labels: (N,) classes, or (N, K) 0/1 where an image may have several.
        task: Kind of labels.
    """
    from sklearn.metrics import accuracy_score, roc_auc_score  # half a second

    classes = probabilities.shape[1]
    kind = task_named(task)
    truth = kind.indicators(labels, classes)
    columns = [1] if kind.has_positive else range(classes)
    defined = all(0 < truth[:, k].sum() < len(truth) for k in columns)
    areas = [roc_auc_score(truth[:, k], probabilities[:, k]) for k in columns] if defined else []
    if kind.several:
        accuracy = ((probabilities > 0.5) == (labels > 0)).mean()
    elif kind.has_positive:
        accuracy = accuracy_score(labels, probabilities[:, 1] > 0.5)
    else:
        accuracy = (probabilities.argmax(axis=1) == labels).mean()
    return {"accuracy": float(accuracy), "auc": float(np.mean(areas)) if defined else None}
