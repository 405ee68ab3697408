"""Pixel counts of masks, picture by picture, and accuracy, Dice and IoU of many weightings of the pictures at once.

A bootstrap resample is a weighting: how often each picture was drawn. Everything is a sum over weighted pictures, so
the same lines give the reported value (all weights are 1) and its resamples.
"""

from collections.abc import Iterator
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from visionforge.scoring.rates import Array, Floats, mean, ratio

Counts = npt.NDArray[np.int64]
_PART_PIXELS = 1 << 20  # pixels that are counted together: some 30 MB of working memory
_AT_ONCE = 256  # pictures whose tables of counts are in memory together
_MOST_COUNTS = 1 << 28  # cells of one table of counts: 2 GiB


def confusions(truth: Array, predicted: Array, classes: int, ignore: int | None = None) -> Counts:
    """Return (N, K, K) numbers of pixels of each picture, by true class and by predicted class.

    Args:
        truth: (N, H, W) or (N, D, H, W) integers, 0 to K-1, or `ignore`.
        predicted: The same shape; any integers where `truth` is `ignore`.
        classes: Number of classes K, the background included.
        ignore: Value of `truth` that marks pixels that are not counted; None counts all.

    Raises:
        ValueError: If shapes, types or values do not fit.
    """
    check_masks(truth, predicted, classes)
    count, cells = len(truth), classes**2
    if count * cells > _MOST_COUNTS:
        raise ValueError(f"classes: {classes} for {count} pictures; allowed: at most {_MOST_COUNTS} counts, N·K·K")
    found = np.zeros((count, cells), dtype=np.int64)
    for first, true, said in _parts(truth, predicted, cells):
        rows = len(true)
        places = np.broadcast_to(np.arange(rows)[:, None], true.shape)
        if ignore is not None:
            kept = true != ignore
            true, said, places = true[kept], said[kept], places[kept]
        check_values("truth", true, classes, ignore)
        check_values("predicted", said, classes)
        flat = places.ravel() * cells + true.ravel().astype(np.int64) * classes + said.ravel().astype(np.int64)
        found[first : first + rows] += np.bincount(flat, minlength=rows * cells).reshape(rows, cells)
    return found.reshape(count, classes, classes)


