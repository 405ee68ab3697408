"""One picture file of any kind to a square uint8 array of the wanted size."""

import warnings
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".gif", ".webp"})
MAX_PIXELS = 100_000_000  # a larger picture is refused before it is decoded
_DEEP = frozenset({"I", "I;16", "I;16B", "I;16L", "I;16N", "F"})  # modes with more than eight bits per value
_GREY = frozenset({"1", "L", "LA", *_DEEP})


class PictureError(Exception):
    """The file is no picture that can be read; the message says why."""


def read_picture(path: Path, resolution: int) -> npt.NDArray[np.uint8]:
    """Read a picture, scale its shorter side to `resolution` and cut the middle out.

    Grey, palette, CMYK and transparent pictures are handled; transparency is put on black. 16-bit values are divided
    by 257, floating-point values are scaled from their own range. Of an animation, the first frame is taken.

    Args:
        path: The file.
        resolution: Height and width of the result, in pixels.

    Returns:
        (R, R) for grey pictures, (R, R, 3) for coloured ones.

    Raises:
        PictureError: If the file is not a picture, is damaged, or is too large.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as picture:
                if picture.width * picture.height > MAX_PIXELS:
                    raise PictureError(f"has {picture.width}×{picture.height} pixels, more than {MAX_PIXELS:,}")
                return _square(picture, resolution)
    except PictureError:
        raise
    except UnidentifiedImageError as error:
        raise PictureError("is no picture") from error
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError, Warning) as error:
        raise PictureError(f"cannot be read ({str(error) or type(error).__name__})") from error


def _square(picture: Image.Image, resolution: int) -> npt.NDArray[np.uint8]:
    if picture.mode in _DEEP:
        return resize_square(Image.fromarray(_to_eight_bits(np.asarray(picture), picture.mode)), resolution)
    if picture.mode in ("LA", "PA", "RGBA", "RGBa", "La") or "transparency" in picture.info:
        layers = picture.convert("RGBA")
        ground = Image.new("RGBA", layers.size, (0, 0, 0, 255))
        flat = Image.alpha_composite(ground, layers)
        return resize_square(flat.convert("L" if picture.mode in _GREY else "RGB"), resolution)
    return resize_square(picture.convert("L" if picture.mode in _GREY else "RGB"), resolution)


def _to_eight_bits(values: npt.NDArray[np.generic], mode: str) -> npt.NDArray[np.float32]:
    """Return deep grey values as float32 in [0, 255]."""
    deep = values.astype(np.float64)
    if mode == "F":
        low, high = float(np.nanmin(deep)), float(np.nanmax(deep))
        return ((np.nan_to_num(deep, nan=low) - low) / max(high - low, 1e-12) * 255).astype(np.float32)
    return (np.clip(deep, 0, 65535) / 257).astype(np.float32)


def resize_square(picture: Image.Image, resolution: int) -> npt.NDArray[np.uint8]:
    """Return a picture as (R, R) or (R, R, 3): the shorter side scaled, the middle cut out; antialiased bicubic.

    Args:
        picture: Of mode L, F (values 0 to 255) or RGB.
        resolution: Height and width R, in pixels.
    """
    scale = resolution / min(picture.size)
    size = tuple(max(resolution, round(side * scale)) for side in picture.size)
    left, top = ((side - resolution) // 2 for side in size)
    scaled = picture.resize((size[0], size[1]), Image.Resampling.BICUBIC)
    array = np.asarray(scaled.crop((left, top, left + resolution, top + resolution)))
    return np.asarray(np.rint(np.clip(array, 0, 255)), dtype=np.uint8)
