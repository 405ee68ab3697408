"""One picture file of any kind to a square uint8 array of the wanted size."""

import math
import stat
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from visionforge.data.dicom import NEEDS_PYDICOM, DicomFile, has_pydicom, is_dicom
from visionforge.data.dicom import SUFFIXES as DICOM_SUFFIXES
from visionforge.data.dicom_header import DicomError, read_header
from visionforge.data.intensity import Presentation, Range, ValuesError, own_range, to_eight_bits
from visionforge.data.picture_headers import check_tags, upright
from visionforge.data.placement import Fit, place_mask, placement
from visionforge.data.room import DECODING

SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".tif", ".tiff", ".bmp", ".gif", ".webp", *DICOM_SUFFIXES}
)
FORMATS = (
    "PNG",
    "JPEG",
    "TIFF",
    "BMP",
    "DIB",
    "GIF",
    "WEBP",
)  # Pillow starts a program for others, whatever the suffix
MAX_PIXELS = 89_478_485  # a larger picture is refused before it is decoded; Pillow warns of bombs from there on
PIXEL_BYTES = 4  # of a decoded picture: Pillow pads three colours
_WORK_BYTES = 10  # of a pixel while a picture is decoded, put on black and scaled, at most
MAX_FILE = 1 << 30  # bytes; uncompressed, the largest picture has fewer
MAX_ASPECT = 100  # the longer side by the shorter one; of what is longer, next to nothing would be left
_WHOLE_ASPECT = 8  # up to here the whole picture is scaled and then cut, beyond only what is left is scaled
_CHUNK = 1 << 20  # pixels that are put on black together
_PRESENTATION = "visionforge: presentation"  # among a picture's facts, of which those of a file are texts
_DEEP = frozenset({"I", "I;16", "I;16B", "I;16L", "I;16N", "F"})  # modes with more than eight bits per value
_LAYERED = frozenset({"LA", "PA", "RGBA", "RGBa", "La"})
_GREY = frozenset({"1", "L", "LA", "La", *_DEEP})


class PictureError(Exception):
    """The file is no picture that can be read; the message says why."""


def read_picture(
    source: Path | IO[bytes],
    resolution: int,
    fit: Fit = "crop",
    intensity: Range | None = None,
    max_pixels: int = MAX_PIXELS,
) -> npt.NDArray[np.uint8]:
    """Read a picture, turn it upright, scale its shorter side to `resolution` and cut the middle out.

    Grey, palette, CMYK and transparent pictures are handled; transparency is put on black. Of an animation, the first
    frame is taken, of a DICOM file the middle one. Deep grey values become 8 bits by `intensity`; without it, those of
    a DICOM file by its own window or table, and others by what the picture has:

    - Integers from 0 to 65,535 are divided so that the largest number of 8, 10, 12, 14 or 16 bits becomes 255: the
      fewest bits that hold all values of the picture. Pictures of one series are treated alike as a rule.
    - Integers beyond that or below 0 (Hounsfield units), and floating-point values, are scaled from their own range,
      infinity and NaN left out: these become its ends, NaN the lower one.

    Args:
        source: The file, or its content; it may come from strangers.
        resolution: Height and width of the result, in pixels.
        fit: `pad` scales the longer side instead, and leaves the rest black, below or at the right.
        intensity: Deep grey values that become 0 and 255; of DICOM in the units of the modality.
        max_pixels: A larger picture is refused before it is decoded.

    Returns:
        (R, R) for grey pictures, (R, R, 3) for coloured ones.

    Raises:
        PictureError: If the file is not a picture, is damaged, too large, or far longer than wide.
    """
    with opened_picture(source, max_pixels=max_pixels) as picture:
        turn = upright(picture)
        if fit == "pad":
            return _square(picture if turn is None else picture.transpose(turn), resolution, fit, intensity)
        square = _square(picture, resolution, fit, intensity)
        return square if turn is None else np.asarray(Image.fromarray(square).transpose(turn))


