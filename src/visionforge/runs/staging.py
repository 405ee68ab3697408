"""Hidden folders in which files are made before they take their places, and what killed processes left of such."""

import contextlib
import json
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from visionforge.printable import printable
from visionforge.reading import read_json
from visionforge.runs.locks import held
from visionforge.runs.paths import shown

MARK = ".visionforge.json"  # says which folder it was made in, and for what, so that a copy of it proves nothing
_ENDING = re.compile(r"[a-z0-9_]{8}")  # of names that `tempfile` makes
_MOST_BYTES = 10_000  # of a mark


@contextlib.contextmanager
def staging(folder: Path, ours: Callable[[Path], bool]) -> Iterator[Path]:
    """Yield an empty folder beside another; it is removed when the block ends, and nobody else has one meanwhile.

    What a killed process left of an earlier one is removed before, as far as it proves to be that.

    Args:
        folder: Where its files will go. It need not exist; the one above it has to.
        ours: Returns whether a file, no link, was written by the command, told by what it is.

    Raises:
        LockedError: If somebody else is writing there.
        OSError: If the folder above cannot be written.
    """
    top, prefix = Path(os.path.realpath(folder.parent)), f".{folder.name}."
    with held(top / f"{prefix}lock", f"out: {printable(shown(folder))}", wait_s=0):
        for left in sorted(top.iterdir()):
            if left.name.startswith(prefix) and _ENDING.fullmatch(left.name.removeprefix(prefix)):
                _remove(left, folder.name, ours)
        with tempfile.TemporaryDirectory(prefix=prefix, dir=top) as name:
            staged = Path(name)
            (staged / MARK).write_text(json.dumps(_mark(staged, folder.name)), encoding="utf-8")
            files = staged / "files"
            files.mkdir()
            yield files


def _mark(staged: Path, target: str) -> dict[str, str]:
    return {"folder": staged.name, "for": target, "by": "visionforge"}


def _remove(left: Path, target: str, ours: Callable[[Path], bool]) -> None:
    """Remove what a killed process left: the files that are ours, and then the folder, unless it holds others.

    Nobody else may be writing there.
    """
    mark, files = left / MARK, left / "files"
    if any(path.is_symlink() for path in (left, mark, files)) or not left.is_dir():
        return
    with contextlib.suppress(OSError):  # of others, or not to be written: it stays
        try:
            if read_json(mark, _MOST_BYTES) != _mark(left, target):
                return
        except ValueError:
            return
        for path in files.iterdir() if files.is_dir() else ():
            if not path.is_symlink() and path.is_file() and ours(path):
                path.unlink()
        if files.is_dir():
            files.rmdir()
        if [path.name for path in left.iterdir()] == [MARK]:
            mark.unlink()
            left.rmdir()
