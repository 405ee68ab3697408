"""Boxes drawn on their pictures: those of one kind with names and scores, or how predictions differ from the truth."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from visionforge.evaluation.label_colours import Colours, class_colours, on_top
from visionforge.printable import printable
from visionforge.reporting.figures.static import shorten
from visionforge.reporting.label_overlays import FOUND, INVENTED, MISSED, Array, Pixels, colour_planes, line_width

_DASH, _GAP = 4, 3  # of a dashed line, in widths of it
_SMALLEST_TEXT, _LARGEST_TEXT = 9, 28  # pixels; what is smaller cannot be read
_TEXT_SHARE = 1 / 26  # of the longer side
_LONGEST_NAME = 16
_WIDEST_TEXT = 1.2  # widths of its box
_PADDING = 2  # pixels around a text
_EDGE = (40, 40, 40)  # of lines
LEAST_PIXELS = 256  # of the longer side: names need more room than masks
Colour = tuple[int, int, int]
Rectangle = tuple[int, int, int, int]


def box_overlay(
    image: Array,
    boxes: Array,
    classes: Array,
    names: Sequence[str],
    scores: Array | None = None,
    matched: Array | None = None,
) -> Pixels:
    """Return a picture with boxes in the colours of their classes, (P, Q, 3) uint8.

    Predicted boxes, which have scores, are solid; true ones are dashed. One that has no partner, a true one that was
    missed or a predicted one that is wrong, is crossed out by a diagonal. Name and score stand at a box where there is
    room: within the picture, not much wider than the box, and on no other text; if only the name has room, it stands
    alone. Small pictures are enlarged by a whole number, pixel by pixel, so that the longer side has at least 256.

    Args:
        image: (C, H, W) uint8, grey or colour.
        boxes: (M, 4) pixels x1, y1, x2, y2 of the image, from its upper left corner; what lies outside is not drawn.
        classes: (M,) integers, 0 to K-1.
        names: Names of the K classes.
        scores: (M,) of predicted boxes, 0 to 1; None if the boxes are true ones.
        matched: (M,) booleans, whether a box has a partner on the other side; None crosses none out.

    Raises:
        ValueError: If shapes, types or values do not fit.
    """
    boxes, classes = _checked(image, boxes, classes, len(names), scores, matched)
    colours = class_colours(len(names))
    ground, scale = colour_planes(image, LEAST_PIXELS)
    canvas = _Canvas(ground)
    for number in _order(boxes):
        alone = matched is not None and not matched[number]
        colour = _rgb(colours[classes[number]])
        canvas.box(boxes[number] * scale, colour, dashed=scores is None, crossed=alone)
    for number in range(len(boxes)) if scores is None else np.argsort(-np.asarray(scores), kind="stable"):
        name = shorten(printable(names[classes[number]]), _LONGEST_NAME)
        texts = [name] if scores is None else [f"{name} {scores[number]:.2f}", name]
        canvas.text(boxes[number] * scale, texts, _rgb(colours[classes[number]]))
    return canvas.pixels


def box_comparison(
    image: Array, truth: Array, truth_matched: Array, predicted: Array, predicted_matched: Array
) -> Pixels:
    """Return a picture with what a detection got right and wrong, (P, Q, 3) uint8.

    Colours are those of `mask_comparison`, the size that of `box_overlay`.

    - sky blue, solid: found, a predicted box that has a true one as its partner
    - yellow, dashed and crossed out: missed, a true box without a predicted one
    - vermilion, solid and crossed out: invented, a predicted box without a true one

    Args:
        image: (C, H, W) uint8, grey or colour.
        truth: (M, 4) true boxes, pixels x1, y1, x2, y2.
        truth_matched: (M,) booleans, whether one was found.
        predicted: (L, 4) predicted boxes.
        predicted_matched: (L,) booleans, whether one is right.

    Raises:
        ValueError: If shapes, types or values do not fit.
    """
    true, found = _checked_flags(image, truth, truth_matched)
    said, right = _checked_flags(image, predicted, predicted_matched)
    ground, scale = colour_planes(image, LEAST_PIXELS)
    canvas = _Canvas(ground)
    for box in _largest_first(said[right]):
        canvas.box(box * scale, FOUND)
    for box in _largest_first(said[~right]):
        canvas.box(box * scale, INVENTED, crossed=True)
    for box in _largest_first(true[~found]):
        canvas.box(box * scale, MISSED, dashed=True, crossed=True)
    return canvas.pixels


class _Canvas:
    """A picture that boxes and texts are drawn on; it knows where texts are."""

    def __init__(self, ground: Pixels) -> None:
        self._image = Image.fromarray(np.ascontiguousarray(ground))
        self._draw = ImageDraw.Draw(self._image)
        self._width = line_width(self._image.height, self._image.width)
        size = round(max(self._image.size) * _TEXT_SHARE)
        self._font = _font(min(_LARGEST_TEXT, max(_SMALLEST_TEXT, size)))
        self._texts: list[Rectangle] = []

    @property
    def pixels(self) -> Pixels:
        """Return (P, Q, 3) uint8."""
        return np.array(self._image)

    def box(self, box: npt.NDArray[Any], colour: Colour, dashed: bool = False, crossed: bool = False) -> None:
        """Draw a box (4,); its lines lie within it."""
        line = self._width
        x1, y1, x2, y2 = (round(float(value)) for value in box)
        x2, y2 = max(x2, x1 + line), max(y2, y1 + line)
        sides = [(x1, y1, x2, y1 + line), (x1, y2 - line, x2, y2), (x1, y1, x1 + line, y2), (x2 - line, y1, x2, y2)]
        diagonals = [(x1, y2 - 1, x2 - 1, y1)] if crossed else []
        if dashed:
            sides = [part for side in sides for part in _pieces(side, line)]
            diagonals = [part for diagonal in diagonals for part in _dashes(diagonal, line)]
        for drawn, rim in ((_EDGE, 1), (colour, 0)):  # seen on bright and on dark ground
            for left, top, right, bottom in sides:
                self._draw.rectangle((left - rim, top - rim, right - 1 + rim, bottom - 1 + rim), fill=drawn)
            for diagonal in diagonals:
                self._draw.line(diagonal, fill=drawn, width=line + 2 * rim)

    def text(self, box: npt.NDArray[Any], texts: Sequence[str], colour: Colour) -> None:
        """Write the first of some texts at a box (4,) for which there is room, if there is for any."""
        x1, y1, x2, y2 = (round(float(value)) for value in box)
        for text in texts:
            left, top, right, bottom = (round(value) for value in self._font.getbbox(text))
            width, height = right - left + 2 * _PADDING, bottom - top + 2 * _PADDING
            if width > _WIDEST_TEXT * (x2 - x1):
                continue
            for y in (y1 - height, y1, y2):  # above the box, within it, below it
                place = (x1, y, x1 + width, y + height)
                if self._is_free(place):
                    self._draw.rectangle((x1, y, x1 + width - 1, y + height - 1), fill=colour)
                    on = on_top(np.array(colour, dtype=np.uint8))
                    self._draw.text((x1 + _PADDING - left, y + _PADDING - top), text, fill=on, font=self._font)
                    self._texts.append(place)
                    return

    def _is_free(self, place: Rectangle) -> bool:
        x1, y1, x2, y2 = place
        if x1 < 0 or y1 < 0 or x2 > self._image.width or y2 > self._image.height:
            return False
        return not any(
            x1 < right and left < x2 and y1 < bottom and top < y2 for left, top, right, bottom in self._texts
        )


def _font(size: int) -> ImageFont.FreeTypeFont:
    """Return the font of the figures, which has more letters than Pillow's own."""
    path = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
    return ImageFont.truetype(str(path), size)


