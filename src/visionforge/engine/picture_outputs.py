"""What `predict` writes beside the table of pictures, and how large ones are divided; nothing of it needs torch."""

import contextlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from visionforge.errors import RunError, SettingsError
from visionforge.evaluation.table_writers import Column, TableWriter, open_table
from visionforge.runs.paths import shown, writable

if TYPE_CHECKING:
    from visionforge.data.info import TaskSpec

OVERLAP, MOST_OVERLAP = 0.25, 0.75  # of a tile, with the next one
ERROR_COLUMNS = (Column("path"), Column("reason"))
WARNINGS = 10  # pictures that could not be read which are told of; the others are in the table of errors
COCO_INFO = json.dumps({"contributor": "visionforge predict"})  # with which a file of boxes begins
COCO_HEAD = f'{{"info": {COCO_INFO}, "annotations": ['


@dataclass(frozen=True)
class Tiles:
    """How pictures become tiles of the size that a network takes.

    Attributes:
        scaled: Scale a picture as training pictures were; otherwise it keeps its size.
        overlap: Smallest share of a tile that is also in the next one.
        batch_size: Tiles at once.
    """

    scaled: bool
    overlap: float
    batch_size: int


class Failures:
    """Files that could not be read: a table of them, which most folders do not need, and a line about the first ones.

    Args:
        path: The table; None writes none.
        warn: Told of the first files.
        stack: Closes the table.

    Attributes:
        count: How many there are.
    """

    def __init__(self, path: Path | None, warn: Callable[[str], None], stack: contextlib.ExitStack) -> None:
        self.count = 0
        self._path = path
        self._warn = warn
        self._stack = stack
        self._table: TableWriter | None = None

    def add(self, failures: Sequence[tuple[str, str]]) -> None:
        """Write names and reasons."""
        if not failures:
            return
        if self._table is None and self._path is not None:
            self._table = self._stack.enter_context(open_table(self._path, ERROR_COLUMNS))
        if self._table is not None:
            self._table.write(failures)
        for name, reason in failures[: max(0, WARNINGS - self.count)]:
            self._warn(f"{name}: {reason}")
        self.count += len(failures)

    def require_any_read(self, total: int) -> None:
        """Check that not all of so many files have failed.

        Raises:
            RunError: If they have.
        """
        if self.count == total:
            raise RunError(f"pictures: none of the {total:,} files could be read, so nothing was written")


def errors_of(out: Path) -> Path:
    """Return the table of files that could not be read, beside a table."""
    return out.with_name(f"{out.stem}.errors.csv")


def is_error_table(path: Path) -> bool:
    """Return whether a file has the heading of the tables that list what could not be read."""
    heading = ",".join(column.name for column in ERROR_COLUMNS).encode()
    if path.is_symlink() or not path.is_file():
        return False
    with path.open("rb") as file:
        return file.readline(len(heading) + 2).strip() == heading


def require_errors(out: Path, where: str, command: str) -> None:
    """Refuse to replace somebody's file by the table of files that could not be read, which nobody has named.

    Args:
        out: The table beside which it lies.
        where: What that was given as, for messages.
        command: Who writes it.

    Raises:
        SettingsError: If something else lies there.
    """
    errors = errors_of(out)
    if os.path.lexists(errors) and not is_error_table(errors):
        raise SettingsError(
            f"{where}: {shown(errors)} would be replaced, and was not written by {command}; move it away, or name "
            "another file"
        )


def require_place(out: Path, where: str, made: bool) -> None:
    """Check that a file can be written where it is asked for.

    Args:
        out: The file.
        where: What that was given as, for messages.
        made: Its folder is made where there is none.

    Raises:
        RunError: If it cannot.
    """
    parent = out.absolute().parent
    if not made and not parent.is_dir():
        raise RunError(f"{where}: {shown(parent)} does not exist; make the folder, or name another")
    if not writable(parent):
        raise RunError(f"{where}: {shown(parent)} cannot be written; name a file in another folder")


def mask_folder(out: Path) -> Path:
    """Return the folder of the masks that belong to a table."""
    return out.with_name(f"{out.stem}_masks")


def coco_file(out: Path) -> Path:
    """Return the file in the format of COCO that belongs to a table of boxes."""
    return out.with_name(f"{out.stem}.coco.json")


def check_beside(out: Path, spec: "TaskSpec", overwrite: bool) -> None:
    """Refuse to write what a task has beside the table, if something would be lost.

    Args:
        out: The table.
        spec: The task.
        overwrite: Whether what an earlier call wrote may be replaced.

    Raises:
        SettingsError: If something lies there.
    """
    if not spec.kind.located:
        return
    beside = mask_folder(out) if spec.kind.dense else coco_file(out)
    if not os.path.lexists(beside):
        return
    if not overwrite:
        raise SettingsError(f"out: {shown(beside)} exists already; name another table, or add `overwrite`")
    if spec.kind.dense and (beside.is_symlink() or not beside.is_dir()):
        raise SettingsError(f"out: {shown(beside)} is no folder for the masks; name another table")
    if not spec.kind.dense and not _begins(beside, COCO_HEAD):
        raise SettingsError(
            f"out: {shown(beside)} would be replaced, and was not written by predict; move it away, or name another "
            "table"
        )


def _begins(path: Path, text: str) -> bool:
    """Return whether a file, no link, begins with a text."""
    if path.is_symlink() or not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(text)) == text.encode()
