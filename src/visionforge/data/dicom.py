"""DICOM files from strangers: the grey values or colours of one frame, or the frames of a volume.

pydicom reads the header, of which only what describes the pixels is taken: nothing of a patient gets any further. A
header is looked at before a pixel is decoded, and one frame at a time is in memory.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from math import isfinite
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast, get_args

import numpy as np
import numpy.typing as npt
from PIL import Image

from visionforge.data.intensity import Presentation, Table, Window, WindowFunction
from visionforge.distribution import how_to_install
from visionforge.printable import printable

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

SUFFIXES = (".dcm", ".dicom")
NEEDS_PYDICOM = f"needs the package pydicom: {how_to_install('dicom')}"
MAX_FRAMES = 1 << 16
_PREAMBLE, _MAGIC = 128, b"DICM"  # bytes before the mark
_DEFLATED = "1.2.840.10008.1.2.1.99"  # the whole file is compressed, to a size that nobody knows before
_DECODERS = "python-gdcm"  # of what Pillow does not decode, for example lossless JPEG
_RLE = "1.2.840.10008.1.2.5"
_RLE_HEADER = 64  # bytes: the number of segments, and where each begins
_COLOURS = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_PARTIAL_420", "YBR_ICT", "YBR_RCT")
_GREY = ("MONOCHROME1", "MONOCHROME2")
_PALETTE = "PALETTE COLOR"
_PALETTES = ("Red", "Green", "Blue")
_TAGS = (  # of the header that are read; an absent one costs nothing
    *("Rows", "Columns", "NumberOfFrames", "SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration"),
    *("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "PixelPaddingValue"),
    *("RescaleSlope", "RescaleIntercept", "ModalityLUTSequence"),
    *("WindowCenter", "WindowWidth", "VOILUTFunction", "VOILUTSequence"),
    *("PixelSpacing", "ImagerPixelSpacing", "SpacingBetweenSlices", "SliceThickness"),
    *("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"),
    *(f"{colour}PaletteColorLookupTable{part}" for colour in _PALETTES for part in ("Descriptor", "Data")),
    "SegmentedRedPaletteColorLookupTableData",
)


class DicomError(Exception):
    """A DICOM file that cannot be read; the message says why."""


def has_dicom_name(path: str | Path) -> bool:
    """Return whether a file's name ends as that of a DICOM file."""
    return Path(path).suffix.lower() in SUFFIXES


