"""Objects in masks: how to tell them apart, and how many of them are found."""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from visionforge.scoring.masks import check_integers
from visionforge.scoring.rates import Array, Floats

Labels = npt.NDArray[np.int32]
Flags = npt.NDArray[np.bool_]


def instances(masks: Array, min_distance: float | None = None) -> Labels:
    """Return the objects of masks: 0 is background, and those of each picture are numbered from 1.

    Pixels that touch, also at a corner, are one object. With `min_distance`, an object that has several cores is
    divided between them by a watershed of the distance to its outline. Its cores are the pixels that are farthest from
    the outline, each more than `min_distance` away from those that are deeper inside.

    Args:
        masks: (N, H, W) or (N, D, H, W), 0 and 1 or booleans.
        min_distance: Smallest distance of two cores in pixels, such as the radius of a usual object; None divides none.

    Raises:
        ValueError: If shapes, types or values do not fit.
    """
    check_integers("masks", masks)
    if not np.isin(masks, (0, 1)).all():
        raise ValueError("masks: allowed: 0 and 1; of several classes, give one at a time, as masks == 2")
    if min_distance is not None and not (min_distance > 0 and math.isfinite(min_distance)):
        raise ValueError(f"min_distance: {min_distance} is not allowed; allowed: a number of pixels above 0, or None")
    found = np.zeros(masks.shape, dtype=np.int32)
    touching = np.ones((3,) * (masks.ndim - 1), dtype=np.bool_)
    for number, mask in enumerate(masks):
        objects, _ = ndimage.label(mask, structure=touching)
        found[number] = objects if min_distance is None else _divided(objects, min_distance, touching)
    return found


def _divided(objects: Labels, min_distance: float, touching: Flags) -> Labels:
    found = np.zeros_like(objects)
    count = 0
    for number, place in enumerate(ndimage.find_objects(objects), start=1):
        mask = np.pad(objects[place] == number, 1)  # one object, so that no larger neighbour hides its cores
        depth = ndimage.distance_transform_edt(mask)
        cores = _cores(depth, min_distance, touching)
        markers = np.where(mask, 0, -1).astype(np.int32)  # negative ones are the background's
        markers[tuple(cores.T)] = np.arange(1, len(cores) + 1)
        relief = np.round((1 - depth / depth.max()) * np.iinfo(np.uint16).max).astype(np.uint16)
        parts = ndimage.watershed_ift(relief, markers, structure=touching)
        inner = tuple(slice(1, -1) for _ in mask.shape)
        parts, mask = parts[inner], mask[inner]
        found[place][mask] = parts[mask] + count
        count += len(cores)
    return found


def _cores(depth: Floats, min_distance: float, touching: Flags) -> npt.NDArray[np.int64]:
    """Return (M, dimensions) places of the deepest pixels, none nearer to a deeper one than allowed."""
    peaks = np.argwhere((depth > 0) & (depth == ndimage.maximum_filter(depth, footprint=touching)))
    left = peaks[np.argsort(-depth[tuple(peaks.T)], kind="stable")]
    chosen = []
    while len(left):
        chosen.append(left[0])
        left = left[((left - left[0]) ** 2).sum(axis=1) > min_distance**2]
    return np.array(chosen)


def instance_precisions(truth: Array, predicted: Array, thresholds: Sequence[float] = (0.5,)) -> Floats:
    """Return (N, T) average precisions TP / (TP + FP + FN) of the objects of each picture, at thresholds of IoU.

    A predicted object is a hit if its IoU with a true one is above the threshold. From 0.5 on at most one is, on either
    side: more than half of the union of two pairs would have to be the same pixels. So no assignment has to be found.
    NaN where a picture has no object in either mask.

    Args:
        truth: (N, H, W) or (N, D, H, W) integers; 0 is background, every other number an object of its picture.
        predicted: The same shape; its numbers need not be those of the truth.
        thresholds: T of them, 0.5 to below 1.

    Raises:
        ValueError: If shapes, types or values do not fit.
    """
    for name, masks in (("truth", truth), ("predicted", predicted)):
        check_integers(name, masks)
        if int(masks.min()) < 0:
            raise ValueError(f"{name}: has the value {int(masks.min())}; allowed: 0, and the numbers of objects")
    if truth.shape != predicted.shape:
        raise ValueError(f"predicted: {predicted.shape}; allowed: {truth.shape}, as of the truth")
    limits = np.asarray(thresholds, dtype=np.float64)
    if limits.ndim != 1 or not limits.size or not ((limits >= 0.5) & (limits < 1)).all():
        raise ValueError(f"thresholds: {list(thresholds)} is not allowed; allowed: numbers, 0.5 to below 1")
    found = np.full((len(truth), len(limits)), np.nan)
    for number, (true, said) in enumerate(zip(truth, predicted, strict=True)):
        overlaps, objects = _overlaps(true, said)
        hits = (overlaps[:, None] > limits).sum(axis=0)
        if objects:
            found[number] = hits / (objects - hits)  # TP + FP + FN = objects of both masks - TP
    return found


def _overlaps(true: Array, said: Array) -> tuple[Floats, int]:
    """Return IoU of all pairs of objects that overlap, and the number of objects in both masks together."""
    true_names, true_places, true_sizes = np.unique(true, return_inverse=True, return_counts=True)
    said_names, said_places, said_sizes = np.unique(said, return_inverse=True, return_counts=True)
    cells, common = np.unique(true_places.ravel() * len(said_names) + said_places.ravel(), return_counts=True)
    one, other = np.divmod(cells, len(said_names))
    both = (true_names[one] != 0) & (said_names[other] != 0)
    one, other, common = one[both], other[both], common[both]
    union = true_sizes[one] + said_sizes[other] - common
    return common / union, int((true_names != 0).sum() + (said_names != 0).sum())
