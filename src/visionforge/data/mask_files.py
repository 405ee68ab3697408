"""Read a mask: a picture file whose values say what each pixel shows, none of them changed."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from visionforge.data.picture_headers import upright
from visionforge.data.pictures import PictureError, opened_picture

MASK_SUFFIXES = (".png", ".tif", ".tiff", ".bmp", ".gif")
LOSSY_SUFFIXES = (".jpg", ".jpeg", ".webp")
HIGHEST = 255  # of the values that a mask in an archive has
_LOSSY = frozenset({"JPEG", "WEBP", "jpeg", "tiff_jpeg", "webp"})  # formats, and compressions within TIFF files
_LOSSY_TEXT = "is stored with loss (JPEG, WebP), which blurs the borders of masks; save it as PNG"
_PNG = b"\x89PNG\r\n\x1a\n"
_GREY, _COLOURS = 0, (2, 4, 6)  # kinds of pixels in a PNG file: grey, and with several values each
_BITS_PER_SAMPLE = 258  # tag of TIFF files
_NARROW = (2, 4)  # bits of grey values that Pillow spreads to 0 to 255


def is_lossy(path: Path) -> bool:
    """Return whether a file's name ends as that of a picture in which values are not kept."""
    return path.suffix.lower() in LOSSY_SUFFIXES


def read_mask(path: Path) -> npt.NDArray[np.uint16]:
    """Read a mask; palette pictures give the numbers of their colours.

    Args:
        path: The file; it may come from strangers.

    Returns:
        (H, W), the values as they are stored, 0 to 65,535; turned upright if the file says so.

    Raises:
        PictureError: If it is no picture, is damaged or too large, is stored with loss, has several different values
            per pixel, or has values below 0, above 65,535 or that are no whole numbers.
    """
    if is_lossy(path):
        raise PictureError(_LOSSY_TEXT)
    with opened_picture(path) as picture:
        if picture.format in _LOSSY or picture.info.get("compression") in _LOSSY:
            raise PictureError(_LOSSY_TEXT)
        bits, several = _depth(path, picture)
        turn = upright(picture)
        values = _values(picture, bits, several)
        return values if turn is None else np.asarray(Image.fromarray(values).transpose(turn))


def _depth(path: Path, picture: Image.Image) -> tuple[int, bool]:
    """Return the bits of a value as the file has it, and whether a pixel has several."""
    if picture.format == "PNG":
        with path.open("rb") as file:
            head = file.read(26)
        if head.startswith(_PNG) and len(head) == 26:
            return head[24], head[25] in _COLOURS
    if picture.format == "TIFF":
        found = getattr(picture, "tag_v2", {}).get(_BITS_PER_SAMPLE, (8,))
        bits = found if isinstance(found, tuple) else (found,)
        return max((int(each) for each in bits), default=8), len(bits) > 1
    return 8, len(picture.getbands()) > 1


def _values(picture: Image.Image, bits: int, several: bool) -> npt.NDArray[np.uint16]:
    array: npt.NDArray[Any] = np.asarray(picture)
    if several or array.ndim > 2:
        if bits > 8:
            raise PictureError("has colours of more than 8 bits; a mask has one value per pixel")
        array = _one_channel(array)
    elif picture.mode == "L" and bits in _NARROW:
        array = array // (HIGHEST // ((1 << bits) - 1))
    if array.dtype.kind == "f" and not (array == np.rint(array)).all():  # which NaN is not either
        raise PictureError("has values that are no whole numbers; a mask has the number of a class per pixel")
    low, high = array.min(), array.max()
    if low < 0 or high > np.iinfo(np.uint16).max:
        raise PictureError(f"has values from {low:g} to {high:g}; allowed: 0 to {np.iinfo(np.uint16).max:,}")
    return array.astype(np.uint16)


def _one_channel(array: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Return (H, W), if all channels of (H, W, C) are equal; that of transparency has to be opaque."""
    if array.ndim == 2:
        return array
    if array.shape[-1] in (2, 4):
        if (array[..., -1] != HIGHEST).any():
            raise PictureError("is transparent in places; a mask has one value per pixel")
        array = array[..., :-1]
    if (array != array[..., :1]).any():
        raise PictureError("has colours; a mask has one value per pixel: the number of the class, grey or in a palette")
    return array[..., 0]