def is_dicom(source: str | Path | IO[bytes]) -> bool:
    """Return whether a file is one of DICOM by its name, or by its first bytes if the name says nothing.

    Archives of hospitals write files without a suffix, or with a number that stands for none.

    Args:
        source: The file, or its content, which is left at its beginning.
    """
    if not isinstance(source, str | Path):
        begins = _begins_as_dicom(source)
        source.seek(0)
        return begins
    suffix = Path(source).suffix.lower()
    if suffix in SUFFIXES:
        return True
    if suffix and not suffix[1:].isdigit():
        return False
    try:
        if not Path(source).is_file():  # a pipe would be waited for
            return False
        with Path(source).open("rb") as file:
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
        width: Columns of a frame.
        height: Rows of a frame.
        frames: How many there are.
    """

    width: int
    height: int
    frames: int
    _header: "Dataset"
    _file: IO[bytes]

    @property
    def is_grey(self) -> bool:
        """Return whether its pixels have one value."""
        return self._header.PhotometricInterpretation in _GREY

    @property
    def inverted(self) -> bool:
        """Return whether the smallest of its grey values is white."""
        return bool(self._header.PhotometricInterpretation == "MONOCHROME1")

    def picture(self, frame: int) -> tuple[Image.Image, Presentation]:
        """Return a frame as an image, and how it is shown.

        Of grey values the image has mode I or F, in the units of the modality (Hounsfield units, say); colours have
        eight bits.

        Args:
            frame: From 0.

        Raises:
            DicomError: If it cannot be decoded.
        """
        array = self._decoded(frame)
        if self._header.PhotometricInterpretation == _PALETTE:
            from pydicom.pixels import apply_color_lut

            array = apply_color_lut(array, self._header)
            return Image.fromarray(_eight_bits(array, 8 * array.dtype.itemsize)), Presentation()
        if not self.is_grey:
            return Image.fromarray(_eight_bits(array, int(self._header.BitsStored))), Presentation()
        values = self._of_modality(array, frame)
        return Image.fromarray(values), Presentation(self._window(frame) or self._table(frame), self.inverted)

    def spacing(self) -> tuple[float, float, float]:
        """Return the distances between columns, rows and frames, in millimetres; ones where it does not say."""
        measures = self._groups(0, "PixelMeasuresSequence")
        pixels = measures.get("PixelSpacing") or self._header.get("ImagerPixelSpacing")
        between = measures.get("SpacingBetweenSlices") or measures.get("SliceThickness")
        down, across = (1.0, 1.0) if pixels is None else (_number(pixels[0]), _number(pixels[1]))
        apart = _number(between) if between is not None else down
        if min(down, across, apart) <= 0:
            raise DicomError("has distances between pixels that are not above 0")
        return across, down, apart

    def _decoded(self, frame: int) -> npt.NDArray[Any]:
        from pydicom.pixels import pixel_array

        if not 0 <= frame < self.frames:
            raise DicomError(f"has {self.frames} frames, no frame {frame}")
        syntax = self._header.file_meta.TransferSyntaxUID
        try:
            if syntax == _RLE:
                self._check_runs(frame)
            self._file.seek(0)
            array = pixel_array(self._file, index=frame)
        except DicomError:
            raise
        except (NotImplementedError, RuntimeError) as error:  # no decoder, or none that is installed
            kind = printable(getattr(syntax, "name", syntax))
            raise DicomError(f"cannot be decoded ({kind}); the package {_DECODERS} decodes more kinds") from error
        except Exception as error:  # on damaged files, anything
            raise DicomError(f"cannot be decoded ({printable(str(error) or type(error).__name__)})") from error
        if array.shape[:2] != (self.height, self.width):
            raise DicomError(f"has frames of another size than its header says ({array.shape})")
        return np.asarray(array)

    def _check_runs(self, frame: int) -> None:
        """Raise DicomError if run lengths unpack to more than a frame has; nothing is unpacked."""
        from pydicom import dcmread
        from pydicom.encaps import get_frame

        self._file.seek(0)
        data = cast(bytes, dcmread(self._file, specific_tags=["PixelData"]).PixelData)
        packed = get_frame(data, frame, number_of_frames=self.frames)
        starts = np.frombuffer(packed[:_RLE_HEADER], "<u4")
        count = int(starts[0]) if len(starts) == _RLE_HEADER // 4 else 0
        if not 1 <= count < len(starts):
            raise DicomError("is damaged: its run lengths have no header")
        ends = [*(int(each) for each in starts[2 : count + 1]), len(packed)]
        room = self.width * self.height
        for start, end in zip(map(int, starts[1 : count + 1]), ends, strict=True):
            place, unpacked = start, 0
            while place < min(end, len(packed)) and unpacked <= 2 * room:
                code = packed[place]
                unpacked += code + 1 if code < 128 else 257 - code if code > 128 else 0
                place += code + 2 if code < 128 else 2 if code > 128 else 1
            if unpacked > room + 1:  # of uneven length, a segment is filled up
                raise DicomError("has run lengths that unpack to more than its pixels")

    def _groups(self, frame: int, sequence: str) -> "Dataset":
        """Return where facts of a frame stand: its functional group, that of all frames, or the header itself."""
        each = self._header.get("PerFrameFunctionalGroupsSequence") or ()
        for group in (*each[frame : frame + 1], *(self._header.get("SharedFunctionalGroupsSequence") or ())[:1]):
            if found := group.get(sequence):
                return cast("Dataset", found[0])
        return self._header

    def _of_modality(self, array: npt.NDArray[Any], frame: int) -> npt.NDArray[Any]:
        """Return stored values in the units of the modality: int32 where they are whole, else float32."""
        from pydicom.pixels import apply_modality_lut

        facts = self._groups(frame, "PixelValueTransformationSequence")
        padding = self._header.get("PixelPaddingValue")
        if isinstance(padding, int) and (outside := array == padding).any() and not outside.all():
            array = np.where(outside, array[~outside].min(), array)
        if facts.get("ModalityLUTSequence"):
            return np.asarray(apply_modality_lut(array, facts), dtype=np.int32)
        slope, intercept = _number(facts.get("RescaleSlope", 1)), _number(facts.get("RescaleIntercept", 0))
        whole = slope == 1 and intercept.is_integer() and abs(intercept) < 1 << 30 and array.dtype.itemsize <= 2
        if whole:
            return array.astype(np.int32) + np.int32(intercept)
        return (array.astype(np.float64) * slope + intercept).astype(np.float32)

    def _window(self, frame: int) -> Window | None:
        facts = self._groups(frame, "FrameVOILUTSequence")
        centre, width = (_first(facts.get(name)) for name in ("WindowCenter", "WindowWidth"))
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
        descriptor, data = tables[0].LUTDescriptor, tables[0].LUTData
        entries = np.frombuffer(data, "<u2") if isinstance(data, bytes) else np.asarray(data)
        first, bits = int(descriptor[1]), int(descriptor[2])
        if not len(entries) or not 1 <= bits <= 16:
            raise DicomError("has a table of grey values that is empty or damaged")
        return Table(first, np.clip(entries.astype(np.float64) / ((1 << bits) - 1), 0, 1) * 255)


@contextmanager
def opened_dicom(file: IO[bytes], max_pixels: int) -> Iterator[DicomFile]:
    """Check the header of an open file, which may come from strangers.

    Args:
        file: The file, at its beginning.
        max_pixels: Of a frame, at most.

    Raises:
        DicomError: If it is no DICOM file with pixels, is damaged, or too large.
    """
    if not has_pydicom():
        raise DicomError(NEEDS_PYDICOM)
    header = _header(file)
    width, height, frames = (_count(header, name) for name in ("Columns", "Rows", "NumberOfFrames"))
    if width * height > max_pixels:
        raise DicomError(f"has {width}×{height} pixels, more than {max_pixels:,}")
    if frames > MAX_FRAMES:
        raise DicomError(f"has {frames:,} frames, more than {MAX_FRAMES:,}")
    yield DicomFile(width, height, frames, header, file)


def _header(file: IO[bytes]) -> "Dataset":
    from pydicom import dcmread
    from pydicom.errors import InvalidDicomError
    from pydicom.filereader import _read_file_meta_info as read_meta  # the public one opens a path, not a file
    from pydicom.filereader import read_preamble

    try:
        read_preamble(file, force=False)
        if read_meta(file).get("TransferSyntaxUID") == _DEFLATED:
            raise DicomError("is compressed as a whole (deflated), which is not read")
        file.seek(0)
        header = dcmread(file, stop_before_pixels=True, specific_tags=list(_TAGS))
    except DicomError:
        raise
    except InvalidDicomError as error:
        raise DicomError("is no DICOM file") from error
    except Exception as error:  # on damaged files, anything
        raise DicomError(f"cannot be read as DICOM ({printable(str(error) or type(error).__name__)})") from error
    kind = header.get("PhotometricInterpretation")
    samples = header.get("SamplesPerPixel")
    if kind is None or "Rows" not in header:
        raise DicomError("holds no picture")
    if kind not in (*_GREY, *_COLOURS, _PALETTE) or samples != (3 if kind in _COLOURS else 1):
        raise DicomError(
            f"has pixels of the kind {printable(kind)!r} with {printable(samples)} values, which is not read"
        )
    if "SegmentedRedPaletteColorLookupTableData" in header:
        raise DicomError("has a palette in segments, which is not read")
    if header.get("BitsAllocated") not in (8, 16, 32):
        raise DicomError(f"has {printable(header.get('BitsAllocated'))} bits a value; 8, 16 and 32 are read")
    return header


def _count(header: "Dataset", name: str) -> int:
    found = header.get(name)
    if found is None and name == "NumberOfFrames":
        return 1
    try:
        number = int(found)
    except (TypeError, ValueError) as error:
        raise DicomError(f"has no number as {name}") from error
    if number < 1:
        raise DicomError(f"has {number} as {name}")
    return number


def _first(value: Any) -> float | None:
    """Return a number, or the first of several; None if there is none."""
    several = isinstance(value, list | tuple) or (hasattr(value, "__iter__") and not isinstance(value, str))
    found = next(iter(value), None) if several else value
    return None if found is None or found == "" else _number(found)


def _number(value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError) as error:
        raise DicomError(f"has {printable(value)!r} where a number has to be") from error
    if not isfinite(number):
        raise DicomError(f"has {number} where a number has to be")
    return number


def _eight_bits(array: npt.NDArray[Any], bits: int) -> npt.NDArray[np.uint8]:
    """Return colours of so many bits with eight."""
    if bits == 8 and array.dtype == np.uint8:
        return array
    scaled = array.astype(np.float32) * np.float32(255 / ((1 << bits) - 1))
    return np.asarray(np.rint(scaled.clip(0, 255)), dtype=np.uint8)
