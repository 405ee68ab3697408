"""Records of arrays that lie in files, read by position when a batch asks for them."""

import io
import itertools
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt


class MappedRecords:
    """Reads records of a memory-mapped array by position, without mapping them into this process.

    A random access to a map can bring megabytes around it into resident memory, since the system maps whole folios of
    its file cache; reading at a position copies the record and nothing else.

    Args:
        array: The map; its first axis counts the records.
    """

    def __init__(self, array: npt.NDArray[np.uint8]) -> None:
        assert isinstance(array, np.memmap)
        assert array.dtype == np.uint8
        self._path, self._offset, self._shape = str(array.filename), array.offset, array.shape
        self._bytes = int(np.prod(self._shape[1:]))
        self._file: io.FileIO | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Leave the open file out: another process opens its own."""
        return {**self.__dict__, "_file": None}

    def __len__(self) -> int:
        """Return the number of records."""
        return int(self._shape[0])

    def __getitem__(self, positions: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
        """Return the records at the given positions; neighbours are read together.

        Raises:
            OSError: If the file has become shorter.
        """
        if self._file is None:
            self._file = io.FileIO(self._path)
        out = np.empty((len(positions), *self._shape[1:]), dtype=np.uint8)
        view, handle = memoryview(out.reshape(-1).data), self._file.fileno()
        starts = np.concatenate([[0], np.flatnonzero(np.diff(positions) != 1) + 1, [len(positions)]]).tolist()
        for first, last in itertools.pairwise(starts):
            start, stop = first * self._bytes, last * self._bytes
            offset = self._offset + int(positions[first]) * self._bytes
            while start < stop:
                count = os.preadv(handle, [view[start:stop]], offset)
                if count == 0:
                    raise OSError(f"{self._path}: is shorter than its manifest says")
                start, offset = start + count, offset + count
        return out


class JoinedRecords:
    """Records of several arrays as if they were one.

    Args:
        parts: Arrays, and the positions of the records that are taken of each.
    """

    def __init__(self, parts: Sequence[tuple[MappedRecords, npt.NDArray[np.int64]]]) -> None:
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


Records = MappedRecords | JoinedRecords


def is_mapped(array: Any) -> bool:
    """Return whether an array lies in a file and is not read yet."""
    return isinstance(array, np.memmap | MappedRecords | JoinedRecords)


def records_of(array: Any) -> Records:
    """Return what reads the records of such an array by position."""
    return array if isinstance(array, MappedRecords | JoinedRecords) else MappedRecords(array)
