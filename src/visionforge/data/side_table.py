"""What an archive may hold beside its images, as texts: name and group of every picture, and columns of a table.

They are optional members ``{split}_names`` and ``{split}_groups``, each a one-dimensional array of NumPy's text type
(``<U…``) with an entry per image of the split. Further columns, such as age, sex and site, are ``column_names`` (C,)
and for every split ``{split}_columns`` (N, C).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from math import prod
from pathlib import Path

import numpy as np
import numpy.typing as npt

from visionforge.data.info import MAX_COLUMNS, Split
from visionforge.data.kept_columns import MAX_CELL, MAX_HEADING, headings_problem
from visionforge.data.npy import read_array, read_header
from visionforge.data.zipped import READ_ERRORS, open_zip
from visionforge.errors import DataError
from visionforge.printable import printable

MAX_CHARACTERS = 4096  # of one text; no path of a file system is longer
MAX_BYTES = 1 << 29  # of one column; a million names of 128 characters


@dataclass(frozen=True)
class SideTable:
    """What is known of each image of a split, in the order of the images.

    Attributes:
        names: Where each picture lay when it was imported, relative to its source, with ``/``; None if that is unknown.
        groups: What must stay together, such as a patient; None if that is unknown.
        columns: Heading → further texts, such as those of age, sex and site.
    """

    names: tuple[str, ...] | None = None
    groups: tuple[str, ...] | None = None
    columns: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def known(self) -> dict[str, tuple[str, ...]]:
        """Return the columns that are known, by the headings that they have in tables."""
        columns = {"name": self.names, "group": self.groups, **self.columns}
        return {heading: texts for heading, texts in columns.items() if texts is not None}

    @classmethod
    def joined(cls, tables: "Sequence[SideTable]") -> "SideTable":
        """Return the rows of several tables, one after the other; a column that one of them lacks is unknown."""
        columns, same = [], [heading for heading in tables[0].columns if all(heading in t.columns for t in tables)]
        for every in ([table.names for table in tables], [table.groups for table in tables]):
            known = [column for column in every if column is not None]
            columns.append(tuple(chain(*known)) if len(known) == len(every) else None)
        further = {heading: tuple(chain(*(table.columns[heading] for table in tables))) for heading in same}
        return cls(columns[0], columns[1], further)

    @property
    def whole_groups(self) -> tuple[str, ...] | None:
        """Return the groups if every image has one; None if they are unknown, or some are blank."""
        known = self.groups is not None and all(map(str.strip, self.groups))
        return self.groups if known else None

    def at(self, positions: npt.NDArray[np.int64] | None) -> "SideTable":
        """Return the rows at these positions; None gives all."""
        if positions is None:
            return self
        rows = positions.tolist()
        names, groups = (None if c is None else tuple(c[k] for k in rows) for c in (self.names, self.groups))
        return SideTable(names, groups, {heading: tuple(c[k] for k in rows) for heading, c in self.columns.items()})


def read_side_table(path: Path, split: Split, count: int) -> SideTable:
    """Return the names, groups and columns of a split; an archive that brings none has an empty table.

    Args:
        path: The archive; it may come from strangers.
        split: Which split.
        count: Number of its images.

    Raises:
        DataError: If the archive cannot be read, or a column is no text, has another length, or is too large.
    """
    try:
        names, groups = (_column(path, f"{split}_{kind}", count) for kind in ("names", "groups"))
        return SideTable(names, groups, _columns(path, split, count))
    except READ_ERRORS as error:
        raise DataError(f"{path}: cannot be read ({error}); delete the file and get it again") from error


def side_members(side: SideTable, split: Split, notes: list[str]) -> dict[str, npt.NDArray[np.str_]]:
    """Return the members of an archive that hold the names, groups and columns of a split.

    Args:
        side: What is known of its images.
        split: Which split.
        notes: Names or groups that would take too much room are left out, which is noted here.

    Raises:
        DataError: If the columns take too much room.
    """
    members: dict[str, npt.NDArray[np.str_]] = {}
    for kind, texts in (("names", side.names), ("groups", side.groups)):
        if texts is None:
            continue
        longest = max(map(len, texts))
        if longest > MAX_CHARACTERS or 4 * longest * len(texts) > MAX_BYTES:
            notes.append(f"the {kind} of {split} are not kept: texts of {longest:,} characters take too much room")
        else:
            members[f"{split}_{kind}"] = np.array(texts, dtype=f"<U{max(1, longest)}")
    if side.columns:
        cells = np.array(list(side.columns.values())).T
        if cells.nbytes > MAX_BYTES:
            raise DataError(
                f"columns: those of {split} take {cells.nbytes:,} bytes, more than {MAX_BYTES:,}; keep fewer"
            )
        members["column_names"] = np.array(list(side.columns))
        members[f"{split}_columns"] = cells
    return members


def read_headings(path: Path) -> tuple[str, ...]:
    """Return the headings of the columns that an archive keeps beside its images.

    Args:
        path: The archive; it may come from strangers.

    Raises:
        DataError: If it cannot be read, or they are no headings.
    """
    try:
        found = _texts(path, "column_names", (None,), MAX_HEADING, MAX_COLUMNS)
    except READ_ERRORS as error:
        raise DataError(f"{path}: cannot be read ({error}); delete the file and get it again") from error
    headings = () if found is None else tuple(map(str, found.tolist()))
    if problem := headings_problem(headings):
        raise DataError(f"{path}: column_names {problem}; it is optional")
    return headings


def _columns(path: Path, split: Split, count: int) -> dict[str, tuple[str, ...]]:
    headings = read_headings(path)
    cells = _texts(path, f"{split}_columns", (count, len(headings)), MAX_CELL)
    if (cells is None) != (not headings):
        there, lacking = ("column_names", f"{split}_columns") if headings else (f"{split}_columns", "column_names")
        raise DataError(f"{path}: has {there} without {lacking}; both are optional: leave both out, or write both")
    if cells is None:
        return {}
    return {heading: tuple(map(printable, cells[:, place].tolist())) for place, heading in enumerate(headings)}


def _column(path: Path, name: str, count: int) -> tuple[str, ...] | None:
    texts = _texts(path, name, (count,), MAX_CHARACTERS)
    return None if texts is None else tuple(map(well_formed, texts.tolist()))


def _texts(
    path: Path, name: str, wanted: tuple[int | None, ...], longest: int, most: int | None = None
) -> npt.NDArray[np.str_] | None:
    """Return a member of texts, whose header was looked at before memory is taken; None if it is not there."""
    with open_zip(path) as archive:
        if f"{name}.npy" not in archive.NameToInfo:
            return None
        member = archive.getinfo(f"{name}.npy")
        try:
            with archive.open(member) as file:
                problem = _problem(*read_header(file), wanted, longest, most)
            if problem is None:
                with archive.open(member) as file:
                    texts: npt.NDArray[np.str_] = read_array(file, member.file_size, MAX_BYTES)
                    texts.tolist()  # numbers beyond Unicode are found here
                    return texts
        except READ_ERRORS as error:
            problem = f"cannot be unpacked ({error})"
    what = "one per image" if None not in wanted else "one per column"
    raise DataError(f"{path}: {name} {problem}; it is optional: leave it out, or write texts, {what}")


def well_formed(text: str) -> str:
    """Return a text that every encoding takes: what is no UTF-8 in a file's name is written as escapes."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _problem(
    shape: tuple[int, ...], dtype: np.dtype[np.generic], wanted: tuple[int | None, ...], longest: int, most: int | None
) -> str | None:
    if dtype.hasobject:
        return "holds Python objects (pickle), which are never loaded"
    if dtype.kind != "U":
        return f"has the type {dtype}, expected text"
    fits = [known is None or known == found for known, found in zip(wanted, shape, strict=False)]
    if len(shape) != len(wanted) or not all(fits):
        allowed = ", ".join("C" if known is None else str(known) for known in wanted)
        return f"has the shape {shape}, expected ({allowed}{',' * (len(wanted) == 1)})"
    if most is not None and shape[0] > most:
        return f"has {shape[0]:,} texts, allowed: at most {most}"
    if dtype.itemsize > 4 * longest or prod(shape) * max(4, dtype.itemsize) > MAX_BYTES:
        return f"has texts of {dtype.itemsize // 4:,} characters, which is too much"
    return None
