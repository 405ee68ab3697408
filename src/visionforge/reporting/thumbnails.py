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

PIXELS = 128  # of the longer side
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


def data_uri(pixels: Array) -> str:
    """Return (H, W, C) uint8 pixels as an address that holds them, at most 128 pixels wide."""
    image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    image.thumbnail((PIXELS, PIXELS))
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
