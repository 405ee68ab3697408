"""Images of a split as a page shows them: small, inside the page itself, with what was said of them."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image

from visionforge.evaluation.evaluation import Array
from visionforge.evaluation.slices import as_picture
from visionforge.printable import printable
from visionforge.reporting.figures.static import Picture, elided, label_names

PIXELS, PANEL_PIXELS = 128, 256  # of the longer side
_LABEL, _NAME = 60, 40  # most characters of a label, and of a name


@dataclass(frozen=True)
class Thumbnail:
    """An image of a page and its caption.

    Attributes:
        index: Its place in the split.
        image: An address that holds its pixels.
        overlay: The same of its map, or None.
        right: Whether the prediction is.
        predicted: What was predicted.
        truth: What is true.
        confidence: How sure the prediction is, in per cent.
        name: Its file, or None.
        short_name: The same, shortened.
    """

    index: int
    image: str
    overlay: str | None
    right: bool
    predicted: str
    truth: str
    confidence: str
    name: str | None
    short_name: str


@dataclass(frozen=True)
class Panel:
    """An image of a page in several drawings beside each other, and what is said of it.

    Attributes:
        index: Its place in the split.
        drawings: What each drawing shows, and an address that holds its pixels.
        caption: What is said of it, such as ``Dice 0.91``.
        name: Its file, or None.
        short_name: The same, shortened.
    """

    index: int
    drawings: Sequence[tuple[str, str]]
    caption: str
    name: str | None
    short_name: str


def panel(index: int, drawings: Sequence[tuple[str, Array]], caption: str, name: str | None) -> Panel:
    """Return drawings (H, W, 3) of an image as a page shows them.

    Args:
        index: Its place in the split.
        drawings: What each shows, and its pixels.
        caption: What is said of it.
        name: Its file, or None.
    """
    name = None if name is None else printable(name)
    shown = [(heading, data_uri(pixels, PANEL_PIXELS)) for heading, pixels in drawings]
    return Panel(index, shown, caption, name, "" if name is None else elided(name, _NAME))


def thumbnails(pictures: Sequence[Picture], classes: Sequence[str]) -> list[Thumbnail]:
    """Return images as a page shows them.

    Args:
        pictures: The images, with what was predicted.
        classes: Names of the classes.
    """
    return [_thumbnail(picture, classes) for picture in pictures]


def _thumbnail(picture: Picture, classes: Sequence[str]) -> Thumbnail:
    name = None if picture.name is None else printable(picture.name)
    return Thumbnail(
        index=picture.index,
        image=data_uri(as_picture(picture.image)),
        overlay=None if picture.overlay is None else data_uri(picture.overlay),
        right=picture.right,
        predicted=label_names(picture.predicted, classes, _LABEL),
        truth=label_names(picture.truth, classes, _LABEL),
        confidence=f"{picture.confidence:.1%}",
        name=name,
        short_name="" if name is None else elided(name, _NAME),
    )


def data_uri(pixels: Array, longest: int = PIXELS) -> str:
    """Return (H, W, C) uint8 pixels as an address that holds them, at most `longest` pixels wide."""
    image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    image.thumbnail((longest, longest))
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
