"""Average precision, average recall and F1 of detected boxes, of many weightings of the pictures at once.

A bootstrap resample is a weighting: how often each picture was drawn. Which detection finds which true box does not
depend on other pictures, so it is found once; a weighting only changes how often each detection counts.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import sparse

from visionforge.scoring.assignment import (
    MOST_CLASSES,
    Boxes,
    Flags,
    Numbers,
    assign,
    check_count,
    ranks,
    read_boxes,
)
from visionforge.scoring.rates import Array, Floats, mean, ratio

IOUS = np.linspace(0.5, 0.95, 10)
_AT_50, _AT_75 = 0, 5  # where they are among these
RECALLS = np.linspace(0.0, 1.0, 101)  # where COCO reads a curve of precision and recall
MAX_DETECTIONS = 100
_PART_CELLS = 1 << 17  # weights of detections that are summed together: 1 MB a table, which stays in the cache


@dataclass(frozen=True)
class Detections:
    """The R detections of N pictures by falling score, and what they find; true boxes of K classes.

    Attributes:
        pictures: (R,) number of the picture.
        classes: (R,) 0 to K-1.
        scores: (R,) falling; equal ones in the order of pictures, and of their rows in one.
        hits: (R, 10) whether a detection is right at each IoU of `IOUS`.
        true_pictures: (Q,) number of the picture of each true box.
        true_classes: (Q,) its class.
        count: Number of pictures N.
        class_count: Number of classes K.
    """

    pictures: Numbers
    classes: Numbers
    scores: Floats
    hits: Flags
    true_pictures: Numbers
    true_classes: Numbers
    count: int
    class_count: int


def detections(truth: Array, predicted: Array, classes: int, max_detections: int = MAX_DETECTIONS) -> Detections:
    """Return what the predicted boxes find.

    Args:
        truth: (N, M, 5) rows [class, x1, y1, x2, y2] in pixels; class -1 in rows without a box.
        predicted: (N, D, 6) rows [class, score, x1, y1, x2, y2], the same.
        classes: Number of classes K.
        max_detections: Of each picture and class, that many with the highest scores count, as COCO has it.

    Raises:
        ValueError: If shapes, types or values do not fit.
    """
    if not 1 <= classes <= MOST_CLASSES:
        raise ValueError(f"classes: {classes} is not allowed; allowed: 1 to {MOST_CLASSES}")
    if max_detections < 1:
        raise ValueError(f"max_detections: {max_detections} is not allowed; allowed: at least 1")
    true, said = read_boxes("truth", truth, classes), read_boxes("predicted", predicted, classes)
    check_count(truth, predicted)
    return detections_of(true, said, len(truth), classes, max_detections)


def detections_of(
    truth: Boxes, predicted: Boxes, count: int, classes: int, max_detections: int = MAX_DETECTIONS
) -> Detections:
    """Return what predicted boxes find, of boxes that are checked.

    Args:
        truth: The true ones of all pictures.
        predicted: The predicted ones.
        count: Number of pictures N.
        classes: Number of classes K.
        max_detections: As in `detections`.
    """
    true, found = truth.by_picture(), predicted.by_picture()
    found = found.rows(np.flatnonzero(ranks(found.groups) < max_detections))
    hits = assign(true, found, IOUS) >= 0
    order = np.argsort(-found.scores, kind="stable")
    found = found.rows(order)
    places = found.pictures, found.classes
    return Detections(*places, found.scores, hits[order], true.pictures, true.classes, count, classes)


class WeightedBoxes:
    """Average precision, average recall, and precision, recall and F1 at a score, of B weightings of N pictures.

    The definitions are COCO's (Lin et al., 2014, arXiv:1405.0312), and the values those of its own code, pycocotools,
    for boxes of any size and without crowds. Precision is read at 101 recalls, at each the highest one at that recall
    or a higher one. `torchmetrics` rounds its thresholds of IoU and recall to float32, which changes values a little
    where an IoU or a recall is just a threshold; with `IOUS` and `RECALLS` it has the same.

    Detections with equal scores rank in their order, as there. So a weight is a number of repetitions of a picture, but
    for detections of one class and picture with equal scores: those that are right in all repetitions come first.

    A class without a true box in the pictures that count is absent: it has no value, NaN, and is in no mean.

    Args:
        found: Detections and what they find.
        weights: (N, B), how often each picture counts.
        score_threshold: Least score of a detection that counts in precision, recall and F1.
    """

    def __init__(self, found: Detections, weights: Floats, score_threshold: float = 0.5) -> None:
        self._found = found
        self._weights = weights
        self._threshold = score_threshold

    @cached_property
    def _support(self) -> Floats:
        """Return (K, B) true boxes."""
        return self._sums(self._found.true_classes, self._found.true_pictures)

    @cached_property
    def _counts(self) -> tuple[Floats, Floats]:
        """Return (K, B) detections from the threshold on that are right at IoU 0.5, and all of them."""
        found = self._found
        said = found.scores >= self._threshold
        right = said & found.hits[:, _AT_50]
        hits = self._sums(found.classes[right], found.pictures[right])
        return hits, self._sums(found.classes[said], found.pictures[said])

    def _sums(self, classes: Numbers, pictures: Numbers) -> Floats:
        shape = (self._found.class_count, self._found.count)
        table = sparse.coo_array((np.ones(len(classes)), (classes, pictures)), shape=shape)
        found: Floats = table.tocsr() @ self._weights
        return found

    @cached_property
    def _curves(self) -> tuple[Floats, Floats, Floats, Floats]:
        """Return (K, B) each: average precision, that at IoU 0.5 and at 0.75, and average recall."""
        found, support = self._found, self._support
        area, area_50, area_75, recall = values = tuple(np.zeros_like(support) for _ in range(4))
        by_class = np.argsort(found.classes, kind="stable")  # still by score within each
        ends = np.searchsorted(found.classes[by_class], np.arange(found.class_count + 1))
        for number in np.unique(found.true_classes):
            rows = by_class[ends[number] : ends[number + 1]]
            pictures, hits = found.pictures[rows], found.hits[rows]
            places = [np.flatnonzero(hits[:, level]) for level in range(len(IOUS))]
            for part in self._parts(len(rows)):
                each = np.ascontiguousarray(self._weights[:, part].T)[:, pictures]
                above = np.cumsum(each, axis=1)  # detections that rank at least as high
                curves = [_curve(each[:, right], above[:, right], support[number, part]) for right in places]
                area[number, part] = np.mean([under for under, _ in curves], axis=0)
                area_50[number, part], area_75[number, part] = curves[_AT_50][0], curves[_AT_75][0]
                recall[number, part] = np.mean([reached for _, reached in curves], axis=0)
        for table in values:
            table[support == 0] = np.nan
        return area, area_50, area_75, recall

    def _parts(self, rows: int) -> Iterator[slice]:
        columns = self._weights.shape[1]
        step = max(1, _PART_CELLS // max(rows, len(RECALLS)))
        for start in range(0, columns, step):
            yield slice(start, start + step)

    @property
    def average_precision(self) -> Floats:
        """Return (K, B) means of the average precisions at the IoUs 0.50, 0.55, …, 0.95."""
        return self._curves[0]

    @property
    def average_precision_50(self) -> Floats:
        """Return (K, B) average precisions at IoU 0.5."""
        return self._curves[1]

    @property
    def average_precision_75(self) -> Floats:
        """Return (K, B) average precisions at IoU 0.75."""
        return self._curves[2]

    @property
    def average_recall(self) -> Floats:
        """Return (K, B) means over the IoUs of the share of the true boxes that are found at all."""
        return self._curves[3]

    @property
    def precision(self) -> Floats:
        """Return (K, B) shares of the detections that are right; NaN also without a detection."""
        right, said = self._counts
        return np.where(self._support > 0, ratio(right, said), np.nan)

    @property
    def recall(self) -> Floats:
        """Return (K, B) shares of the true boxes that are found."""
        return ratio(self._counts[0], self._support)

    @property
    def f1(self) -> Floats:
        """Return (K, B) harmonic means of precision and recall, 2 TP / (2 TP + FP + FN); 0 without a detection."""
        right, said = self._counts
        return np.where(self._support > 0, ratio(2 * right, said + self._support), np.nan)

    @property
    def pooled(self) -> dict[str, Floats]:
        """Return (B,) `precision`, `recall` and `f1` of the boxes of all classes together (micro average).

        Every detection counts, also one of an absent class. Recall and F1 are NaN without a true box.
        """
        right, said = (counts.sum(axis=0) for counts in self._counts)
        support = self._support.sum(axis=0)
        return {
            "precision": ratio(right, said),
            "recall": ratio(right, support),
            "f1": np.where(support > 0, ratio(2 * right, said + support), np.nan),
        }

    def over_classes(self, values: Floats) -> Floats:
        """Return (B,) means of values (K, B) over the classes that have one."""
        return mean(values)


def _curve(right: Floats, above: Floats, support: Floats) -> tuple[Floats, Floats]:
    """Return average precisions (B,) and highest recalls (B,) of a class; of no meaning where `support` is 0.

    Only right detections are looked at, because a wrong one lowers precision and leaves recall as it is.

    Args:
        right: (B, H) how often each right detection counts, by falling score.
        above: (B, H) how often detections count that have at least its rank.
        support: (B,) true boxes.
    """
    columns, count = right.shape
    recall = np.cumsum(right, axis=1)
    precision = np.zeros((columns, count + 1))  # 0 at a recall that is not reached
    np.divide(recall, above, out=precision[:, :count], where=above > 0)
    recall /= np.maximum(support, 1e-300)[:, None]
    firsts = np.stack([np.searchsorted(row, RECALLS) for row in recall])
    flat = firsts + np.arange(columns)[:, None] * (count + 1)
    # the highest up to the next place; a row's last place reaches up to the next row, because its first is at recall 0
    highest = np.maximum.reduceat(precision.ravel(), flat.ravel()).reshape(columns, len(RECALLS))
    area = np.maximum.accumulate(highest[:, ::-1], axis=1).mean(axis=1)
    return area, recall[:, -1] if count else np.zeros(columns)
