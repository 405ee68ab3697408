"""Small grey copies of images, by which duplicates are looked for, and the eight ways to turn and mirror a square."""

from math import prod

import numpy as np
import numpy.typing as npt

from visionforge.data.archive import channels_of

SIDE = 32  # pixels of a copy; larger images are shrunk to it
LEAST_SIDE = 20  # pixels; of smaller images too little is seen to tell copies from what only looks alike
PART_BYTES = 1 << 26  # of images that are shrunk together

VIEWS = (
    "",
    "mirrored left to right",
    "mirrored top to bottom",
    "turned by 180°",
    "mirrored at the diagonal",
    "turned by 90°",
    "turned by 270°",
    "mirrored at the other diagonal",
)


def view(images: npt.NDArray[np.generic], which: int) -> npt.NDArray[np.generic]:
    """Return images (..., R, R) turned or mirrored, as a view.

    Args:
        images: The images.
        which: Place in `VIEWS`: 4 exchanges the axes, then 2 turns the rows round, and 1 the columns.
    """
    turned = images.swapaxes(-1, -2) if which & 4 else images
    turned = turned[..., ::-1, :] if which & 2 else turned
    return turned[..., ::-1] if which & 1 else turned


def thumbnails(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Return (N, S, S) uint8 grey copies of images, S = R up to 32 pixels, and 32 beyond; a pixel is a mean of areas.

    Args:
        images: (N, R, R) or (N, R, R, 3) uint8; a part of them is in memory at a time.
    """
    side = min(SIDE, images.shape[1])
    out = np.empty((len(images), side, side), np.uint8)
    weights = None if side == images.shape[1] else area_weights(images.shape[1], side)
    step = max(1, PART_BYTES // (4 * max(1, prod(images.shape[1:]))))
    for start in range(0, len(images), step):
        part = np.asarray(images[start : start + step], np.float32)
        grey = part.mean(axis=-1) if channels_of(images.shape) == 3 else part
        if weights is not None:
            grey = weights @ grey @ weights.T
        out[start : start + step] = np.rint(grey)
    return out


def area_weights(size: int, cells: int) -> npt.NDArray[np.float32]:
    """Return (cells, size) which share each of `size` pixels has in each of fewer cells that cover them evenly.

    >>> area_weights(3, 2).round(2).tolist()
    [[0.67, 0.33, 0.0], [0.0, 0.33, 0.67]]
    """
    edges = np.linspace(0, size, cells + 1)
    pixels = np.arange(size)
    inside = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    return np.asarray(inside.clip(0) / (size / cells), np.float32)
