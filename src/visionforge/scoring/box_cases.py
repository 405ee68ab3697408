"""Boxes with their truth, and what weightings of the pictures have in common, however many metrics ask."""

from functools import cached_property

import numpy as np

from visionforge.scoring.assignment import NONE, Boxes, Flags, matched, read_boxes
from visionforge.scoring.boxes import MAX_DETECTIONS, Detections, WeightedBoxes, detections, detections_of
from visionforge.scoring.rates import Array, Floats

SCORE_THRESHOLD = 0.5  # from which on a box counts in precision, recall and F1, and is drawn
IOU = 0.5  # from which on a predicted box and a true one are the same object, in these


class BoxCases:
    """Boxes of N pictures and their truth.

    Args:
        labels: (N, M, 5) rows [class, x1, y1, x2, y2] in pixels; class -1 in rows without a box.
        predicted: (N, D, 6) rows [class, score, x1, y1, x2, y2], the same.
        classes: Number of classes K.
        score_threshold: Least score of a box that counts in precision, recall and F1.
        max_detections: Of each picture and class, that many boxes with the highest scores count.

    Attributes:
        labels: As given.
        predicted: As given.
        probabilities: None: scores stand in the rows.
    """

    probabilities = None

    def __init__(
        self,
        labels: Array,
        predicted: Array,
        classes: int,
        score_threshold: float = SCORE_THRESHOLD,
        max_detections: int = MAX_DETECTIONS,
    ) -> None:
        self.labels = labels
        self.predicted = predicted
        self.classes = classes
        self.score_threshold = score_threshold
        self.max_detections = max_detections

    @classmethod
    def of_boxes(cls, true: Boxes, said: Boxes, count: int, classes: int) -> "BoxCases":
        """Return cases of boxes that do not stand in padded rows, so that few pictures with many cost no memory.

        Args:
            true: The true boxes of all pictures, checked.
            said: The predicted ones.
            count: Number of pictures N.
            classes: Number of classes K.
        """
        cases = cls(np.empty((count, 0, 5)), np.empty((count, 0, 6)), classes)
        cases.found = detections_of(true, said, count, classes)
        cases.truth = _table(true)
        return cases

    @cached_property
    def found(self) -> Detections:
        """Return what the predicted boxes find."""
        return detections(self.labels, self.predicted, self.classes, self.max_detections)

    @cached_property
    def truth(self) -> Floats:
        """Return (Q, 6) picture, class and corners of the true boxes, by which two sets show that theirs are the same.

        They are sorted by picture and class.
        """
        return _table(read_boxes("truth", self.labels, self.classes))

    def weighted(self, weights: Floats) -> "WeightedBoxCases":
        """Return B weightings (N, B) of the pictures."""
        return WeightedBoxCases(self, weights)

    @cached_property
    def sure(self) -> Array:
        """Return (N, D, 6) the predicted boxes without those whose score is below the threshold."""
        kept = self.predicted.copy()
        kept[kept[..., 1] < self.score_threshold, 0] = NONE
        return kept

    @cached_property
    def verdicts(self) -> tuple[Flags, Flags]:
        """Return which of `sure` are right, (N, D), and which true boxes they miss, (N, M), at IoU 0.5."""
        return matched(self.labels, self.sure, IOU)

    @cached_property
    def f1(self) -> Floats:
        """Return (N,) F1 of each picture at the threshold and IoU 0.5; NaN where nothing is, nor is predicted."""
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
        super().__init__(cases.found, weights, cases.score_threshold)
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


def _table(true: Boxes) -> Floats:
    rows = true.by_picture()
    return np.column_stack([rows.pictures, rows.classes, rows.corners])