def _pieces(side: Rectangle, width: int) -> list[Rectangle]:
    """Return the dashes of an upright or level line, which is a rectangle."""
    left, top, right, bottom = side
    step, dash = (_DASH + _GAP) * width, _DASH * width
    if right - left > bottom - top:
        return [(x, top, min(x + dash, right), bottom) for x in range(left, right, step)]
    return [(left, y, right, min(y + dash, bottom)) for y in range(top, bottom, step)]


def _dashes(line: Rectangle, width: int) -> list[Rectangle]:
    """Return the dashes of a line from one point to another."""
    x1, y1, x2, y2 = line
    length = max(1.0, float(np.hypot(x2 - x1, y2 - y1)))
    starts = np.arange(0, length, (_DASH + _GAP) * width) / length
    ends = np.minimum(starts + _DASH * width / length, 1)
    dx, dy = x2 - x1, y2 - y1
    return [
        (round(x1 + a * dx), round(y1 + a * dy), round(x1 + b * dx), round(y1 + b * dy))
        for a, b in zip(starts.tolist(), ends.tolist(), strict=True)
    ]


def _order(boxes: Array) -> npt.NDArray[np.intp]:
    """Return the order in which no box hides a smaller one: the largest first."""
    return np.argsort(-(boxes[:, 2:] - boxes[:, :2]).prod(axis=1), kind="stable")


def _largest_first(boxes: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return boxes[_order(boxes)]


def _rgb(colour: Colours) -> Colour:
    red, green, blue = (int(value) for value in colour)
    return red, green, blue


def _checked(
    image: Array, boxes: Array, classes: Array, count: int, scores: Array | None, matched: Array | None
) -> tuple[npt.NDArray[np.float64], Array]:
    """Return boxes clipped to the picture, and classes."""
    boxes, classes = np.asarray(boxes, dtype=np.float64), np.asarray(classes)
    if boxes.ndim != 2 or boxes.shape[1] != 4 or not np.isfinite(boxes).all() or (boxes[:, :2] > boxes[:, 2:]).any():
        raise ValueError(f"boxes: {boxes.shape}; allowed: finite (M, 4), x1 <= x2 and y1 <= y2")
    for name, values in (("classes", classes), ("scores", scores), ("matched", matched)):
        if values is not None and np.shape(values) != (len(boxes),):
            raise ValueError(f"{name}: {np.shape(values)}; allowed: ({len(boxes)},), one for each box")
    if len(classes) and (classes.dtype.kind not in "iu" or classes.min() < 0 or classes.max() >= count):
        raise ValueError(f"classes: allowed: integers, 0 to {count - 1}, one for each name")
    height, width = image.shape[1:]
    return np.clip(boxes, 0, (width, height, width, height)), classes


def _checked_flags(image: Array, boxes: Array, matched: Array) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    """Return boxes clipped to the picture, and whether each has a partner."""
    clipped, _ = _checked(image, boxes, np.zeros(len(boxes), dtype=np.int64), 1, None, matched)
    return clipped, np.asarray(matched, dtype=np.bool_)
