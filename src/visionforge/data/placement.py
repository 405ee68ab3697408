"""Where a picture of any size lies in the square that a network takes: pixels, masks and boxes go by one rule.

Coordinates are pixels, with (0, 0) at the upper left corner and (width, height) at the lower right, as in torchvision.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

Fit = Literal["crop", "pad"]


@dataclass(frozen=True)
class Placement:
    """A point (x, y) of the picture lies at (x · across - left, y · down - top) in the square.

    Attributes:
        across: Scale of the columns.
        down: Scale of the rows; that of the columns but for the rounding of a crop to whole pixels.
        left: Columns of the scaled picture that are cut off.
        top: Rows of the same.
        resolution: Height and width R of the square, in pixels.
    """

    across: float
    down: float
    left: int
    top: int
    resolution: int


def placement(size: tuple[int, int], resolution: int, fit: Fit = "crop") -> Placement:
    """Return where a picture lies.

    Args:
        size: Width and height, in pixels.
        resolution: Height and width R of the square.
        fit: `crop` scales the shorter side to R and cuts the middle out; `pad` scales the longer side to R and leaves
            the square empty below, or at the right.
    """
    width, height = size
    if fit == "pad":
        scale = resolution / max(size)
        return Placement(scale, scale, 0, 0, resolution)
    scale = resolution / min(size)
    wide, high = (max(resolution, round(side * scale)) for side in size)
    return Placement(wide / width, high / height, (wide - resolution) // 2, (high - resolution) // 2, resolution)


def place_mask(mask: npt.NDArray[np.uint8], where: Placement, fill: int = 0) -> npt.NDArray[np.uint8]:
    """Return (R, R): the value of the mask's nearest pixel at the centre of each pixel of the square.

    Args:
        mask: (H, W).
        where: Where its picture lies.
        fill: Value of pixels that the picture does not reach.
    """
    centres = np.arange(where.resolution) + 0.5
    columns = np.floor((centres + where.left) / where.across).astype(np.int64)
    rows = np.floor((centres + where.top) / where.down).astype(np.int64)
    height, width = mask.shape
    placed: npt.NDArray[np.uint8] = mask[np.minimum(rows, height - 1)[:, None], np.minimum(columns, width - 1)]
    placed[rows >= height] = fill
    placed[:, columns >= width] = fill
    return placed


def place_boxes(boxes: npt.NDArray[np.float64], where: Placement) -> npt.NDArray[np.float64]:
    """Return boxes (M, 4) of the picture in pixels of the square; they may reach beyond it.

    Args:
        boxes: (M, 4), x1, y1, x2, y2.
        where: Where their picture lies.
    """
    scale = np.array([where.across, where.down, where.across, where.down])
    return np.asarray(boxes * scale - np.array([where.left, where.top] * 2), dtype=np.float64)


def within(boxes: npt.NDArray[np.float64], width: float, height: float) -> npt.NDArray[np.float64]:
    """Return boxes (M, 4) cut off at the borders of an area that begins at (0, 0)."""
    return np.asarray(np.clip(boxes, 0, np.array([width, height, width, height])), dtype=np.float64)


def areas(boxes: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return (M,) areas of boxes (M, 4), 0 of those without width or height."""
    sides = np.maximum(boxes[:, 2:] - boxes[:, :2], 0)
    return np.asarray(sides[:, 0] * sides[:, 1], dtype=np.float64)
