"""Files that appear whole or not at all."""

import contextlib
import os
import stat
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import IO

from visionforge.errors import RunError

TEMPORARY = ".*.tmp"  # what a killed process may leave


def write_atomic(path: Path, content: str | bytes) -> None:
    """Write a file beside its place and rename it there, so that a reader never sees half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data = content.encode("utf-8") if isinstance(content, str) else content
    with replacing(path) as (file, _):
        file.write(data)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[tuple[IO[bytes], Path]]:
    """Open a temporary file beside `path`, and put it in its place when the block ends without an error.

    Yields:
        The open file, and where it lies until then.
    """
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            yield file, temporary
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o666 & ~umask())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def within(folder: Path, *parts: str) -> Path:
    """Return a path below a folder.

    Raises:
        RunError: If a link leads out of the folder, as one in a stranger's folder might.
    """
    path = folder.joinpath(*parts)
    if _leads_out(path, folder):
        raise RunError(f"{path}: is a link that leads out of {folder}; remove it")
    return path


def bytes_of(path: Path) -> int:
    """Return the bytes of a file, or of all files in a folder; links are not followed, and what is gone has none."""
    names = [os.path.join(folder, name) for folder, _, files in os.walk(path) for name in files]  # noqa: PTH118  # faster
    total = 0
    for name in names or [str(path)]:
        with contextlib.suppress(OSError):
            found = os.lstat(name)
            total += 0 if stat.S_ISDIR(found.st_mode) else found.st_size
    return total


def refuse_links(folder: Path) -> None:
    """Check that no link in a folder leads out of it; to be called before anything is written into a run or a study.

    Raises:
        RunError: With the first that does.
    """
    for path in folder.rglob("*"):  # which does not follow links to folders
        if path.is_symlink() and _leads_out(path, folder):
            raise RunError(f"{path}: is a link that leads out of {folder}; remove it")


def _leads_out(path: Path, folder: Path) -> bool:
    top, end = (Path(os.path.realpath(each)) for each in (folder, path))  # unlike `resolve`, it bears links in a circle
    return not end.is_relative_to(top)


def remove_temporary(folder: Path) -> None:
    """Remove what a killed process left of half-written files; nobody else may be writing there."""
    for path in folder.rglob(TEMPORARY):
        path.unlink(missing_ok=True)


@cache  # it can only be read by setting it, which other threads would notice
def umask() -> int:
    """Return which permissions new files do not get."""
    current = os.umask(0)
    os.umask(current)
    return current
