"""Open a ZIP file from strangers: its directory is bounded, and every member is there once and packed plainly."""

import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from visionforge.reading import zip_directory_bytes

READ_ERRORS = (  # what reading a damaged ZIP file, or an array in it, can raise
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    OSError,
    NotImplementedError,
    RuntimeError,
    ValueError,
    OverflowError,
    MemoryError,
    struct.error,
    IndexError,
    KeyError,
)
MAX_DIRECTORY = 1 << 20  # bytes; that of an archive of six arrays has 500
_ENCRYPTED = 1  # bit of a member's flags
_PLAIN = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # as NumPy packs; what others unpack to is harder to bound


@contextmanager
def open_zip(path: Path) -> Iterator[zipfile.ZipFile]:
    """Open a ZIP file for reading, after a look at its directory.

    Raises:
        zipfile.BadZipFile: If it is no complete ZIP file.
        ValueError: If its directory is too large, a member is there twice, encrypted, or packed in an uncommon way.
        OSError: If it cannot be read.
    """
    with path.open("rb") as file:
        if zip_directory_bytes(file.fileno()) > MAX_DIRECTORY:
            raise ValueError(f"its directory has more than {MAX_DIRECTORY:,} bytes")
        try:
            archive = zipfile.ZipFile(file)
        except (struct.error, IndexError, OverflowError, UnicodeDecodeError) as error:  # not foreseen by it
            raise zipfile.BadZipFile(str(error)) from error
        with archive:
            _check_members(archive.infolist())
            yield archive


def _check_members(members: list[zipfile.ZipInfo]) -> None:
    names = [member.filename for member in members]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{twice} is there twice")
    for member in members:
        if member.flag_bits & _ENCRYPTED:
            raise ValueError(f"{member.filename} is encrypted")
        if member.compress_type not in _PLAIN:
            raise ValueError(f"{member.filename} is packed in an uncommon way; save it with np.savez_compressed")