def _parts(truth: Array, predicted: Array, cells: int) -> Iterator[tuple[int, Array, Array]]:
    """Yield (number of the first picture, truth (n, P), predicted (n, P)), bounded; a large picture in pieces."""
    count = len(truth)
    truth, predicted = truth.reshape(count, -1), predicted.reshape(count, -1)
    pixels = truth.shape[1]
    step = max(1, _PART_PIXELS // max(pixels, cells))
    for first in range(0, count, step):
        for start in range(0, pixels, _PART_PIXELS):
            part = np.s_[first : first + step, start : start + _PART_PIXELS]
            yield first, truth[part], predicted[part]


class WeightedMasks:
    """Accuracy, Dice and IoU of B weightings of N pictures, in two readings.

    - Pooled: from the pixels of all pictures together, mIoU over the data set as in PASCAL VOC; large objects count for
      more. That is what torchmetrics' `DiceScore(aggregation_level="global")` computes, and nnU-Net while it trains.
    - By picture: of each class, the mean over the pictures in which it is, and then the mean over the classes, as in
      nnU-Net's evaluation, and the mIoU^C of Wang et al. (2023, arXiv:2310.19252); all pictures count alike.
      torchmetrics' `aggregation_level="samplewise"` has the same values per class, but with `average="macro"` it takes
      the mean over the classes of each picture first, which is the same only if no picture lacks a class.

    A class is absent from a picture, or from a pool, if it has no pixel there in truth nor prediction: it has no value
    and is in no mean. Values are NaN where nothing is defined.

    Args:
        hits: (N, K) pixels of each class in both masks, |A∩B|.
        sizes: (N, K) pixels of each class in both together, |A| + |B|.
        weights: (N, B), how often each picture counts.
        background: A class that is in no mean over the classes; None has all of them in.
    """

    def __init__(self, hits: Floats, sizes: Floats, weights: Floats, background: int | None = None) -> None:
        self._hits = hits
        self._sizes = sizes
        self._weights = weights
        self._background = background

    @cached_property
    def _pooled(self) -> tuple[Floats, Floats]:
        hits: Floats = self._hits.T @ self._weights
        sizes: Floats = self._sizes.T @ self._weights
        return hits, sizes

    @property
    def pixel_accuracy(self) -> Floats:
        """Return (B,) shares of right pixels."""
        hits, sizes = self._pooled
        return ratio(2 * hits.sum(axis=0), sizes.sum(axis=0))

    @property
    def dice(self) -> Floats:
        """Return (K, B) Dice, 2|A∩B| / (|A|+|B|), which is the F1 of the pixels."""
        hits, sizes = self._pooled
        return ratio(2 * hits, sizes)

    @property
    def iou(self) -> Floats:
        """Return (K, B) IoU (Jaccard), |A∩B| / |A∪B|."""
        hits, sizes = self._pooled
        return ratio(hits, sizes - hits)

    @property
    def pixel_accuracy_by_picture(self) -> Floats:
        """Return (B,) means over the pictures of their shares of right pixels."""
        shares = ratio(2 * self._hits.sum(axis=1, keepdims=True), self._sizes.sum(axis=1, keepdims=True))
        found: Floats = self.by_picture(shares)[0]
        return found

    @property
    def dice_by_picture(self) -> Floats:
        """Return (K, B) means of Dice over the pictures that have the class."""
        return self.by_picture(ratio(2 * self._hits, self._sizes))

    @property
    def iou_by_picture(self) -> Floats:
        """Return (K, B) means of IoU over the pictures that have the class."""
        return self.by_picture(ratio(self._hits, self._sizes - self._hits))

    def by_picture(self, values: Floats) -> Floats:
        """Return (K, B) means over the pictures of values (N, K); those that are NaN are left out."""
        defined = ~np.isnan(values)
        sums: Floats = np.where(defined, values, 0.0).T @ self._weights
        return ratio(sums, defined.astype(np.float64).T @ self._weights)

    def over_classes(self, values: Floats) -> Floats:
        """Return (B,) means of values (K, B) over the classes that have one, without the background."""
        return mean(values if self._background is None else np.delete(values, self._background, axis=0))


def class_sizes(
    truth: Array, predicted: Array, classes: int, ignore: int | None = None
) -> tuple[Counts, Counts, Counts]:
    """Return (N, K) pixels of each picture and class that are of it in both masks, in the truth, in the prediction.

    Args:
        truth: As in `confusions`.
        predicted: As there.
        classes: As there.
        ignore: As there.

    Raises:
        ValueError: As there.
    """
    check_masks(truth, predicted, classes)
    count = len(truth)
    if count * classes > _MOST_COUNTS // 4:
        raise ValueError(f"classes: {classes} for {count} pictures; allowed: at most {_MOST_COUNTS // 4} counts, N·K")
    found = np.zeros((3, count, classes), dtype=np.int64)
    for first, true, said in _parts(truth, predicted, classes):
        rows = len(true)
        places = np.broadcast_to(np.arange(rows)[:, None] * classes, true.shape)
        if ignore is not None:
            kept = true != ignore
            true, said, places = true[kept], said[kept], places[kept]
        check_values("truth", true, classes, ignore)
        check_values("predicted", said, classes)
        same = true == said
        for each, cells in zip(found, (places[same] + true[same], places + true, places + said), strict=True):
            counted = np.bincount(cells.ravel().astype(np.int64), minlength=rows * classes)
            each[first : first + rows] += counted.reshape(rows, classes)
    return found[0], found[1], found[2]


def confusion(truth: Array, predicted: Array, classes: int, ignore: int | None = None) -> Counts:
    """Return (K, K) pixels of all pictures by true class and by predicted class; see `confusions`."""
    found = np.zeros((classes, classes), dtype=np.int64)
    for start in range(0, len(truth), _AT_ONCE):
        part = slice(start, start + _AT_ONCE)
        found += confusions(truth[part], predicted[part], classes, ignore).sum(axis=0)
    return found


def dice_of(hits: Floats, sizes: Floats) -> Floats:
    """Return (N, K) Dice of each picture and class; NaN where the class is neither in truth nor prediction.

    Args:
        hits: (N, K) pixels of each class in both masks.
        sizes: (N, K) those in truth and prediction together, |A| + |B|.
    """
    return ratio(2 * hits, sizes)


def check_masks(truth: Array, predicted: Array, classes: int) -> None:
    """Check forms of masks; their values are checked by whoever reads them.

    Raises:
        ValueError: If a shape, a type or the number of classes does not fit.
    """
    if not classes >= 2:
        raise ValueError(f"classes: {classes} is not allowed; allowed: at least 2, the background included")
    check_integers("truth", truth)
    check_integers("predicted", predicted)
    if truth.shape != predicted.shape:
        raise ValueError(f"predicted: {predicted.shape}; allowed: {truth.shape}, as of the truth")


def check_integers(name: str, masks: Array) -> None:
    """Check that masks are (N, H, W) or (N, D, H, W) integers.

    Raises:
        ValueError: If they are not.
    """
    if masks.ndim not in (3, 4) or not masks.size:
        raise ValueError(f"{name}: {masks.shape}; allowed: (N, H, W) or (N, D, H, W), at least one pixel")
    if masks.dtype.kind not in "biu":
        raise ValueError(f"{name}: {masks.dtype}; allowed: integers, the class of each pixel")


def check_values(name: str, values: npt.NDArray[Any], classes: int, ignore: int | None = None) -> None:
    """Check that no value is outside 0 to K-1.

    Raises:
        ValueError: If one is.
    """
    if not values.size:
        return
    low, high = int(values.min()), int(values.max())
    if low < 0 or high >= classes:
        found = low if low < 0 else high
        also = "" if ignore is None else f", or {ignore}, which is ignored"
        raise ValueError(f"{name}: has the value {found}; allowed: 0 to {classes - 1}{also}")
