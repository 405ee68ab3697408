"""Look into the images of a data set: duplicates across splits, class balance."""

import hashlib
from dataclasses import dataclass, field
from itertools import combinations
from math import prod

import numpy as np
import numpy.typing as npt

from visionforge.config.schema.tasks import task_named
from visionforge.data.archive import channels_of
from visionforge.data.info import SPLITS, DatasetInfo, Split

HASH_ROWS, HASH_COLUMNS = 8, 9
NEAR_DIFFERENCE = 8.0  # mean absolute difference of grey values, of 255, up to which equal hashes count as near
PART = 8192  # images that are looked at together
PART_BYTES = 1 << 26  # and the bytes of them, at most
_MIX = np.uint64(0x9E3779B97F4A7C15)  # odd, so that multiplying loses nothing; the golden ratio of Knuth's hashing
MOST_ALIKE = 64  # images of equal hash that one is compared with; plain ones may all have the same


@dataclass(frozen=True)
class Leak:
    """Images that two splits share.

    Attributes:
        first: One split.
        second: The other.
        exact: Positions of images with equal pixels: one for each image of the second split that the first has, too.
        near: Pairs of positions that look the same but differ in some pixels.
    """

    first: Split
    second: Split
    exact: list[tuple[int, int]] = field(default_factory=list)
    near: list[tuple[int, int]] = field(default_factory=list)


def difference_hashes(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint64]:
    """Return (N,) 64-bit perceptual hashes: whether each of 8×9 mean grey values is brighter than its right neighbour.

    Small changes of brightness, contrast or compression leave the hash as it is (dHash, Krawetz, 2013). That of a
    volume is mixed from the hashes of its means along each of the three axes.

    Args:
        images: (N, H, W) or (N, H, W, 3) uint8, at least 9 pixels wide or repeated to that; or volumes (N, D, H, W) or
            (N, D, H, W, 3).
    """
    out = np.zeros(len(images), dtype=np.uint64)
    size = max(1, min(PART, PART_BYTES // max(1, prod(images.shape[1:]))))
    for start in range(0, len(images), size):
        grey = _grey(images[start : start + size])
        views = [grey] if grey.ndim == 3 else [grey.mean(axis=axis, dtype=np.float32) for axis in (1, 2, 3)]
        for view in views:
            out[start : start + size] = out[start : start + size] * _MIX + _hashes(_shrink(view))
    return out


def _hashes(small: npt.NDArray[np.float32]) -> npt.NDArray[np.uint64]:
    weights = np.uint64(1) << np.arange(64, dtype=np.uint64)
    bits = (small[:, :, 1:] > small[:, :, :-1]).reshape(len(small), 64)
    return np.asarray((bits.astype(np.uint64) * weights).sum(axis=1, dtype=np.uint64))


def _grey(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    values = np.asarray(images, dtype=np.float32)
    return values.mean(axis=-1) if channels_of(images.shape) == 3 else values


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
    hashes = {split: difference_hashes(images[split]) for split in images}
    leaks = equal_images(images)
    for leak in leaks:
        one, two = leak.first, leak.second
        leak.near.extend(_near(images[one], images[two], hashes[one], hashes[two]))
    return leaks


def equal_images(images: dict[Split, npt.NDArray[np.uint8]]) -> list[Leak]:
    """Return which images with equal pixels every two splits share; one entry per pair, also if it is empty."""
    digests = {split: [_digest(image) for image in images[split]] for split in SPLITS if split in images}
    leaks = []
    for first, second in combinations(digests, 2):
        where = {digest: position for position, digest in reversed(list(enumerate(digests[first])))}
        exact = [(where[digest], position) for position, digest in enumerate(digests[second]) if digest in where]
        leaks.append(Leak(first, second, exact))
    return leaks


def _digest(image: npt.NDArray[np.uint8]) -> bytes:
    return hashlib.blake2b(np.ascontiguousarray(image).data, digest_size=16).digest()


def _near(
    one: npt.NDArray[np.uint8],
    two: npt.NDArray[np.uint8],
    hashes_one: npt.NDArray[np.uint64],
    hashes_two: npt.NDArray[np.uint64],
) -> list[tuple[int, int]]:
    """Return pairs of positions of images that look the same but differ in some pixels."""
    pairs = []
    where: dict[int, list[int]] = {}
    common = np.intersect1d(hashes_one, hashes_two)
    for position in np.flatnonzero(np.isin(hashes_one, common)).tolist():
        where.setdefault(int(hashes_one[position]), []).append(position)
    for position in np.flatnonzero(np.isin(hashes_two, common)).tolist():
        image = np.asarray(two[position], dtype=np.int16)
        for other in where[int(hashes_two[position])][:MOST_ALIKE]:
            difference = np.abs(np.asarray(one[other], dtype=np.int16) - image)
            if difference.any() and difference.mean() <= NEAR_DIFFERENCE:
                pairs.append((other, position))
    return pairs


def class_counts(labels: npt.NDArray[np.integer], info: DatasetInfo) -> list[int]:
    """Return how many images have each class or label."""
    return [int(n) for n in task_named(info.task).counts(labels, len(info.classes))]
