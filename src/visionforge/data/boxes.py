"""Boxes as annotation files give them, brought into one form: pixels of the whole picture, from 0, half open."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from visionforge.reading import UnreadableError

MAX_BOXES = 10_000  # of one picture; a crowd has some hundreds
MAX_SIDE = 1 << 20  # pixels; far above what a picture may have
COLUMNS = 6  # of a row in an archive: the picture's index, the class, x1, y1, x2, y2


@dataclass(frozen=True)
class PictureBoxes:
    """What a file says of one picture.

    Attributes:
        where: The file, and what of it, for messages.
        size: Width and height of the picture as the file says, in pixels; None if it says nothing.
        names: Class of each box.
        boxes: (M, 4) x1, y1, x2, y2 in pixels: the pixel in row r and column c reaches from (c, r) to (c + 1, r + 1).
    """

    where: str
    size: tuple[int, int] | None
    names: tuple[str, ...]
    boxes: npt.NDArray[np.float64]


def stacked(boxes: list[tuple[float, float, float, float]]) -> npt.NDArray[np.float64]:
    """Return boxes as (M, 4), also if there are none."""
    return np.array(boxes, dtype=np.float64).reshape(-1, 4)


def check_box(x1: float, y1: float, x2: float, y2: float, what: str) -> None:
    """Refuse a box without area.

    Args:
        x1: Left border.
        y1: Upper border.
        x2: Right border.
        y2: Lower border.
        what: What the message begins with.

    Raises:
        UnreadableError: If width or height are not above 0.
    """
    if not (x2 > x1 and y2 > y1):
        raise UnreadableError(f"{what} is {x2 - x1:g}×{y2 - y1:g} pixels; width and height have to be above 0")


def check_size(width: Any, height: Any) -> tuple[int, int] | None:
    """Return the size that a file states; None if it states none, which is written as 0 or left out.

    Raises:
        UnreadableError: If it is none of a picture.
    """
    if width in (None, 0) and height in (None, 0):
        return None
    for side in (width, height):
        if isinstance(side, bool) or not isinstance(side, int) or not 1 <= side <= MAX_SIDE:
            raise UnreadableError(
                f"states a width and height of {width} and {height}; whole numbers above 0 are allowed"
            )
    return int(width), int(height)