def read_annotated(
    path: Path, resolution: int, fit: Fit, intensity: Range | None = None
) -> tuple[npt.NDArray[np.uint8], tuple[int, int]]:
    """Read a picture of which places are known, and its width and height; see `read_picture`.

    It is turned upright before it is scaled: if an uneven number of pixels is cut off, that decides where the middle
    is, and masks and boxes have to lie by the same.
    """
    with opened_picture(path) as picture:
        turn = upright(picture)
        turned = picture if turn is None else picture.transpose(turn)
        return _square(turned, resolution, fit, intensity), turned.size


def picture_size(path: Path) -> tuple[int, int]:
    """Return width and height of a picture as it lies in its file, without decoding it.

    Raises:
        PictureError: If it cannot be read; see `opened_picture`.
    """
    if is_dicom(path):
        with as_picture_errors(), opened_file(path, MAX_FILE) as file:
            header = read_header(file, MAX_PIXELS)
            return header.width, header.height
    with opened_picture(path, decode=False) as picture:
        return picture.size


def decoded_bytes(path: Path) -> int:
    """Return how many bytes a picture takes while it is decoded, without decoding it; 0 if it cannot be read."""
    try:
        width, height = picture_size(path)
    except PictureError:
        return 0
    return width * height * PIXEL_BYTES


