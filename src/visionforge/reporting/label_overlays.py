"""Masks drawn on their pictures: the classes of one, or how a prediction differs from the truth."""

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from visionforge.evaluation.label_colours import Colours
from visionforge.evaluation.slices import middle_slices

Array = npt.NDArray[Any]
Flags = npt.NDArray[np.bool_]
Pixels = npt.NDArray[np.uint8]

LEAST_PIXELS = 128  # of the longer side; smaller pictures are enlarged
FILL = 0.4  # how much of a colour covers the picture within an outline
FOUND, MISSED, INVENTED = (86, 180, 233), (240, 228, 66), (213, 94, 0)  # sky blue, yellow, vermilion: Okabe and Ito
_HATCH_GREY = 160
_HATCH = 5  # distance of the lines of a hatching, in widths of a line
_STRIPE = 6  # the same of stripes of two colours


def mask_overlay(image: Array, mask: Array, colours: Colours, ignore: int | None = None) -> Pixels:
    """Return a picture with a mask on top, (P, Q, 3) uint8: each class filled translucent, and outlined.

    The background, class 0, is not drawn. Small pictures are enlarged by a whole number, pixel by pixel, so that the
    longer side has at least 128; the outlines are drawn after that, within the class. Of a volume it is the middle
    slices.

    Args:
        image: (C, H, W) uint8, grey or colour, or a volume (C, R, R, R).
        mask: (H, W) integers, 0 to K-1, or `ignore`; of a volume (R, R, R).
        colours: (K, 3) uint8, as of `class_colours`.
        ignore: Value of pixels that do not count, which are hatched in grey; None has none.

    Raises:
        ValueError: If shapes, types or values do not fit.
    """
    ground, (mask,) = _enlarged(image, mask)
    ignored = _equal(mask, ignore)
    shown = np.where(ignored, 0, mask)
    _check_values(shown, len(colours))
    return _painted(ground, shown, np.asarray(colours)[shown], ignored)


def mask_comparison(image: Array, truth: Array, predicted: Array, ignore: int | None = None) -> Pixels:
    """Return a picture with what a prediction got right and wrong, (P, Q, 3) uint8, of the size of `mask_overlay`.

    - sky blue: found, the pixel is of a class other than the background in both masks, the same one
    - yellow: missed, it is of a class, and background is predicted
    - vermilion: invented, it is background, and a class is predicted
    - stripes of yellow and vermilion: of a class, and another one is predicted

    Args:
        image: (C, H, W) uint8, grey or colour, or a volume (C, R, R, R).
        truth: (H, W) integers, 0 is the background; of a volume (R, R, R).
        predicted: The same shape.
        ignore: Value of `truth` that marks pixels that do not count, which are hatched in grey; None has none.

    Raises:
        ValueError: If shapes or types do not fit.
    """
    ground, (truth, predicted) = _enlarged(image, truth, predicted)
    ignored = _equal(truth, ignore)
    found = (truth == predicted) & (truth != 0)
    missed, invented = (truth != 0) & ~found, (predicted != 0) & ~found
    verdict = np.select([ignored, found, missed & invented, missed, invented], [0, 1, 4, 2, 3], 0)
    paint = np.array([(0, 0, 0), FOUND, MISSED, INVENTED, MISSED], dtype=np.uint8)[verdict]
    paint[(verdict == 4) & _stripes(verdict.shape, line_width(*verdict.shape), _STRIPE, _STRIPE // 2)] = INVENTED
    return _painted(ground, verdict, paint, ignored)


def line_width(height: int, width: int) -> int:
    """Return how wide a line is on a picture of so many pixels, so that it is seen and hides little."""
    return max(1, round(max(height, width) / 160))


def colour_planes(image: Array, least: int = LEAST_PIXELS) -> tuple[Pixels, int]:
    """Return an image as (P, Q, 3) uint8, enlarged pixel by pixel if it is small, and how many times.

    Args:
        image: (C, H, W) uint8, grey or colour.
        least: Pixels that the longer side has at least.

    Raises:
        ValueError: If shape or type do not fit.
    """
    if image.ndim != 3 or image.shape[0] not in (1, 3) or not image.size or image.dtype != np.uint8:
        raise ValueError(f"image: {image.shape} {image.dtype}; allowed: (1, H, W) or (3, H, W) uint8")
    scale = max(1, -(-least // max(image.shape[1:])))
    planes = np.repeat(image, 3, axis=0) if image.shape[0] == 1 else image
    return _repeated(planes.transpose(1, 2, 0), scale), scale


def _repeated(values: Array, scale: int) -> Array:
    return values.repeat(scale, axis=0).repeat(scale, axis=1)


def _enlarged(image: Array, *masks: Array) -> tuple[Pixels, list[Array]]:
    """Return the picture (P, Q, 3), and the masks (P, Q)."""
    for mask in masks:
        if mask.shape != image.shape[1:] or mask.dtype.kind not in "biu":
            raise ValueError(f"mask: {mask.shape} {mask.dtype}; allowed: {image.shape[1:]} integers, as the image")
    if image.ndim == 4:
        image, masks = middle_slices(image, 255), tuple(middle_slices(mask, 0) for mask in masks)
    ground, scale = colour_planes(image)
    return ground, [_repeated(mask, scale) for mask in masks]


def _equal(mask: Array, value: int | None) -> Flags:
    return np.zeros(mask.shape, dtype=np.bool_) if value is None else mask == value


def _check_values(mask: Array, classes: int) -> None:
    wrong = (mask < 0) | (mask >= classes)
    if wrong.any():
        raise ValueError(f"mask: has the value {mask[wrong][0]}; allowed: 0 to {classes - 1}, one for each colour")


def _painted(ground: Pixels, regions: Array, paint: Pixels, ignored: Flags) -> Pixels:
    """Return a picture (P, Q, 3) with regions (P, Q) other than 0 in the colours of `paint` (P, Q, 3)."""
    width = line_width(*regions.shape)
    alpha = np.where(regions != 0, np.where(_outline(regions, width), 1.0, FILL), 0.0)
    paint = paint.copy()
    hatched = ignored & _stripes(regions.shape, width, _HATCH, 1)
    paint[hatched], alpha[hatched] = _HATCH_GREY, 1.0
    mixed = ground * (1 - alpha[..., None]) + paint * alpha[..., None]
    return np.asarray(np.rint(mixed), dtype=np.uint8)


def _outline(regions: Array, width: int) -> Flags:
    """Return which pixels are at most `width` from another region; the edge of the picture is none."""
    size = 2 * width + 1
    regions = regions.astype(np.int64)
    differs: Flags = ndimage.maximum_filter(regions, size) != ndimage.minimum_filter(regions, size)
    return differs


def _stripes(shape: tuple[int, ...], width: int, distance: int, thickness: int) -> Flags:
    """Return diagonal stripes, measured in widths of a line."""
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    stripes: Flags = (rows + columns) // width % distance < thickness
    return stripes
