"""DICOM files from strangers: the grey values or colours of one frame, or the frames of a volume.

pydicom decodes; how many bytes and pixels that takes is looked at before.
"""

import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast, get_args

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from visionforge.data.dicom_header import GREY, PALETTE, DicomError, Header, first_of, number_of
from visionforge.data.intensity import Presentation, Shown, Table, Window, WindowFunction
from visionforge.distribution import how_to_install
from visionforge.printable import printable

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

SUFFIXES = (".dcm", ".dicom")
NEEDS_PYDICOM = f"needs the package pydicom: {how_to_install('dicom')}"
_PREAMBLE, _MAGIC = 128, b"DICM"  # bytes before the mark
_INDEX = "dicomdir"  # of a medium, without pictures
_DECODERS = "python-gdcm"  # of what Pillow does not decode, for example lossless JPEG
_RLE = "1.2.840.10008.1.2.5"
_RLE_HEADER = 64  # bytes: the number of segments, and where each begins
_ELEMENT = 12  # bytes in front of the frames of a compressed file: tag, kind and length
_WORST = 1.02  # as much larger run lengths may be than what they pack
_EXACT = 1 << 31  # integers below it are kept as such
_WORDS = 1 << 16  # entries of a table that says 0
Values = npt.NDArray[Any]
Padding = npt.NDArray[np.bool_]


def has_dicom_name(path: str | Path) -> bool:
    """Return whether a file's name ends as that of a DICOM file."""
    return Path(path).suffix.lower() in SUFFIXES


def is_dicom(source: str | Path | IO[bytes]) -> bool:
    """Return whether a file is one of DICOM by its name, or by its first bytes if the name says nothing.

    Archives of hospitals write files without a suffix, or with a number that stands for none. The index of a medium
    (DICOMDIR) is none.

    Args:
        source: The file, or its content, which is left at its beginning.
    """
    if not isinstance(source, str | Path):
        begins = _begins_as_dicom(source)
        source.seek(0)
        return begins
    path = Path(source)
    suffix = path.suffix.lower()
    if suffix in SUFFIXES:
        return True
    if (suffix and not suffix[1:].isdigit()) or path.name.lower() == _INDEX:
        return False
    try:
        if not path.is_file():  # a pipe would be waited for
            return False
        with path.open("rb") as file:
            return _begins_as_dicom(file)
    except OSError:
        return False


def _begins_as_dicom(file: IO[bytes]) -> bool:
    return file.read(_PREAMBLE + len(_MAGIC))[_PREAMBLE:] == _MAGIC


def has_pydicom() -> bool:
    """Return whether the package that reads headers is installed."""
    return find_spec("pydicom") is not None


def pydicom_problem(paths: Iterable[str | Path]) -> str | None:
    """Return a line if a file needs the package that reads headers, and it is not installed."""
    first = None if has_pydicom() else next(filter(is_dicom, paths), None)
    return None if first is None else f"{first} {NEEDS_PYDICOM}"


