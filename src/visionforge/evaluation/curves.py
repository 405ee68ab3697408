"""The points of ROC, precision-recall and reliability curves."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from visionforge.config.schema import TaskName
from visionforge.config.schema.tasks import task_named
from visionforge.data.info import TaskSpec
from visionforge.scoring.builtin.probabilities import ECE_BINS, bin_of
from visionforge.scoring.decisions import predicted_labels

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]
POINTS = 300  # of a curve in a picture; more cannot be told apart


def class_columns(labels: Array, spec: TaskSpec) -> list[tuple[int, Array]]:
    """Return (class, truth (N,) 0/1) of every class with a curve: the positive of two, others with cases of both kinds.

    Args:
        labels: (N,), or (N, K) 0/1.
        spec: The task.
    """
    classes = len(spec.classes)
    truth = spec.kind.indicators(labels, classes)
    wanted = [spec.positive_index] if spec.kind.has_positive else range(classes)
    return [(k, truth[:, k]) for k in wanted if 0 < truth[:, k].sum() < len(truth)]


def roc_points(truth: Array, scores: Array) -> tuple[Floats, Floats]:
    """Return false-positive and true-positive rates, rising."""
    from sklearn.metrics import roc_curve  # half a second

    false, true, _ = roc_curve(truth, scores)
    return _thinned(false, true)


def precision_recall_points(truth: Array, scores: Array) -> tuple[Floats, Floats]:
    """Return recall, rising and above 0, and precision."""
    from sklearn.metrics import precision_recall_curve

    precision, recall, _ = precision_recall_curve(truth, scores, drop_intermediate=True)
    found = recall[::-1] > 0  # where nothing is reported, precision is a convention
    return _thinned(recall[::-1][found], precision[::-1][found])


def _thinned(x: Floats, y: Floats) -> tuple[Floats, Floats]:
    if len(x) <= POINTS:
        return x, y
    kept = np.unique(np.linspace(0, len(x) - 1, POINTS).round().astype(np.int64))
    return x[kept], y[kept]


@dataclass(frozen=True)
class Reliability:
    """How often statements of about equal sureness are right.

    Attributes:
        confidence: (B,) mean probability in each bin that holds any.
        frequency: (B,) share of them that is true.
        count: (B,) number of statements.
    """

    confidence: Floats
    frequency: Floats
    count: npt.NDArray[np.int64]


def reliability(probabilities: Array, labels: Array, task: TaskName, decided_on: Array | None = None) -> Reliability:
    """Return the reliability curve over 15 equally wide bins: of the predicted class, or of all labels together.

    Args:
        probabilities: (N, K).
        labels: (N,), or (N, K) 0/1.
        task: Kind of labels.
        decided_on: (N, K) probabilities that the predictions follow; None is `probabilities`.
    """
    predicted = predicted_labels(probabilities if decided_on is None else decided_on, task)
    sure, right = (each.ravel() for each in task_named(task).statements(probabilities, predicted, labels))
    bins = bin_of(sure)
    count = np.bincount(bins, minlength=ECE_BINS)
    held = count > 0
    sums = (np.bincount(bins, values, ECE_BINS)[held] for values in (sure, right.astype(np.float64)))
    confidence, frequency = (total / count[held] for total in sums)
    return Reliability(confidence, frequency, count[held])
