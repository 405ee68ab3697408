"""The header of a DICOM file from strangers, bounded while it is read; what tells of a patient is read apart."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from typing import IO, TYPE_CHECKING, Any

from visionforge.printable import printable

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

MAX_FRAMES = 1 << 16
MAX_READS = 100_000  # of a header: two or three an element; frames with facts of their own have some fifty
MAX_BYTES = 1 << 25  # of a header that are read; what stands before the pixels and is not of these tags is passed over
COLOURS = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_PARTIAL_420", "YBR_ICT", "YBR_RCT")
GREY = ("MONOCHROME1", "MONOCHROME2")
PALETTE = "PALETTE COLOR"
_DEFLATED = "1.2.840.10008.1.2.1.99"  # the whole file is compressed, to a size that nobody knows before
_PALETTES = ("Red", "Green", "Blue")
_TAGS = (  # that are read; an absent one costs nothing
    *("Rows", "Columns", "NumberOfFrames", "SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration"),
    *("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "PixelPaddingValue", "PixelPaddingRangeLimit"),
    *("RescaleSlope", "RescaleIntercept", "ModalityLUTSequence"),
    *("WindowCenter", "WindowWidth", "VOILUTFunction", "VOILUTSequence"),
    *("PixelSpacing", "ImagerPixelSpacing", "SpacingBetweenSlices", "SliceThickness", "GridFrameOffsetVector"),
    *("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"),
    *(f"{colour}PaletteColorLookupTable{part}" for colour in _PALETTES for part in ("Descriptor", "Data")),
    "SegmentedRedPaletteColorLookupTableData",
)


_IDENTITY = ("PatientID", "IssuerOfPatientID", "StudyInstanceUID")
_SLICE = ("SeriesInstanceUID", "NumberOfFrames", "InstanceNumber", "ImagePositionPatient", "ImageOrientationPatient")


class DicomError(Exception):
    """A DICOM file that cannot be read; the message says why."""


@dataclass(frozen=True)
class Header:
    """What describes the pixels of a file, checked.

    Attributes:
        width: Columns of a frame.
        height: Rows of a frame.
        frames: How many there are.
        kind: Of the pixels: grey, colours, or numbers of a palette.
        samples: Values of a pixel.
        bits_allocated: Of a value as it lies in the file.
        bits_stored: Of these, that count.
        padding: Smallest and largest stored value that stand for no pixel; None if there are no such.
        syntax: How the pixels are stored, as a UID.
        pixels_at: Where their element begins, in bytes.
        dataset: The elements.
    """

    width: int
    height: int
    frames: int
    kind: str
    samples: int
    bits_allocated: int
    bits_stored: int
    padding: tuple[int, int] | None
    syntax: str
    pixels_at: int
    dataset: "Dataset"

    def get(self, name: str) -> Any:
        """Return the value of an element; None if there is none."""
        return self.dataset.get(name)

    @property
    def compressed(self) -> bool:
        """Return whether frames are packed one by one."""
        return bool(self.dataset.file_meta.TransferSyntaxUID.is_encapsulated)

    @property
    def syntax_name(self) -> str:
        """Return what people call the way of storing."""
        return str(getattr(self.dataset.file_meta.TransferSyntaxUID, "name", self.syntax))

    @property
    def little_endian(self) -> bool:
        """Return whether the low byte of a word comes first."""
        return bool(self.dataset.file_meta.TransferSyntaxUID.is_little_endian)


class _Bounded:
    """A file of which so much is read at most, in so many pieces: small elements take many times their size.

    Args:
        file: The file.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._reads, self._bytes = file, 0, 0
        self.seek, self.tell = file.seek, file.tell
        self.name = ""

    def read(self, size: int = -1) -> bytes:
        """Return bytes, as a file does."""
        self._reads += 1
        data = self._file.read(MAX_BYTES + 1 if size < 0 else min(size, MAX_BYTES + 1))
        self._bytes += len(data)
        if self._reads > MAX_READS or self._bytes > MAX_BYTES:
            raise DicomError(f"has a header of more than {MAX_READS // 2:,} elements or {MAX_BYTES:,} bytes")
        return data