@dataclass(frozen=True)
class DicomFile:
    """An open file whose header was checked.

    Attributes:
        header: What describes its pixels.
        file: The file.
    """

    header: Header
    file: IO[bytes]

    @property
    def is_grey(self) -> bool:
        """Return whether its pixels have one value."""
        return self.header.kind in GREY

    @property
    def inverted(self) -> bool:
        """Return whether the smallest of its grey values is white."""
        return self.header.kind == "MONOCHROME1"

    def show(self, frame: int) -> Window | Table | None:
        """Return how a file says that the grey values of a frame are shown; None if it does not say."""
        return (self._window(frame) or self._table(frame)) if self.is_grey else None

    def picture(self, frame: int) -> tuple[Image.Image, Presentation]:
        """Return a frame as an image, and how it is shown.

        Of grey values the image has mode I or F, in the units of the modality (Hounsfield units, say), or mode L if
        they have eight bits and no units; colours have eight bits.

        Args:
            frame: From 0.

        Raises:
            DicomError: If it cannot be decoded.
        """
        self._check_packed([frame])
        array = next(self._decoded([frame]))
        if not self.is_grey:
            return Image.fromarray(self._colours(array)), Presentation()
        values, padding = self._of_modality(array, frame)
        show = self.show(frame)
        if values.dtype == np.uint8 and show is None:
            plain = 255 - values if self.inverted else values
            return Image.fromarray(plain if padding is None else np.where(padding, 0, plain)), Presentation()
        whole = values.dtype.kind in "iu"
        exact = whole and values.min() >= -_EXACT and values.max() < _EXACT
        picture = Image.fromarray(values.astype(np.int32 if exact else np.float32))
        return picture, Presentation(show, self.inverted, padding, whole)

    def slices(self, least: float | None = None) -> Iterator[npt.NDArray[np.float64]]:
        """Yield all frames (H, W, colours) in their order, grey values in the units of the modality.

        Args:
            least: What padding has; None is the smallest other value of the file.

        Raises:
            DicomError: If one cannot be decoded, or holds NaN or infinity.
        """
        self._check_packed(range(self.header.frames))
        if least is None:
            least = self.least() if self.header.padding is not None and self.is_grey else 0.0
        for frame, array in enumerate(self._decoded(range(self.header.frames))):
            if not self.is_grey:
                yield self._colours(array).astype(np.float64)
                continue
            values, padding = self._of_modality(array, frame)
            values = values.astype(np.float64)
            if padding is not None:
                values[padding] = least
            if not np.isfinite(values).all():
                raise DicomError("holds NaN or infinity")
            yield values[..., None]

    def least(self) -> float:
        """Return the smallest grey value of all frames that is no padding, in the units of the modality."""
        self._check_packed(range(self.header.frames))
        found = []
        for frame, array in enumerate(self._decoded(range(self.header.frames))):
            values, padding = self._of_modality(array, frame)
            inside = values if padding is None else values[~padding]
            found += [float(inside.min())] if inside.size else []
        return min(found, default=0.0)

    def spacing(self) -> tuple[float, float, float]:
        """Return the distances between columns, rows and frames, in millimetres; ones where it does not say.

        Those between frames are of their positions, else what the header says between slices, else their thickness.
        """
        measures = self._groups(0, "PixelMeasuresSequence")
        pixels = measures.get("PixelSpacing") or self.header.get("ImagerPixelSpacing")
        down, across = (1.0, 1.0) if pixels is None else (number_of(pixels[0]), number_of(pixels[1]))
        told = self._apart() or measures.get("SpacingBetweenSlices") or measures.get("SliceThickness")
        apart = down if told is None else abs(number_of(told))
        if min(down, across, apart) <= 0:
            raise DicomError("has distances between pixels that are not above 0")
        return across, down, apart

    def _apart(self) -> float | None:
        """Return the mean distance between the positions of neighbouring frames, if these are known."""
        steps = self.header.frames - 1
        offsets = self.header.get("GridFrameOffsetVector")
        if offsets is not None and len(offsets) > 1:
            return abs(number_of(offsets[-1]) - number_of(offsets[0])) / (len(offsets) - 1)
        ends = [self._groups(frame, "PlanePositionSequence").get("ImagePositionPatient") for frame in (0, steps)]
        if steps < 1 or any(end is None or len(end) != 3 for end in ends):
            return None
        first, last = (np.array([number_of(each) for each in end]) for end in ends)
        return float(np.linalg.norm(last - first)) / steps or None

    # --- decoding

    def _decoded(self, frames: Iterable[int]) -> Iterator[Values]:
        """Yield frames as they are stored; see `_check_packed`."""
        from pydicom.pixels import iter_pixels

        shape = (self.header.height, self.header.width)
        try:
            self.file.seek(0)
            for array in iter_pixels(self.file, indices=list(frames)):
                if array.shape[:2] != shape:
                    raise DicomError(f"has frames of another size than its header says ({array.shape})")
                yield np.asarray(array)
        except DicomError:
            raise
        except (NotImplementedError, RuntimeError) as error:  # no decoder, or none that is installed
            kind = printable(self.header.syntax_name)
            raise DicomError(f"cannot be decoded ({kind}); the package {_DECODERS} decodes more kinds") from error
        except Exception as error:  # on damaged files, anything
            raise DicomError(f"cannot be decoded ({printable(str(error) or type(error).__name__)})") from error

    def _check_packed(self, frames: Iterable[int]) -> None:
        """Raise DicomError if compressed frames unpack to more than the header says; nothing is unpacked."""
        if not self.header.compressed:
            return
        from pydicom.encaps import generate_frames

        wanted = set(frames)
        try:
            self.file.seek(self.header.pixels_at + _ELEMENT)
            for frame, packed in enumerate(generate_frames(self.file, number_of_frames=self.header.frames)):
                if frame in wanted:
                    (self._check_runs if self.header.syntax == _RLE else self._check_size)(packed)
                if frame >= max(wanted):
                    return
        except DicomError:
            raise
        except Exception as error:  # on damaged files, anything
            raise DicomError(f"cannot be decoded ({printable(str(error) or type(error).__name__)})") from error

    def _check_size(self, packed: bytes) -> None:
        """Raise DicomError if a JPEG or JPEG 2000 picture has another size than the header says."""
        try:
            with Image.open(io.BytesIO(packed), formats=("JPEG", "JPEG2000")) as found:
                size = found.size
        except UnidentifiedImageError:  # of another kind, which Pillow will not decode
            return
        if size != (self.header.width, self.header.height):
            raise DicomError(f"has frames of another size than its header says ({size[0]}×{size[1]})")

    def _check_runs(self, packed: bytes) -> None:
        """Raise DicomError if run lengths unpack to more than a frame has, or say nothing."""
        room = self.header.width * self.header.height
        parts = self.header.samples * self.header.bits_allocated // 8
        starts = np.frombuffer(packed[:_RLE_HEADER], "<u4").astype(int).tolist()
        begins, ends = starts[1 : parts + 1], [*starts[2 : parts + 1], len(packed)]
        if len(starts) != _RLE_HEADER // 4 or starts[0] != parts or begins != sorted(begins):
            raise DicomError("is damaged: its run lengths have no header")
        if len(packed) > _RLE_HEADER + parts * (_WORST * room + 2 * self.header.height + 2):
            raise DicomError("has run lengths of more bytes than its pixels")
        for start, end in zip(begins, ends, strict=True):
            place, unpacked = start, 0
            while place < min(end, len(packed)) - 1:
                code = packed[place]
                if code == 128:
                    raise DicomError("is damaged: its run lengths say nothing")
                unpacked += code + 1 if code < 128 else 257 - code
                place += code + 2 if code < 128 else 2
                if unpacked > room + 1:  # of uneven length, a segment is filled up
                    raise DicomError("has run lengths that unpack to more than its pixels")

    # --- values

    def _colours(self, array: Values) -> npt.NDArray[np.uint8]:
        """Return pixels as colours (H, W, 3) of eight bits."""
        if self.header.kind == PALETTE:
            from pydicom.pixels import apply_color_lut

            bits = int(self.header.dataset.RedPaletteColorLookupTableDescriptor[2])
            return _eight_bits(np.asarray(apply_color_lut(array, self.header.dataset)), 16 if bits > 8 else 8)
        return _eight_bits(array, self.header.bits_stored)

    def _groups(self, frame: int, sequence: str) -> "Dataset":
        """Return where facts of a frame stand: its functional group, that of all frames, or the header itself."""
        each = self.header.get("PerFrameFunctionalGroupsSequence") or ()
        for group in (*each[frame : frame + 1], *(self.header.get("SharedFunctionalGroupsSequence") or ())[:1]):
            if found := group.get(sequence):
                return cast("Dataset", found[0])
        return self.header.dataset

    def _of_modality(self, array: Values, frame: int) -> tuple[Values, Padding | None]:
        """Return stored values in the units of the modality, and where there is padding, if there is.

        Integers stay integers where they can; eight bits without units stay as they are.
        """
        from pydicom.pixels import apply_modality_lut

        facts = self._groups(frame, "PixelValueTransformationSequence")
        padding = self._padding(array)
        if facts.get("ModalityLUTSequence"):
            return np.asarray(apply_modality_lut(array, facts)).astype(np.int64), padding
        slope, intercept = number_of(facts.get("RescaleSlope", 1)), number_of(facts.get("RescaleIntercept", 0))
        if (slope, intercept) == (1, 0):
            plain = array.dtype == np.uint8 and self.header.bits_stored == 8
            return array if plain or array.dtype.kind == "f" else array.astype(np.int64), padding
        whole = array.dtype.kind != "f" and slope.is_integer() and intercept.is_integer()
        if whole and max(abs(slope), abs(intercept)) < _EXACT:
            return array.astype(np.int64) * int(slope) + int(intercept), padding
        return array.astype(np.float64) * slope + intercept, padding

    def _padding(self, array: Values) -> Padding | None:
        """Return the pixels that stand for none; None if there are no such."""
        if self.header.padding is None or array.dtype.kind == "f":
            return None
        low, high = self.header.padding
        found: Padding = (array >= low) & (array <= high)
        return found if found.any() else None

    def _window(self, frame: int) -> Window | None:
        facts = self._groups(frame, "FrameVOILUTSequence")
        centre, width = (first_of(facts.get(name)) for name in ("WindowCenter", "WindowWidth"))
        if centre is None or width is None:
            return None
        function = facts.get("VOILUTFunction") or "LINEAR"
        if function not in get_args(WindowFunction):
            raise DicomError(f"has a window of the kind {printable(function)!r}, which is not known")
        least = 1.0 if function == "LINEAR" else np.nextafter(0, 1)
        if width < least:  # nothing is shown by a window without width
            return None
        return Window(centre, width, cast(WindowFunction, function))

    def _table(self, frame: int) -> Table | None:
        tables = self._groups(frame, "FrameVOILUTSequence").get("VOILUTSequence")
        if not tables:
            return None
        count, first, bits = (int(each) for each in tables[0].LUTDescriptor)
        entries = self._entries(tables[0].LUTData, count or _WORDS)
        if not 1 <= bits <= 16:
            raise DicomError("has a table of grey values that is damaged")
        return Table(first, np.clip(entries / ((1 << bits) - 1), 0, 1) * 255)

    def _entries(self, data: Any, count: int) -> Shown:
        """Return so many entries of a table, of bytes or of words in the file's order."""
        if isinstance(data, bytes):
            words = "<u2" if self.header.little_endian else ">u2"
            data = np.frombuffer(data, np.uint8 if len(data) in (count, count + count % 2) else words)
        entries = np.asarray(data, dtype=np.float64)[:count]
        if len(entries) < count:
            raise DicomError("has a table of grey values that is damaged")
        return entries


def _eight_bits(array: Values, bits: int) -> npt.NDArray[np.uint8]:
    """Return colours of so many bits with eight."""
    if bits == 8:
        return array if array.dtype == np.uint8 else np.asarray(array.clip(0, 255), dtype=np.uint8)
    scaled = array.astype(np.float32) * np.float32(255 / ((1 << bits) - 1))
    return np.asarray(np.rint(scaled.clip(0, 255)), dtype=np.uint8)
