"""Boxes with their truth, and what weightings of the pictures have in common, however many metrics ask."""

from functools import cached_property

import numpy as np

from visionforge.scoring.assignment import NONE, Flags, matched
from visionforge.scoring.boxes import Detections, WeightedBoxes, detections
from visionforge.scoring.rates import Array, Floats

SCORE_THRESHOLD = 0.5  # from which on a box counts in precision, recall and F1, and is drawn
IOU = 0.5  # from which on a predicted box and a true one are the same object, in these


class BoxCases:
    """Boxes of N pictures and their truth.

    Args:
        labels: (N, M, 5) rows [class, x1, y1, x2, y2] in pixels; class -1 in rows without a box.
        predicted: (N, D, 6) rows [class, score, x1, y1, x2, y2], the same.
        classes: Number of classes K.

    Attributes:
        labels: As given.
        predicted: As given.
        probabilities: None: scores stand in the rows.
    """

    probabilities = None

    def __init__(self, labels: Array, predicted: Array, classes: int) -> None:
        self.labels = labels
        self.predicted = predicted
        self.classes = classes

    @cached_property
    def found(self) -> Detections:
        """Return what the predicted boxes find."""
        return detections(self.labels, self.predicted, self.classes)

    @cached_property
    def sure(self) -> Array:
        """Return (N, D, 6) the predicted boxes without those whose score is below 0.5."""
        kept = self.predicted.copy()
        kept[kept[..., 1] < SCORE_THRESHOLD, 0] = NONE
        return kept

    @cached_property
    def verdicts(self) -> tuple[Flags, Flags]:
        """Return which of `sure` are right, (N, D), and which true boxes they miss, (N, M), at IoU 0.5."""
        return matched(self.labels, self.sure, IOU)

    @cached_property
    def f1(self) -> Floats:
        """Return (N,) F1 of each picture at score 0.5 and IoU 0.5; NaN where nothing is and nothing is predicted."""
        right, missed = self.verdicts
        hits = right.sum(axis=1)
        said = (self.sure[..., 0] != NONE).sum(axis=1)
        total = said + hits + missed.sum(axis=1)
        with np.errstate(invalid="ignore"):
            return np.asarray(np.where(total > 0, 2 * hits / total, np.nan), dtype=np.float64)


class WeightedBoxCases(WeightedBoxes):
    """B weightings of pictures, and what several metrics need of them.

    Args:
        cases: The pictures.
        weights: (N, B), how often each picture counts.
    """

    def __init__(self, cases: BoxCases, weights: Floats) -> None:
        super().__init__(cases.found, weights, SCORE_THRESHOLD)
        self.cases = cases
        self.weights = weights

    @property
    def per_class(self) -> dict[str, Floats]:
        """Return name → (K, B) of everything that is told of each class."""
        return {
            "ap": self.average_precision,
            "ap_50": self.average_precision_50,
            "precision": self.precision,
            "recall": self.recall,
            "f1": self.f1,
        }
