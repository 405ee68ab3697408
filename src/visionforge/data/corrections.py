"""Corrections of labels, as somebody has filled them into the table of an audit, and the data set that they make."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from visionforge.config.schema.tasks import task_named
from visionforge.data.info import MAX_SPLIT, SPLITS, Split
from visionforge.data.listing import class_name, first_of, some
from visionforge.data.table_files import read_table
from visionforge.errors import DataError

REMOVE = "remove"  # in place of a class: the picture is left out
_COLUMNS = ("split", "index", "name", "label", "corrected")
_JOINT = "|"  # between the labels of a picture


@dataclass(frozen=True)
class Correction:
    """A row that somebody has filled in.

    Attributes:
        line: Its number among the rows, the heading is 1.
        name: Of the picture; empty if the table has none.
        place: Split and position in it; None if the table has none.
        label: The label that it had; None if the table does not say.
        corrected: What it is.
    """

    line: int
    name: str
    place: tuple[Split, int] | None
    label: str | None
    corrected: str


@dataclass(frozen=True)
class Corrected:
    """What corrections come to.

    Attributes:
        labels: (N,) or (N, K), as they are then.
        removed: (N,) whether a picture is left out.
        summary: What was changed, in a line.
    """

    labels: npt.NDArray[np.integer]
    removed: npt.NDArray[np.bool_]
    summary: str


@dataclass
class _Problems:
    """What is wrong with rows, by kind."""

    kinds: dict[str, list[str]] = field(default_factory=dict)

    def add(self, kind: str, what: str) -> None:
        self.kinds.setdefault(kind, []).append(what)


def read_corrections(path: Path) -> list[Correction]:
    """Return the rows of a table whose column `corrected` is filled in.

    Args:
        path: A table (CSV or Excel workbook) with `corrected`, and `name`, or `split` and `index`; `label` is compared
            if it is there.

    Raises:
        DataError: If it is no such table, or none is filled in.
    """
    try:
        rows = read_table(path).rows
    except DataError as error:
        raise DataError([f"corrections: {problem}" for problem in error.problems]) from error
    columns = list(rows[0].cells)
    known = {name for name in _COLUMNS if name in columns}
    if "corrected" not in known or not ("name" in known or {"split", "index"} <= known):
        raise DataError(
            f"corrections: {path} needs the column corrected, and name, or split and index; it has: {some(columns)}"
        )
    found = []
    for row in rows:
        cells = {name: _text(row.cells[name]) for name in known}
        if cells["corrected"]:
            place = _place(cells, path, row.line) if {"split", "index"} <= known else None
            found.append(Correction(row.line, cells.get("name", ""), place, cells.get("label"), cells["corrected"]))
    if not found:
        raise DataError(f"corrections: {path} has no row whose column corrected is filled in")
    return found


def _text(cell: str) -> str:
    """Return what a cell says, without the apostrophe that keeps spreadsheets from taking it for a formula."""
    text = cell[1:] if cell[:1] == "'" and cell.lstrip("'")[:1] in tuple("=+-@\t\r") else cell
    return class_name(text)


def _place(cells: dict[str, str], path: Path, line: int) -> tuple[Split, int] | None:
    split, index = cells["split"], cells["index"]
    if not split and not index:
        return None
    known: dict[str, Split] = {name: name for name in SPLITS}
    whole = index.isascii() and index.isdecimal() and len(index) < 12 and int(index) < MAX_SPLIT
    if split not in known or not whole:
        raise DataError(f"corrections: {path}, row {line}: {split[:40]} {index[:40]} is no split and position in it")
    return known[split], int(index)


def apply_corrections(
    path: Path,
    labels: npt.NDArray[np.integer],
    classes: Sequence[str],
    task: str,
    names: Sequence[str] | None,
    places: Sequence[tuple[Split, int]] | None,
) -> Corrected:
    """Return the labels of pictures with the corrections of a table.

    Pictures of a data set are found by split and position, and must have the name that the row says; those of a source,
    whose splits are not known, by name.

    Args:
        path: The table.
        labels: (N,) classes, or (N, K) labels 0/1.
        classes: Names of the classes.
        task: Kind of labels.
        names: (N,) names of the pictures; None if they have none.
        places: (N,) split and position of each; None if they are found by name.

    Raises:
        DataError: With a line for every kind of problem: pictures or classes that are unknown, rows that contradict
            each other, and labels that are not those of the table.
    """
    several = task_named(task).several
    rows = read_corrections(path)
    where = _Finder(names, places)
    problems, seen = _Problems(), dict[int, str]()
    changed, removed, same = labels.copy(), np.zeros(len(labels), dtype=bool), 0
    number = {name: k for k, name in enumerate(classes)}
    for row in rows:
        called = row.name or (f"{row.place[0]} {row.place[1]:,}" if row.place else f"row {row.line}")
        found = where(row)
        if isinstance(found, str):
            problems.add(found, called)
            continue
        if seen.setdefault(found, row.corrected) != row.corrected:
            problems.add("pictures that are corrected in two ways", called)
        now = task_named(task).label_text(labels[found], classes)
        if row.label is not None and row.label != now and row.corrected != now:
            problems.add("pictures whose label is not the one in the table; is it of another version?", called)
        if row.corrected == REMOVE and REMOVE not in number:
            removed[found] = True
            continue
        parts = [part.strip() for part in row.corrected.split(_JOINT)] if several else [row.corrected]
        unknown = [part for part in parts if part not in number and not (several and part == "none")]
        if unknown:
            problems.add(f"unknown classes (allowed: {some(classes)}, {REMOVE})", unknown[0][:60])
            continue
        if several:
            changed[found] = 0
            changed[found, [number[part] for part in parts if part in number]] = 1
        else:
            changed[found] = number[parts[0]]
        same += bool((changed[found] == labels[found]).all())
    if problems.kinds:
        told = [f"corrections: {path}: {kind}: {some(dict.fromkeys(what))}" for kind, what in problems.kinds.items()]
        raise DataError(first_of(told))
    different = (changed != labels).reshape(len(labels), -1).any(axis=1) & ~removed
    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:12]
    summary = (
        f"{int(different.sum()):,} labels corrected and {int(removed.sum()):,} pictures left out by "
        f"{class_name(path.name)} (SHA-256 {digest})"
    )
    return Corrected(changed, removed, summary + (f"; {same:,} rows say what was so already" if same else ""))


class _Finder:
    """Finds the picture of a row."""

    def __init__(self, names: Sequence[str] | None, places: Sequence[tuple[Split, int]] | None) -> None:
        self._names = names
        self._places = None if places is None else {place: k for k, place in enumerate(places)}
        self._by_name: dict[str, list[int]] = {}
        for k, name in enumerate(names or ()):
            self._by_name.setdefault(class_name(name), []).append(k)

    def __call__(self, row: Correction) -> int | str:
        """Return its position, or what is wrong."""
        if self._places is not None and row.place is not None:
            position = self._places.get(row.place)
            if position is None:
                return "unknown pictures"
            if row.name and self._names is not None and class_name(self._names[position]) != row.name:
                return "pictures that have another name at their position; is the table of another data set?"
            return position
        found = self._by_name.get(row.name, [])
        if len(found) > 1:
            return "names of several pictures; add the columns split and index"
        return found[0] if found else "unknown pictures"
