"""Look into the images of a data set: duplicates across splits, class balance."""

from dataclasses import dataclass
from itertools import combinations

import numpy as np
import numpy.typing as npt

from visionforge.data.info import SPLITS, DatasetInfo, Split

HASH_ROWS, HASH_COLUMNS = 8, 9
NEAR_DIFFERENCE = 8.0  # mean absolute difference of grey values, of 255, up to which equal hashes count as near
PART = 8192  # images that are looked at together


@dataclass(frozen=True)
class Leak:
    """Images that two splits share.

    Attributes:
        first: One split.
        second: The other.
        exact: Pairs of positions whose pixels are equal.
        near: Pairs of positions that look the same but differ in some pixels.
    """

    first: Split
    second: Split
    exact: list[tuple[int, int]]
    near: list[tuple[int, int]]


def difference_hashes(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint64]:
    """Return (N,) 64-bit perceptual hashes: whether each of 8×9 mean grey values is brighter than its right neighbour.

    Small changes of brightness, contrast or compression leave the hash as it is (dHash, Krawetz, 2013).

    Args:
        images: (N, H, W) or (N, H, W, 3) uint8, at least 9 pixels wide or repeated to that.
    """
    out = np.empty(len(images), dtype=np.uint64)
    weights = np.uint64(1) << np.arange(64, dtype=np.uint64)
    for start in range(0, len(images), PART):
        small = _shrink(_grey(images[start : start + PART]))
        bits = (small[:, :, 1:] > small[:, :, :-1]).reshape(len(small), 64)
        out[start : start + PART] = (bits.astype(np.uint64) * weights).sum(axis=1, dtype=np.uint64)
    return out


def _grey(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    values = np.asarray(images, dtype=np.float32)
    return values if values.ndim == 3 else values.mean(axis=3)


def _shrink(grey: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return (N, 8, 9) means over a grid of cells; small images are enlarged by repetition first."""
    for axis, cells in ((1, HASH_ROWS), (2, HASH_COLUMNS)):
        if grey.shape[axis] < cells:
            grey = np.repeat(grey, -(-cells // grey.shape[axis]), axis=axis)
        edges = np.linspace(0, grey.shape[axis], cells + 1).astype(np.int64)
        total = np.add.reduceat(grey, edges[:-1], axis=axis)
        widths = np.diff(edges).astype(np.float32)
        grey = np.asarray(total / widths.reshape((1, -1, 1) if axis == 1 else (1, 1, -1)), dtype=np.float32)
    return grey


def find_leaks(images: dict[Split, npt.NDArray[np.uint8]]) -> list[Leak]:
    """Compare every two splits, and return what they share; one entry per pair of splits, also if it is empty."""
    hashes = {split: difference_hashes(images[split]) for split in SPLITS}
    return [_compare(a, b, images[a], images[b], hashes[a], hashes[b]) for a, b in combinations(SPLITS, 2)]


def _compare(
    first: Split,
    second: Split,
    one: npt.NDArray[np.uint8],
    two: npt.NDArray[np.uint8],
    hashes_one: npt.NDArray[np.uint64],
    hashes_two: npt.NDArray[np.uint64],
) -> Leak:
    leak = Leak(first, second, [], [])
    where: dict[int, list[int]] = {}
    common = np.intersect1d(hashes_one, hashes_two)
    for position in np.flatnonzero(np.isin(hashes_one, common)).tolist():
        where.setdefault(int(hashes_one[position]), []).append(position)
    for position in np.flatnonzero(np.isin(hashes_two, common)).tolist():
        image = np.asarray(two[position], dtype=np.int16)
        for other in where[int(hashes_two[position])]:
            difference = np.abs(np.asarray(one[other], dtype=np.int16) - image)
            if not difference.any():
                leak.exact.append((other, position))
            elif difference.mean() <= NEAR_DIFFERENCE:
                leak.near.append((other, position))
    return leak


def class_counts(labels: npt.NDArray[np.integer], info: DatasetInfo) -> list[int]:
    """Return how many images have each class, or each label of multi-label data."""
    if labels.ndim == 2:
        return [int(count) for count in labels.sum(axis=0, dtype=np.int64)]
    return [int(count) for count in np.bincount(labels, minlength=len(info.classes))]