def says_how_it_is_shown(path: Path) -> bool:
    """Return whether a picture is a DICOM file with a window or a table of its own; its pixels are not decoded."""
    if not is_dicom(path):
        return False
    try:
        with as_picture_errors(), opened_file(path, MAX_FILE) as file:
            header = read_header(file, MAX_PIXELS)
            return DicomFile(header, file).show(header.frames // 2) is not None
    except PictureError:
        return False


def is_deep(path: Path) -> bool:
    """Return whether a picture, not one of DICOM, has grey values of more than eight bits; they are not decoded."""
    try:
        with opened_picture(path, decode=False) as picture:
            return picture.mode in _DEEP
    except PictureError:
        return False


def deep_range(path: Path) -> tuple[float, float, bool] | None:
    """Return what `own_range` says of a picture with deep grey values; None if it has none, or cannot be read."""
    try:
        if not is_dicom(path) and not is_deep(path):
            return None
        with opened_picture(path) as picture:
            if picture.mode not in _DEEP:
                return None
            return own_range(np.asarray(picture), _presentation(picture))
    except (PictureError, ValuesError):
        return None


def warn_of_bombs_only() -> None:
    """Make an error of Pillow's warning of a decompression bomb, and leave out what pydicom finds odd in files."""
    warnings.simplefilter("error", Image.DecompressionBombWarning)
    warnings.filterwarnings("ignore", category=UserWarning, module=r"pydicom\.")


@contextmanager
def as_picture_errors() -> Iterator[None]:
    """Make a `PictureError` of whatever fails in a block."""
    try:
        yield
    except PictureError:
        raise
    except (DicomError, ValuesError) as error:
        raise PictureError(str(error)) from error
    except UnidentifiedImageError as error:
        raise PictureError("is no picture") from error
    except Exception as error:  # on damaged files, readers raise almost anything
        raise PictureError(f"cannot be read ({str(error) or type(error).__name__})") from error


@contextmanager
def opened_file(source: Path | IO[bytes], max_bytes: int | None = None) -> Iterator[IO[bytes]]:
    """Open a file that is one, and not too large; content that is in memory is passed on.

    Args:
        source: The file, or its content.
        max_bytes: The most of a file; None takes any.

    Raises:
        PictureError: If it is no file, or too large.
        OSError: If it cannot be opened.
    """
    if not isinstance(source, Path):
        yield source
        return
    found = source.stat()  # before it is opened: a pipe would be waited for
    if not stat.S_ISREG(found.st_mode):
        raise PictureError("is no file")
    if max_bytes is not None and found.st_size > max_bytes:
        raise PictureError(f"has {found.st_size:,} bytes, more than {max_bytes:,}")
    with source.open("rb") as file:
        yield file


@contextmanager
def opened_picture(
    source: Path | IO[bytes], decode: bool = True, max_pixels: int = MAX_PIXELS
) -> Iterator[Image.Image]:
    """Open and decode a picture whose size was looked at first; what fails until the block ends is a `PictureError`.

    Of a DICOM file it is the middle frame, which is always decoded.

    Args:
        source: The file, or its content; it may come from strangers.
        decode: Read the pixels, too.
        max_pixels: The most that are allowed.

    Raises:
        PictureError: If the file is not a picture, is damaged, too large, or far longer than wide.
    """
    with as_picture_errors(), warnings.catch_warnings():
        warn_of_bombs_only()
        if is_dicom(source):
            yield _frame(source, max_pixels)
            return
        with opened_file(source, MAX_FILE) as file:
            check_tags(file)
            with Image.open(file, formats=FORMATS) as picture:
                if picture.width * picture.height > max_pixels:
                    raise PictureError(f"has {picture.width}×{picture.height} pixels, more than {max_pixels:,}")
                _check_aspect(picture)
                if not decode:
                    yield picture
                    return
                with DECODING.holding(picture.width * picture.height * _WORK_BYTES):
                    picture.load()
                    yield picture


def _frame(source: Path | IO[bytes], max_pixels: int) -> Image.Image:
    """Return the middle frame of a DICOM file, which carries how it is shown."""
    if not has_pydicom():
        raise PictureError(NEEDS_PYDICOM)
    with opened_file(source, MAX_FILE) as file:
        header = read_header(file, max_pixels)
        picture, presentation = DicomFile(header, file).picture(header.frames // 2)
    _check_aspect(picture)
    picture.info[_PRESENTATION] = presentation
    return picture


def _presentation(picture: Image.Image) -> Presentation:
    found = picture.info.get(_PRESENTATION)
    return found if isinstance(found, Presentation) else Presentation()


def _check_aspect(picture: Image.Image) -> None:
    if min(picture.size) < 1 or max(picture.size) > MAX_ASPECT * min(picture.size):
        raise PictureError(f"has {picture.width}×{picture.height} pixels, longer than {MAX_ASPECT} times its width")


def read_whole(
    source: Path | IO[bytes],
    side: int | None,
    fit: Fit = "crop",
    intensity: Range | None = None,
    max_pixels: int = MAX_PIXELS,
) -> tuple[npt.NDArray[np.uint8], tuple[int, int]]:
    """Read a whole picture, turned upright, and return its own height and width beside it; see `read_picture`.

    Args:
        source: The file, or its content; it may come from strangers.
        side: The shorter side is scaled to so many pixels; None keeps the size.
        fit: `pad` scales the longer side instead.
        intensity: Deep grey values that become 0 and 255.
        max_pixels: A larger picture is refused before it is decoded.

    Raises:
        PictureError: If the file is not a picture, is damaged, too large, or far longer than wide.
    """
    with opened_picture(source, max_pixels=max_pixels) as picture:
        turn = upright(picture)
        turned = picture if turn is None else picture.transpose(turn)
        return scaled_whole(_plain(turned, intensity), side, fit), (turned.height, turned.width)


def scaled_whole(picture: Image.Image, side: int | None, fit: Fit = "crop") -> npt.NDArray[np.uint8]:
    """Return a picture as (H, W) or (H, W, 3), its shorter side scaled; antialiased bicubic.

    Args:
        picture: Of mode L, F (values 0 to 255) or RGB.
        side: Pixels of the shorter side; None keeps the size.
        fit: `pad` scales the longer side instead.
    """
    decisive = max(picture.size) if fit == "pad" else min(picture.size)
    if side is not None and side != decisive:
        width, height = (max(1, round(length * side / decisive)) for length in picture.size)
        picture = picture.resize((width, height), Image.Resampling.BICUBIC)
    return _eight_bits(np.array(picture))


def _square(picture: Image.Image, resolution: int, fit: Fit, intensity: Range | None) -> npt.NDArray[np.uint8]:
    resize = pad_square if fit == "pad" else resize_square
    return resize(_plain(picture, intensity), resolution)


def _plain(picture: Image.Image, intensity: Range | None) -> Image.Image:
    """Return a picture in mode L, F (values 0 to 255) or RGB."""
    if picture.mode in _DEEP:
        return Image.fromarray(to_eight_bits(np.asarray(picture), intensity, _presentation(picture)))
    mode = "L" if picture.mode in _GREY else "RGB"
    transparent = picture.mode in _LAYERED or "transparency" in picture.info
    if picture.mode != mode or transparent:
        picture = _flat(picture, mode, transparent)
    return picture


def _flat(picture: Image.Image, mode: str, transparent: bool) -> Image.Image:
    """Return a picture in mode L or RGB, on black if it is transparent; in strips, since each step takes a copy."""
    flat = Image.new(mode, picture.size)
    step = max(1, _CHUNK // picture.width)
    for top in range(0, picture.height, step):
        part = picture.crop((0, top, picture.width, min(picture.height, top + step)))
        if transparent:
            layers = part.convert("RGBA")
            part = Image.alpha_composite(Image.new("RGBA", layers.size, (0, 0, 0, 255)), layers)
        flat.paste(part.convert(mode), (0, top))
    return flat


def resize_square(picture: Image.Image, resolution: int) -> npt.NDArray[np.uint8]:
    """Return a picture as (R, R) or (R, R, 3): the shorter side scaled, the middle cut out; antialiased bicubic.

    Args:
        picture: Of mode L, F (values 0 to 255) or RGB.
        resolution: Height and width R, in pixels.

    Raises:
        PictureError: If one side is far longer than the other.
    """
    if picture.size == (resolution, resolution):
        return _eight_bits(np.array(picture))
    _check_aspect(picture)
    scale = resolution / min(picture.size)
    width, height = (max(resolution, round(side * scale)) for side in picture.size)
    left, top = (width - resolution) // 2, (height - resolution) // 2
    if max(picture.size) <= _WHOLE_ASPECT * min(picture.size):
        scaled = picture.resize((width, height), Image.Resampling.BICUBIC)
        array = np.array(scaled.crop((left, top, left + resolution, top + resolution)))
    else:  # the same pixels, but the rest of the strip is never made
        across, down = picture.width / width, picture.height / height
        box = (
            left * across,
            top * down,
            min(picture.width, (left + resolution) * across),
            min(picture.height, (top + resolution) * down),
        )
        array = np.array(picture.resize((resolution, resolution), Image.Resampling.BICUBIC, box=box))
    return _eight_bits(array)


def _eight_bits(values: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """Return values around 0 to 255 as uint8; those that are need no rounding."""
    return values if values.dtype == np.uint8 else np.rint(np.clip(values, 0, 255)).astype(np.uint8)


def pad_square(picture: Image.Image, resolution: int) -> npt.NDArray[np.uint8]:
    """Return a picture as (R, R) or (R, R, 3): the longer side scaled, at the upper left on black; antialiased bicubic.

    Both sides are scaled by exactly the same factor: a row that the picture fills in part is mixed with black.

    Args:
        picture: Of mode L, F (values 0 to 255) or RGB.
        resolution: Height and width R, in pixels.

    Raises:
        PictureError: If one side is far longer than the other.
    """
    if picture.size == (resolution, resolution):
        return _eight_bits(np.array(picture))
    _check_aspect(picture)
    scale = resolution / max(picture.size)
    wide, high = (min(resolution, math.ceil(side * scale - 1e-9)) for side in picture.size)
    box = (0.0, 0.0, wide / scale, high / scale)
    canvas = (max(picture.width, math.ceil(box[2] - 1e-9)), max(picture.height, math.ceil(box[3] - 1e-9)))
    if canvas != picture.size:
        grown = Image.new(picture.mode, canvas)
        grown.paste(picture, (0, 0))
        picture = grown
    box = (0.0, 0.0, min(box[2], picture.width), min(box[3], picture.height))
    scaled = np.asarray(picture.resize((wide, high), Image.Resampling.BICUBIC, box=box))
    square = np.zeros((resolution, resolution, *scaled.shape[2:]), dtype=np.uint8)
    square[:high, :wide] = _eight_bits(scaled)
    return square


def resize_mask(
    mask: npt.NDArray[np.uint8], resolution: int, fit: Fit = "crop", fill: int = 0
) -> npt.NDArray[np.uint8]:
    """Return a mask as (R, R), cut and scaled as its picture is by `resize_square` or `pad_square`; nearest neighbour.

    Args:
        mask: (H, W) of any values.
        resolution: Height and width R, in pixels.
        fit: `crop` or `pad`, as the picture.
        fill: Value of pixels that the picture does not reach.
    """
    height, width = mask.shape
    return place_mask(mask, placement((width, height), resolution, fit), fill)
