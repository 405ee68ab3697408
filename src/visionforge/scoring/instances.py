"""Objects in masks: how to tell them apart, and how many of them are found."""

import itertools
import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy import ndimage, sparse
from scipy.sparse import csgraph
from scipy.spatial import cKDTree

from visionforge.scoring.masks import check_integers
from visionforge.scoring.rates import Array, Floats

Labels = npt.NDArray[np.int32]
Flags = npt.NDArray[np.bool_]


def instances(masks: Array, min_distance: float | None = None) -> Labels:
    """Return the objects of masks: 0 is background, and those of each picture are numbered from 1.

    Pixels that touch, also at a corner, are one object. With `min_distance`, an object that has several cores is
    divided between them by a watershed of the distance to its outline, also that at the edge of the picture. Its cores
    are the pixels that are farthest from the outline, each more than `min_distance` away from those that are deeper
    inside.

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
        parts = _watershed(depth, cores) if len(cores) > 1 else np.ones(int(mask.sum()), dtype=np.int32)
        inner = mask[tuple(slice(1, -1) for _ in mask.shape)]
        found[place][inner] = parts + count
        count += len(cores)
    return found


def _watershed(depth: Floats, cores: npt.NDArray[np.int64]) -> Labels:
    """Return (P,) the number from 1 of the core to which each pixel of positive depth belongs, in their order.

    A watershed cut (Cousty et al., 2009, IEEE TPAMI 31(8)): what is left of the minimum spanning tree of the pixels if
    the cores are joined to a root, and the root is taken away. An edge costs the more the less deep its shallower
    pixel is; among equals, the less deep the other is, so that outlines follow what lies inside them.
    """
    numbers = np.cumsum(depth.ravel() > 0).reshape(depth.shape)  # from 1; 0 is the root
    deepest = float(depth.max())
    rows, columns, costs = [], [], []
    offsets = list(itertools.product((-1, 0, 1), repeat=depth.ndim))
    for offset in offsets[: len(offsets) // 2]:  # each pair of neighbours once
        one = tuple(slice(max(0, step), size + min(0, step)) for step, size in zip(offset, depth.shape, strict=True))
        other = tuple(
            slice(max(0, -step), size + min(0, -step)) for step, size in zip(offset, depth.shape, strict=True)
        )
        low, high = np.minimum(depth[one], depth[other]), np.maximum(depth[one], depth[other])
        inside = low > 0
        rows.append(numbers[one][inside])
        columns.append(numbers[other][inside])
        # two different depths, roots of whole numbers, differ by more than the second term can be
        costs.append((1 + deepest - low - high / (4 * (deepest + 1) ** 2))[inside])
    roots = numbers[tuple(cores.T)]
    rows.append(roots)
    columns.append(np.zeros_like(roots))
    costs.append(np.full(len(roots), 1e-3))  # below every other
    size = int(numbers.max()) + 1
    edges = (np.concatenate(rows), np.concatenate(columns))
    tree = csgraph.minimum_spanning_tree(sparse.coo_array((np.concatenate(costs), edges), shape=(size, size)).tocsr())
    _, basins = csgraph.connected_components(tree[1:, 1:], directed=False)
    order = np.zeros(basins.max() + 1, dtype=np.int32)
    order[basins[roots - 1]] = np.arange(1, len(cores) + 1)
    found: Labels = order[basins]
    return found


def _cores(depth: Floats, min_distance: float, touching: Flags) -> npt.NDArray[np.int64]:
    """Return (M, dimensions) places of the deepest pixels, none nearer to a deeper one than allowed."""
    peaks = np.argwhere((depth > 0) & (depth == ndimage.maximum_filter(depth, footprint=touching)))
    peaks = peaks[np.argsort(-depth[tuple(peaks.T)], kind="stable")]
    near = cKDTree(peaks)
    free, chosen = np.ones(len(peaks), dtype=np.bool_), []
    for number, peak in enumerate(peaks):
        if free[number]:
            chosen.append(number)
            free[near.query_ball_point(peak, min_distance)] = False
    return peaks[chosen]


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
