"""Images as a published file has them, and what the readers of all formats share."""

import gzip
import tempfile
import zlib
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
import numpy.typing as npt

from visionforge.errors import DataError

_CHUNK = 1 << 20
_GZIP = b"\x1f\x8b"
READ_ERRORS = (EOFError, OSError, ValueError, zlib.error)  # of a damaged file


@dataclass(frozen=True)
class Pool:
    """Images that were published together, before splits are drawn from them.

    Attributes:
        labels: (N,) class of each.
        images: Returns those from one position up to another: (n, H, W) or (n, H, W, 3) uint8.
        alone: (N,) whether no other image shows the same object; None if all are.
    """

    labels: npt.NDArray[np.integer]
    images: Callable[[int, int], npt.NDArray[np.uint8]]
    alone: npt.NDArray[np.bool_] | None = None


@dataclass(frozen=True)
class Wanted:
    """What the catalog says of the files, which their headers are compared with before memory is taken.

    Attributes:
        train: Images of the training part; all images if there is no test part.
        test: Images of the test part; 0 if there is none.
        shape: Shape of an image: (H, W) or (H, W, 3).
        scratch: Folder for what has to be unpacked on the way.
        files: Closes what was opened, when the archive is made.
    """

    train: int
    test: int
    shape: tuple[int, ...]
    scratch: Path
    files: ExitStack


def damaged(path: Path, reason: object) -> DataError:
    """Return the error of a file that is not what its format says."""
    return DataError(f"{path}: {reason}; delete it and get it again")


def open_unpacked(path: Path, files: ExitStack) -> IO[bytes]:
    """Open a file, and unpack it on the way if it begins as gzip does."""
    with path.open("rb") as file:
        packed = file.read(len(_GZIP)) == _GZIP
    if packed:
        return cast("IO[bytes]", files.enter_context(gzip.open(path, "rb")))
    return files.enter_context(path.open("rb"))


def mapped(source: IO[bytes], size: int, wanted: Wanted) -> npt.NDArray[np.uint8]:
    """Copy so many bytes of a stream into a file without a name, and map it.

    The file is gone as soon as it is closed, also when the process is killed.

    Raises:
        EOFError: If there are fewer bytes.
    """
    target = wanted.files.enter_context(tempfile.TemporaryFile(dir=wanted.scratch))  # noqa: SIM115
    left = size
    while left:
        chunk = source.read(min(_CHUNK, left))
        if not chunk:
            raise EOFError(f"ends {left:,} bytes too early")
        target.write(chunk)
        left -= len(chunk)
    target.flush()
    array: npt.NDArray[Any] = np.memmap(target, dtype=np.uint8, mode="r", shape=(size,))
    return array