def read_header(file: IO[bytes], max_pixels: int) -> Header:
    """Read and check a header.

    Args:
        file: The file, at its beginning.
        max_pixels: Of a frame, at most.

    Raises:
        DicomError: If it is no DICOM file with pixels that are read, is damaged, or too large.
    """
    dataset = _dataset(file)
    at = file.tell()
    kind, samples = dataset.get("PhotometricInterpretation"), dataset.get("SamplesPerPixel")
    if kind is None or "Rows" not in dataset:
        raise DicomError("holds no picture")
    if kind not in (*GREY, *COLOURS, PALETTE) or samples != (3 if kind in COLOURS else 1):
        what = f"{printable(kind)!r} with {printable(samples)} values"
        raise DicomError(f"has pixels of the kind {what}, which is not read")
    if "SegmentedRedPaletteColorLookupTableData" in dataset:
        raise DicomError("has a palette in segments, which is not read")
    allocated, stored = dataset.get("BitsAllocated"), dataset.get("BitsStored")
    if allocated not in (8, 16, 32):
        raise DicomError(f"has {printable(allocated)} bits a value; 8, 16 and 32 are read")
    if not isinstance(stored, int) or not 1 <= stored <= allocated or dataset.get("HighBit", stored - 1) != stored - 1:
        raise DicomError(f"has values of {printable(stored)} bits that do not begin with the lowest, which is not read")
    width, height, frames = (_count(dataset, name) for name in ("Columns", "Rows", "NumberOfFrames"))
    if width * height > max_pixels:
        raise DicomError(f"has {width}×{height} pixels, more than {max_pixels:,}")
    if frames > MAX_FRAMES:
        raise DicomError(f"has {frames:,} frames, more than {MAX_FRAMES:,}")
    syntax = str(dataset.file_meta.TransferSyntaxUID)
    return Header(width, height, frames, str(kind), samples, allocated, stored, _padding(dataset), syntax, at, dataset)


def read_identity(file: IO[bytes]) -> tuple[str, str]:
    """Return what tells one patient, and one study, from others; each is empty where the header does not say it.

    Args:
        file: The file, at its beginning.

    Raises:
        DicomError: If it is no DICOM file, or damaged.
    """
    dataset = _dataset(file, _IDENTITY)
    patient, issuer, study = (str(dataset.get(name) or "").strip() for name in _IDENTITY)
    return f"{issuer}\0{patient}" if patient else "", study


@dataclass(frozen=True)
class SliceFacts:
    """What tells the slices of a series apart.

    Attributes:
        series: By which those of one are known; empty where the header does not say it.
        frames: How many the file has.
        number: In the series; None where the header does not say it.
        position: (3,) of the first pixel in the patient, in millimetres; None where the header does not say it.
        orientation: (6,) cosines of rows and columns; None where the header does not say it.
    """

    series: str
    frames: int
    number: int | None
    position: tuple[float, ...] | None
    orientation: tuple[float, ...] | None


def read_slice_facts(file: IO[bytes]) -> SliceFacts:
    """Return what tells the slices of a series apart.

    Args:
        file: The file, at its beginning.

    Raises:
        DicomError: If it is no DICOM file, or damaged.
    """
    dataset = _dataset(file, _SLICE)
    number = first_of(dataset.get("InstanceNumber"))
    return SliceFacts(
        str(dataset.get("SeriesInstanceUID") or "").strip(),
        _count(dataset, "NumberOfFrames"),
        None if number is None else int(number),
        _numbers(dataset.get("ImagePositionPatient"), 3),
        _numbers(dataset.get("ImageOrientationPatient"), 6),
    )


def _numbers(values: Any, count: int) -> tuple[float, ...] | None:
    several = hasattr(values, "__iter__") and not isinstance(values, str)
    return tuple(map(number_of, values)) if several and len(values) == count else None


def _dataset(file: IO[bytes], tags: Sequence[str] = _TAGS) -> "Dataset":
    from pydicom import dcmread
    from pydicom.errors import InvalidDicomError
    from pydicom.filereader import _read_file_meta_info as read_meta  # the public one opens a path, not a file
    from pydicom.filereader import read_preamble

    bounded: Any = _Bounded(file)
    try:
        read_preamble(bounded, force=False)
        if read_meta(bounded).get("TransferSyntaxUID") == _DEFLATED:
            raise DicomError("is compressed as a whole (deflated), which is not read")
        file.seek(0)
        return dcmread(bounded, stop_before_pixels=True, specific_tags=list(tags))
    except DicomError:
        raise
    except InvalidDicomError as error:
        raise DicomError("is no DICOM file") from error
    except Exception as error:  # on damaged files, anything
        raise DicomError(f"cannot be read as DICOM ({printable(str(error) or type(error).__name__)})") from error


def _count(dataset: "Dataset", name: str) -> int:
    found = dataset.get(name)
    if found is None and name == "NumberOfFrames":
        return 1
    try:
        number = int(found)
    except (TypeError, ValueError) as error:
        raise DicomError(f"has no number as {name}") from error
    if number < 1:
        raise DicomError(f"has {number} as {name}")
    return number


def _padding(dataset: "Dataset") -> tuple[int, int] | None:
    ends = [dataset.get(name) for name in ("PixelPaddingValue", "PixelPaddingRangeLimit")]
    known = [end for end in ends if isinstance(end, int)]
    return (min(known), max(known)) if isinstance(ends[0], int) else None


def first_of(value: Any) -> float | None:
    """Return a number, or the first of several; None if there is none."""
    several = hasattr(value, "__iter__") and not isinstance(value, str)
    found = next(iter(value), None) if several else value
    return None if found is None or found == "" else number_of(found)


def number_of(value: Any) -> float:
    """Return a number.

    Raises:
        DicomError: If it is none, or not finite.
    """
    try:
        number = float(value)
    except (TypeError, ValueError) as error:
        raise DicomError(f"has {printable(value)!r} where a number has to be") from error
    if not isfinite(number):
        raise DicomError(f"has {number} where a number has to be")
    return number
