"""What a picture file says of itself before it is decoded: how much its tags would take, and which side is up.

Pillow reads all tags of a TIFF file, and of the EXIF data in a JPEG file, before anybody can ask for the size of the
picture. Each of up to 65,535 tags may point to the same megabytes, so the sum is looked at first.
"""

import struct
from typing import IO

from PIL import Image

MAX_TAG_BYTES = 1 << 26  # of all tags together; those of a large tiled picture have some megabytes
ORIENTATION = 0x0112
_TYPE_BYTES = (0, 1, 1, 2, 4, 8, 1, 1, 2, 4, 8, 4, 8, 4, 0, 0, 8, 8, 8)  # of one value, by TIFF's number of its type
_ENTRY, _ENTRY_BIG = 12, 20
_BELOW = frozenset((0x8769, 0x8825, 0xA005))  # tags of further directories: EXIF, GPS, interoperability
_MAX_DIRECTORIES = 8
_MAX_TAGS = 1 << 16
_START, _SCAN, _END = 0xD8, 0xDA, 0xD9  # markers of JPEG
_APPLICATION = range(0xE1, 0xE3)  # segments with EXIF, and with an index of several pictures
_MAX_SEGMENTS = 1000
_EXIF = b"Exif\0\0"
_MULTIPLE = b"MPF\0"
UPRIGHT = {  # by the orientation that the camera wrote
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def check_tags(file: IO[bytes]) -> None:
    """Check that the tags of a TIFF or JPEG file can be read; the file is left at its beginning.

    Raises:
        ValueError: If they would take too much memory.
    """
    start = file.read(4)
    if start[:2] in (b"II", b"MM"):
        taken = _directory_bytes(file, 0)
    elif start[:2] == bytes((0xFF, _START)):
        taken = _segment_bytes(file)
    else:
        taken = 0
    file.seek(0)
    if taken > MAX_TAG_BYTES:
        raise ValueError(f"its tags have {taken:,} bytes, more than {MAX_TAG_BYTES:,}")


def _directory_bytes(file: IO[bytes], base: int) -> int:
    """Return how many bytes the tags of the first directory of TIFF data at `base`, and of those below it, have."""
    file.seek(base)
    header = file.read(16)
    if len(header) < 8 or header[:2] not in (b"II", b"MM"):
        return 0
    order = "<" if header[:2] == b"II" else ">"
    big = header[2:4] in (b"\x2b\0", b"\0\x2b")
    if big and len(header) < 16:
        return 0
    (first,) = struct.unpack_from(f"{order}{'Q' if big else 'L'}", header, 8 if big else 4)
    total, waiting = 0, [int(first)]
    for _ in range(_MAX_DIRECTORIES):
        if not waiting:
            break
        found, below = _one_directory(file, base + waiting.pop(), order, big)
        total, waiting = total + found, waiting + below
    return total


def _one_directory(file: IO[bytes], at: int, order: str, big: bool) -> tuple[int, list[int]]:
    """Return the bytes of the tags of one directory, and where directories below it begin."""
    size, number = (_ENTRY_BIG, "Q") if big else (_ENTRY, "L")
    head = 8 if big else 2
    if at >= 1 << 62:
        return 0, []
    file.seek(at)
    counted = file.read(head)
    if len(counted) < head:
        return 0, []
    (count,) = struct.unpack(f"{order}{'Q' if big else 'H'}", counted)
    entries = file.read(min(count, _MAX_TAGS) * size)
    total = max(0, count - _MAX_TAGS) * size
    below: list[int] = []
    for start in range(0, len(entries) - size + 1, size):
        tag, kind, values, value = struct.unpack_from(f"{order}HH{number}{number}", entries, start)
        total += values * (_TYPE_BYTES[kind] if kind < len(_TYPE_BYTES) else 0)
        if tag in _BELOW:
            below.append(value)
    return total, below


def _segment_bytes(file: IO[bytes]) -> int:
    """Return the same for the EXIF data of a JPEG file, which may be in several segments, and its index of pictures."""
    total = position = 2
    for _ in range(_MAX_SEGMENTS):
        file.seek(position)
        head = file.read(14)
        if len(head) < 4 or head[0] != 0xFF or head[1] in (_SCAN, _END):
            break
        if head[1] == 0xFF:  # filling
            position += 1
            continue
        (length,) = struct.unpack_from(">H", head, 2)
        if head[1] in _APPLICATION:
            for mark in (_EXIF, _MULTIPLE):
                if head[4:].startswith(mark):
                    total += _directory_bytes(file, position + 4 + len(mark))
        position += 2 + length
    return total


def upright(picture: Image.Image) -> Image.Transpose | None:
    """Return how a picture has to be turned or mirrored to stand as its camera was held; None if it stands so.

    Only this one tag is looked for: Pillow's own reader takes in all the others. A TIFF file is turned by Pillow when
    it is decoded, after which it does not have the tag any more.

    Args:
        picture: Decoded.
    """
    if picture.format == "TIFF":
        return UPRIGHT.get(_number(getattr(picture, "tag_v2", {}).get(ORIENTATION)))
    data = picture.info.get("exif")
    return UPRIGHT.get(_orientation(data.removeprefix(_EXIF))) if isinstance(data, bytes) else None


def _number(value: object) -> int:
    return value if isinstance(value, int) else 0


def _orientation(data: bytes) -> int:
    """Return the orientation that EXIF data names, 0 if none."""
    if len(data) < 10 or data[:2] not in (b"II", b"MM"):
        return 0
    order = "<" if data[:2] == b"II" else ">"
    (first,) = struct.unpack_from(f"{order}L", data, 4)
    if first + 2 > len(data):
        return 0
    (count,) = struct.unpack_from(f"{order}H", data, first)
    for at in range(first + 2, min(first + 2 + count * _ENTRY, len(data) - _ENTRY + 1), _ENTRY):
        tag, _, _, value = struct.unpack_from(f"{order}HHLH", data, at)
        if tag == ORIENTATION:
            return int(value)
    return 0
