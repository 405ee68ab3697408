"""The files of a DICOM series as the slices of one volume: which belong together, and in which order they lie.

Scanners write a file a slice. Those of one series that lie in the same folder are a volume, for which any of them
stands.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt

from visionforge.data.dicom import DicomFile, is_dicom
from visionforge.data.dicom_header import DicomError, Header, SliceFacts, read_header, read_slice_facts
from visionforge.data.nifti_header import MAX_SLICE
from visionforge.data.pictures import MAX_FILE, PictureError, opened_file

MAX_FILES = 20_000  # of a folder that are looked through
PARALLEL = 1e-3  # by which cosines of slices may differ
SAME_PLACE = 1e-3  # of the usual distance
MISSING = 1.5  # times the usual distance, between neighbours
_FOLDERS = 8  # of which the series are kept


@dataclass(frozen=True)
class Series:
    """The slices of a volume, in their order.

    Attributes:
        paths: Their files.
        apart: Distance between them in millimetres; None where they do not say where they lie.
    """

    paths: tuple[Path, ...]
    apart: float | None

    def slices(self, first: Header) -> Iterator[npt.NDArray[np.float64]]:
        """Yield them (H, W, colours), grey values in the units of the modality; see `DicomFile.slices`.

        Args:
            first: The header of the first of them, which the others have to be like.

        Raises:
            DicomError: If one cannot be decoded, or is of another kind.
        """
        least = min((each.least() for each in self._files(first)), default=0.0) if first.padding is not None else None
        for each in self._files(first):
            yield from each.slices(least)

    def _files(self, first: Header) -> Iterator[DicomFile]:
        like = (first.width, first.height, first.kind)
        for path in self.paths:
            with opened_file(path, MAX_FILE) as file:
                header = read_header(file, MAX_SLICE)
                if (header.width, header.height, header.kind) != like or header.frames > 1:
                    raise DicomError(f"has slices of several sizes or kinds in its series ({path.name})")
                yield DicomFile(header, file)


def series_of(path: Path) -> Series | None:
    """Return the slices of the series of a file, of those in its folder; None if there are no others.

    Raises:
        DicomError: If they do not say in which order they come, are not parallel, lie at the same place, or one seems
            to be missing.
    """
    folder = path.parent
    paths = _looked_through(folder, folder.stat().st_mtime_ns).get(_facts(path).series, ())
    return _ordered(paths) if len(paths) > 1 else None


def stand_ins(paths: Sequence[Path | str]) -> list[int]:
    """Return for each file the position of that which stands for its volume: of slices of a series the first.

    What cannot be read, has several frames or is no DICOM file stands for itself.

    Args:
        paths: Files.
    """
    first: dict[tuple[Path, str], int] = {}
    keys = [_key(path) if is_dicom(path) else None for path in map(Path, paths)]
    return [position if key is None else first.setdefault(key, position) for position, key in enumerate(keys)]


def _key(path: Path) -> tuple[Path, str] | None:
    """Return folder and series of a file; None if it is no slice."""
    try:
        facts = _facts(path)
    except (OSError, DicomError, PictureError):  # told where it is read
        return None
    return (path.parent, facts.series) if facts.frames == 1 and facts.series else None


@lru_cache(maxsize=_FOLDERS)
def _looked_through(folder: Path, changed: int) -> dict[str, tuple[Path, ...]]:
    """Return series → the files of its slices in a folder.

    Args:
        folder: The folder.
        changed: When, so that what is kept is not that of before.
    """
    found: dict[str, list[Path]] = {}
    for number, path in enumerate(sorted(folder.iterdir())):
        if number >= MAX_FILES:
            raise DicomError(f"lies in a folder of more than {MAX_FILES:,} files; put each series into one of its own")
        if not path.name.startswith(".") and is_dicom(path) and (key := _key(path)) is not None:
            found.setdefault(key[1], []).append(path)
    return {series: tuple(paths) for series, paths in found.items()}


def _facts(path: Path) -> SliceFacts:
    return _read_facts(path, path.stat().st_mtime_ns)


@lru_cache(maxsize=MAX_FILES)
def _read_facts(path: Path, changed: int) -> SliceFacts:
    with opened_file(path, MAX_FILE) as file:
        return read_slice_facts(file)


# --- order


def _ordered(paths: Sequence[Path]) -> Series:
    facts = [_facts(path) for path in paths]
    places = _places(facts)
    along = places is not None
    if places is None:
        numbers = [each.number for each in facts]
        if any(number is None for number in numbers):
            raise DicomError("does not say in which order the slices of its series come")
        places = np.array(numbers, dtype=np.float64)
    order = np.argsort(places, kind="stable")
    steps = np.diff(places[order])
    usual = float(np.median(steps))
    if steps.min() <= SAME_PLACE * usual or usual == 0:
        raise DicomError(
            "has several slices at the same place in its series, as of phases or echoes; put each of these into a "
            "folder of its own"
        )
    if steps.max() > MISSING * usual:
        at = int(np.argmax(steps))
        one, two = (paths[order[place]].name for place in (at, at + 1))
        raise DicomError(f"has a series of which slices seem to be missing, between {one} and {two}")
    return Series(tuple(paths[place] for place in order), usual if along else None)


def _places(facts: Sequence[SliceFacts]) -> npt.NDArray[np.float64] | None:
    """Return where slices lie along the direction in which they follow each other; None if they do not say it.

    For a scan across the body that is from the feet to the head.

    Raises:
        DicomError: If they are not parallel.
    """
    if any(each.position is None or each.orientation is None for each in facts):
        return None
    directions = np.array([each.orientation for each in facts])
    if any(np.abs(one - two).max() > PARALLEL for one, two in pairwise(directions)):
        raise DicomError("has slices in its series that are not parallel")
    normal = np.cross(directions[0, :3], directions[0, 3:])
    positions: npt.NDArray[np.float64] = np.array([each.position for each in facts])
    return positions @ normal
