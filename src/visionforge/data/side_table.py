"""What an archive may hold beside its images: the name and the group of every picture, as texts.

They are optional members ``{split}_names`` and ``{split}_groups``, each a one-dimensional array of NumPy's text type
(``<U…``) with an entry per image of the split.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from math import prod
from pathlib import Path

import numpy as np
import numpy.typing as npt

from visionforge.data.info import Split
from visionforge.data.npy import read_array, read_header
from visionforge.data.zipped import READ_ERRORS, open_zip
from visionforge.errors import DataError

MAX_CHARACTERS = 4096  # of one text; no path of a file system is longer
MAX_BYTES = 1 << 29  # of one column; a million names of 128 characters


@dataclass(frozen=True)
class SideTable:
    """What is known of each image of a split, in the order of the images.

    Attributes:
        names: Where each picture lay when it was imported, relative to its source, with ``/``; None if that is unknown.
        groups: What must stay together, such as a patient; None if that is unknown.
    """

    names: tuple[str, ...] | None = None
    groups: tuple[str, ...] | None = None

    @property
    def known(self) -> dict[str, tuple[str, ...]]:
        """Return the columns that are known, by the headings that they have in tables."""
        columns = {"name": self.names, "group": self.groups}
        return {heading: texts for heading, texts in columns.items() if texts is not None}

    @classmethod
    def joined(cls, tables: "Sequence[SideTable]") -> "SideTable":
        """Return the rows of several tables, one after the other; a column that one of them lacks is unknown."""
        columns = []
        for every in ([table.names for table in tables], [table.groups for table in tables]):
            known = [column for column in every if column is not None]
            columns.append(tuple(chain(*known)) if len(known) == len(every) else None)
        return cls(columns[0], columns[1])

    def at(self, positions: npt.NDArray[np.int64] | None) -> "SideTable":
        """Return the rows at these positions; None gives all."""
        if positions is None:
            return self
        columns = [None if c is None else tuple(c[k] for k in positions.tolist()) for c in (self.names, self.groups)]
        return SideTable(columns[0], columns[1])


def read_side_table(path: Path, split: Split, count: int) -> SideTable:
    """Return the names and groups of a split; an archive that brings none has an empty table.

    Args:
        path: The archive; it may come from strangers.
        split: Which split.
        count: Number of its images.

    Raises:
        DataError: If the archive cannot be read, or a column is no text, has another length, or is too large.
    """
    try:
        return SideTable(_column(path, f"{split}_names", count), _column(path, f"{split}_groups", count))
    except READ_ERRORS as error:
        raise DataError(f"{path}: cannot be read ({error}); delete the file and get it again") from error


def _column(path: Path, name: str, count: int) -> tuple[str, ...] | None:
    with open_zip(path) as archive:
        if f"{name}.npy" not in archive.NameToInfo:
            return None
        member = archive.getinfo(f"{name}.npy")
        try:
            with archive.open(member) as file:
                problem = _problem(*read_header(file), count)
            if problem is None:
                with archive.open(member) as file:
                    return tuple(map(well_formed, read_array(file, member.file_size, MAX_BYTES).tolist()))
        except READ_ERRORS as error:
            problem = f"cannot be unpacked ({error})"
    raise DataError(f"{path}: {name} {problem}; it is optional: leave it out, or write texts, one per image")


def well_formed(text: str) -> str:
    """Return a text that every encoding takes: what is no UTF-8 in a file's name is written as escapes."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _problem(shape: tuple[int, ...], dtype: np.dtype[np.generic], count: int) -> str | None:
    if dtype.hasobject:
        return "holds Python objects (pickle), which are never loaded"
    if dtype.kind != "U":
        return f"has the type {dtype}, expected text"
    if shape != (count,):
        return f"has the shape {shape}, expected ({count},)"
    if dtype.itemsize > 4 * MAX_CHARACTERS or prod(shape) * max(4, dtype.itemsize) > MAX_BYTES:
        return f"has texts of {dtype.itemsize // 4:,} characters, which is too much"
    return None
