"""Asks the system to read parts of files before an epoch comes to them.

Records that are read one by one in random order cost a request of the disk each, even where all of a stretch is needed
in a moment, as with the sampler `blocks`. The system is told of such stretches, and reads them at once into its own
cache, which costs this process no memory. Elsewhere than on Linux nothing is done.
"""

import io
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt

WINDOW_BYTES = 1 << 28  # of records that are looked at together; twice as many are in the system's cache
WINDOW_RECORDS = 1 << 16
DENSE = 0.5  # share of a stretch that has to be needed
LARGEST_GAP = 64  # records within a stretch that are not needed
LARGE_RECORD = 1 << 16  # bytes, from which on a disk does as well with single records

Place = Callable[[npt.NDArray[np.int64]], tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]]


class ReadAhead:
    """Tells the system of the records that follow.

    Args:
        order: (N,) positions of an epoch's records.
        each: Bytes of a record.
        places: Positions → the number of the file of each, and its bytes before the record.
        handle: Number of a file → the open file.
        processes: How many take turns in the whole order; what others need in a stretch counts, too.
    """

    def __init__(
        self,
        order: npt.NDArray[np.int64],
        each: int,
        places: Place,
        handle: Callable[[int], io.FileIO],
        processes: int = 1,
    ) -> None:
        self._order, self._each, self._places, self._handle = order, each, places, handle
        self._dense = DENSE / processes
        self._window = max(1, min(WINDOW_RECORDS, WINDOW_BYTES // each))
        self._asked = 0  # positions in the order that the system knows of
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="read-ahead")

    @staticmethod
    def helps(each: int) -> bool:
        """Return whether records of so many bytes gain from it here."""
        return hasattr(os, "posix_fadvise") and each < LARGE_RECORD

    def advance(self, position: int) -> None:
        """Tell of the window after the one that the position is in."""
        self._asked = max(self._asked, position)  # an epoch may begin in its middle
        while self._asked < min(len(self._order), position + 2 * self._window):
            part = self._order[self._asked : self._asked + self._window]
            self._asked += len(part)
            self._pool.submit(self._ask, part)

    def close(self) -> None:
        """Stop."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _ask(self, part: npt.NDArray[np.int64]) -> None:
        """Tell of the stretches in which most records are needed."""
        wanted = np.unique(part)
        owners, offsets = self._places(wanted)
        breaks = np.flatnonzero((np.diff(wanted) > LARGEST_GAP) | (np.diff(owners) != 0)) + 1
        first, last = np.concatenate([[0], breaks]), np.concatenate([breaks, [len(wanted)]]) - 1
        lengths = wanted[last] - wanted[first] + 1
        dense = (last - first + 1) >= self._dense * lengths
        for start, stop in zip(first[dense & (lengths > 1)], last[dense & (lengths > 1)], strict=True):
            size = int(offsets[stop] - offsets[start]) + self._each
            handle = self._handle(int(owners[start])).fileno()
            os.posix_fadvise(handle, int(offsets[start]), size, os.POSIX_FADV_WILLNEED)
