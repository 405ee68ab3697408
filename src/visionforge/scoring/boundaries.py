"""How well the boundaries of masks agree (boundary F1), which the area of large objects hides.

Csurka et al. (2013), What is a good evaluation measure for semantic segmentation?, BMVC.
"""

import math

import numpy as np
import numpy.typing as npt
from scipy.ndimage import distance_transform_edt

from visionforge.scoring.masks import check_masks, check_values
from visionforge.scoring.rates import Array, Floats

Flags = npt.NDArray[np.bool_]
_NONE = -1  # class of a pixel that is ignored


def boundary_f1(truth: Array, predicted: Array, classes: int, tolerance: float, ignore: int | None = None) -> Floats:
    """Return (N, K) F1 of the boundary of each class in each picture.

    A boundary pixel of a class is a pixel of it beside one of another class: left, right, above or below, in volumes
    also before or behind. The edge of the picture and ignored pixels make no boundary. Precision is the share of the
    predicted boundary pixels that are at most `tolerance` away from a true one, recall the share of the true ones that
    are as near to a predicted one; F1 is their harmonic mean. It is 0 where only one of the masks has a boundary, and
    NaN where neither has one, also where a class fills the picture.

    Args:
        truth: (N, H, W) or (N, D, H, W) integers, 0 to K-1, or `ignore`.
        predicted: The same shape.
        classes: Number of classes K.
        tolerance: Largest Euclidean distance in pixels, between centres; 0 asks for the same pixels. Csurka et al. take
            0.75 % of the picture's diagonal.
        ignore: Value of `truth` that marks pixels that do not count, in both masks; None has none.

    Raises:
        ValueError: If shapes, types or values do not fit.
    """
    check_masks(truth, predicted, classes)
    if not (tolerance >= 0 and math.isfinite(tolerance)):
        raise ValueError(f"tolerance: {tolerance} is not allowed; allowed: a distance in pixels, at least 0")
    found = np.full((len(truth), classes), np.nan)
    for number, (true, said) in enumerate(zip(truth, predicted, strict=True)):
        kept = np.ones(true.shape, dtype=np.bool_) if ignore is None else true != ignore
        check_values("truth", true[kept], classes, ignore)
        check_values("predicted", said[kept], classes)
        pair = [np.where(kept, mask.astype(np.int64), _NONE) for mask in (true, said)]
        edges = [_between_classes(mask) for mask in pair]
        for k in range(classes):
            true_edge, said_edge = ((mask == k) & edge for mask, edge in zip(pair, edges, strict=True))
            found[number, k] = _f1(true_edge, said_edge, tolerance)
    return found


def _between_classes(mask: npt.NDArray[np.int64]) -> Flags:
    """Return which pixels have a neighbour of another class."""
    found = np.zeros(mask.shape, dtype=np.bool_)
    for axis in range(mask.ndim):
        before = (slice(None),) * axis + (slice(None, -1),)
        after = (slice(None),) * axis + (slice(1, None),)
        one, other = mask[before], mask[after]
        differs = (one != other) & (one != _NONE) & (other != _NONE)
        found[before] |= differs
        found[after] |= differs
    return found


def _f1(true: Flags, said: Flags, tolerance: float) -> float:
    if not true.any() and not said.any():
        return math.nan
    if not true.any() or not said.any():
        return 0.0
    precision = float((distance_transform_edt(~true)[said] <= tolerance).mean())
    recall = float((distance_transform_edt(~said)[true] <= tolerance).mean())
    return 2 * precision * recall / (precision + recall) if precision + recall > 0 else 0.0
