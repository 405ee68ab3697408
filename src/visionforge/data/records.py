"""Records of arrays that lie in files, read by position when a batch asks for them."""

import copy
import io
import itertools
import os
from collections.abc import Sequence
from math import prod
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from visionforge.data.read_ahead import ReadAhead


class Ahead(Protocol):
    """Gets files ahead of a position in the order of an epoch."""

    def advance(self, position: int) -> None:
        """Ask for the files that are needed from a position on."""

    def close(self) -> None:
        """Stop."""


class Records:
    """Records of files, which are read when they are asked for by position."""

    def __len__(self) -> int:
        """Return the number of records."""
        raise NotImplementedError

    def __getitem__(self, positions: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
        """Return the records at the given positions."""
        raise NotImplementedError

    @property
    def streams(self) -> bool:
        """Whether their files are got while they are needed."""
        return False

    def look_ahead(self, order: npt.NDArray[np.int64], processes: int = 1) -> Ahead | None:
        """Return what gets files, or has them read, before an epoch comes to them; None where that gains nothing.

        Args:
            order: (N,) positions of the records of the epoch, of this process.
            processes: How many take turns in the whole order.
        """
        return None


class FileRecords(Records):
    """Records of one shape that lie one after the other in files.

    A kind has `_places` and `_handle`.

    Args:
        shape: (N, …) of all records together, of which each value is a byte.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.shape = shape

    def __len__(self) -> int:
        """Return the number of records."""
        return self.shape[0]

    def __getitem__(self, positions: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
        """Return the records at the given positions; neighbours are read together.

        Raises:
            OSError: If a file has become shorter.
        """
        out = np.empty((len(positions), *self.shape[1:]), dtype=np.uint8)
        if not len(positions):
            return out
        owners, offsets = self._places(positions)
        breaks = np.flatnonzero((np.diff(positions) != 1) | (np.diff(owners) != 0)) + 1
        each, view = self._each, memoryview(out.reshape(-1).data)
        for first, last in itertools.pairwise([0, *breaks.tolist(), len(positions)]):
            file = self._handle(int(owners[first]))
            start, stop, offset = first * each, last * each, int(offsets[first])
            while start < stop:
                count = os.preadv(file.fileno(), [view[start:stop]], offset)
                if count == 0:
                    raise OSError(f"{file.name!s}: is shorter than was said")
                start, offset = start + count, offset + count
        return out

    def look_ahead(self, order: npt.NDArray[np.int64], processes: int = 1) -> Ahead | None:
        """Return what has records read before the epoch comes to them; None where that gains nothing."""
        own = copy.copy(self)  # with open files of its own, for its thread
        helps = ReadAhead.helps(self._each)
        return ReadAhead(order, self._each, own._places, own._handle, processes) if helps else None

    @property
    def _each(self) -> int:
        """Bytes of a record."""
        return prod(self.shape[1:])

    def _places(self, positions: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Return the number of the file of each record, and the bytes before it there."""
        raise NotImplementedError

    def _handle(self, place: int) -> io.FileIO:
        """Return an open file by its number."""
        raise NotImplementedError


class MappedRecords(FileRecords):
    """Reads records of a memory-mapped array by position, without mapping them into this process.

    A random access to a map can bring megabytes around it into resident memory, since the system maps whole folios of
    its file cache; reading at a position copies the record and nothing else.

    Args:
        array: The map; its first axis counts the records.
    """

    def __init__(self, array: npt.NDArray[np.uint8]) -> None:
        assert isinstance(array, np.memmap)
        assert array.dtype == np.uint8
        super().__init__(array.shape)
        self._path, self._offset = str(array.filename), array.offset
        self._file: io.FileIO | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Leave the open file out: another process opens its own."""
        return {**self.__dict__, "_file": None}

    def _places(self, positions: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        return np.zeros_like(positions), self._offset + positions * self._each

    def _handle(self, place: int) -> io.FileIO:
        if self._file is None:
            self._file = io.FileIO(self._path)
        return self._file


class JoinedRecords(Records):
    """Records of several arrays as if they were one.

    Args:
        parts: Arrays, and the positions of the records that are taken of each.
    """

    def __init__(self, parts: Sequence[tuple[Records, npt.NDArray[np.int64]]]) -> None:
        self._parts = parts
        self._starts = np.cumsum([0, *(len(chosen) for _, chosen in parts)])

    def __len__(self) -> int:
        """Return the number of records."""
        return int(self._starts[-1])

    def __getitem__(self, positions: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
        """Return the records at the given positions."""
        owner = np.searchsorted(self._starts, positions, side="right") - 1
        found: npt.NDArray[np.uint8] | None = None
        for place in np.unique(owner):
            records, chosen = self._parts[place]
            mine = owner == place
            read = records[chosen[positions[mine] - self._starts[place]]]
            if found is None:
                found = np.empty((len(positions), *read.shape[1:]), dtype=np.uint8)
            found[mine] = read
        assert found is not None, "a batch has at least one record"
        return found


def is_mapped(array: Any) -> bool:
    """Return whether an array lies in a file and is not read yet."""
    return isinstance(array, np.memmap | Records)


def records_of(array: Any) -> Records:
    """Return what reads the records of such an array by position."""
    return array if isinstance(array, Records) else MappedRecords(array)
