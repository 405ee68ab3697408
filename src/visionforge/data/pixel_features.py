"""Features of images that need no network: a coarse picture, and in which directions its edges run."""

import numpy as np
import numpy.typing as npt

from visionforge.data.thumbnails import area_weights, thumbnails

CELLS, PIXELS = 4, 8  # of the edges and of the coarse picture, along each axis
DIRECTIONS = 8  # of edges, over half a turn
_PART = 4096  # images at a time


def pixel_features(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Return (N, 192) features: 8×8 means of even brightness and contrast, and edges by direction in 4×4 cells.

    The latter are histograms of oriented gradients (Dalal and Triggs, 2005) without blocks; both parts have length 1.

    Args:
        images: (N, R, R) or (N, R, R, 3) uint8.
    """
    copies = thumbnails(images)
    side = copies.shape[1]
    coarse, cells = (area_weights(side, min(side, count)) for count in (PIXELS, CELLS))
    parts = []
    for start in range(0, len(copies), _PART):
        grey = copies[start : start + _PART].astype(np.float32)
        small = (coarse @ grey @ coarse.T).reshape(len(grey), -1)
        down, right = np.gradient(grey, axis=(1, 2))
        strength = np.hypot(down, right)
        direction = (np.arctan2(down, right) % np.pi) / np.pi * DIRECTIONS
        bins = direction.astype(np.int64) % DIRECTIONS
        edges = [(cells @ (strength * (bins == k)) @ cells.T).reshape(len(grey), -1) for k in range(DIRECTIONS)]
        halves = (small - small.mean(axis=1, keepdims=True), np.concatenate(edges, axis=1))
        parts.append(np.concatenate([_unit(half) for half in halves], axis=1))
    return np.concatenate(parts)


def _unit(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    length = np.linalg.norm(values, axis=1, keepdims=True)
    return np.asarray(values / np.maximum(length, 1e-6), np.float32)
