"""Open a ZIP file from strangers: its directory is bounded, and every member is there once and packed plainly."""

import os
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

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
_END = struct.Struct("<4s4H2LH")  # the record at the end of a ZIP file, and the two of files with 64-bit sizes
_LOCATOR = struct.Struct("<4sLQL")
_END_64 = struct.Struct("<4sQ2H2L4Q")
_TAIL = (1 << 16) + _END.size + _LOCATOR.size + _END_64.size  # the longest comment, and the records
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
        if _directory_bytes(file.fileno()) > MAX_DIRECTORY:
            raise ValueError(f"its directory has more than {MAX_DIRECTORY:,} bytes")
        try:
            archive = zipfile.ZipFile(file)
        except (struct.error, IndexError, OverflowError, UnicodeDecodeError) as error:  # not foreseen by it
            raise zipfile.BadZipFile(str(error)) from error
        with archive:
            _check_members(archive.infolist())
            yield archive


def _directory_bytes(handle: int) -> int:
    """Return the size of a ZIP file's directory as its end says, or 0 if there is none; the larger of two answers."""
    size = os.fstat(handle).st_size
    tail = os.pread(handle, _TAIL, max(0, size - _TAIL))
    at = tail.rfind(b"PK\x05\x06")
    if at < 0 or at + _END.size > len(tail):
        return 0
    found = int(_END.unpack_from(tail, at)[5])
    found = 0 if found == 0xFFFFFFFF else found
    wide = at - _LOCATOR.size - _END_64.size
    if wide >= 0 and tail[at - _LOCATOR.size :].startswith(b"PK\x06\x07"):
        found = max(found, int(_END_64.unpack_from(tail, wide)[8]))
    return found


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
