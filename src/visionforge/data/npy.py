"""Read the ``.npy`` format from strangers: a small grammar instead of Python's, and sizes known before memory is taken.

NumPy hands the header of a file to Python's parser, which answers damage with almost any exception, and deep nesting
with none. The grammar here is what NumPy and other writers of arrays of numbers and texts give.
"""

import re
import struct
import sys
from collections.abc import Sequence
from math import prod
from typing import IO, Any

import numpy as np
import numpy.typing as npt

MAX_HEADER = 4096  # bytes; NumPy writes 128 for arrays like these
MAX_DIMENSIONS = 32  # NumPy 1 has no more
MAX_BYTES = (1 << 63) - 1  # of an array; what Python's len() can say
_CHUNK = 1 << 20
_ALIGNMENT = 64  # bytes; of the data of a file that we write
_MAGIC = b"\x93NUMPY"
_LENGTHS = {(1, 0): "<H", (2, 0): "<I", (3, 0): "<I"}
_VALUE = r"""(?:'[^']*'|"[^"]*"|True|False|\([0-9L,\s]*\)|\[[^:]*\])"""
_PAIR = rf"""\s*['"](descr|fortran_order|shape)['"]\s*:\s*({_VALUE})\s*"""
_DICTIONARY = re.compile(rf"\{{{_PAIR},{_PAIR},{_PAIR},?\s*\}}\s*")
_DESCRIPTION = re.compile(r"""['"]([<>|=]?[biufcSUVO][0-9]{0,9}|[|]?[?])['"]""")
_SHAPE = re.compile(r"\(\s*(?:[0-9]+L?\s*(?:,\s*[0-9]+L?\s*)*,?)?\s*\)")


def read_header(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Read the header of an ``.npy`` stream, and leave the stream at the first element.

    Returns:
        The shape, whose number of bytes fits into 63 bits, and the type of the elements.

    Raises:
        ValueError: If it is none, describes records, or its first index runs fastest.
    """
    start = _exactly(file, len(_MAGIC) + 2)
    if start[:-2] != _MAGIC:
        raise ValueError("it does not begin as an array does")
    version = (start[-2], start[-1])
    if version not in _LENGTHS:
        raise ValueError(f"unknown .npy version {version}")
    pattern = _LENGTHS[version]
    (length,) = struct.unpack(pattern, _exactly(file, struct.calcsize(pattern)))
    if length > MAX_HEADER:
        raise ValueError(f"its header has {length:,} bytes, more than {MAX_HEADER:,}")
    return _parse(_exactly(file, length).decode("latin-1"))


def _exactly(file: IO[bytes], count: int) -> bytes:
    data = file.read(count)
    if len(data) != count:
        raise ValueError("its header ends too early")
    return data


def _parse(text: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
    found = _DICTIONARY.fullmatch(text)
    parts = {} if found is None else dict(zip(found.groups()[::2], found.groups()[1::2], strict=True))
    if len(parts) != 3:
        raise ValueError("its header is no description of an array")
    description = _DESCRIPTION.fullmatch(parts["descr"])
    if parts["descr"].startswith("["):
        raise ValueError("holds records; only plain arrays are read")
    if description is None or parts["fortran_order"] not in ("True", "False"):
        raise ValueError("its header describes no array of numbers or texts")
    if not _SHAPE.fullmatch(parts["shape"]):
        raise ValueError("its header names no shape")
    shape = tuple(int(size) for size in re.findall("[0-9]+", parts["shape"]))
    try:
        dtype = np.dtype(description.group(1))
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"its header names an unknown type {description.group(1)}") from error
    if len(shape) > MAX_DIMENSIONS or max((*shape, prod(shape) * max(1, dtype.itemsize))) > MAX_BYTES:
        raise ValueError("its header names a shape that is too large")
    if parts["fortran_order"] == "True" and len(shape) > 1:  # it would be mapped with its axes exchanged
        raise ValueError("stored in Fortran order; save it after np.ascontiguousarray")
    return shape, dtype


def read_array(file: IO[bytes], size: int, most: int) -> npt.NDArray[Any]:
    """Read a whole ``.npy`` stream into memory.

    Args:
        file: The stream, at its beginning.
        size: Bytes that it holds, as whoever packed it says.
        most: Bytes that it may take in memory.

    Raises:
        ValueError: If it is no array, holds Python objects, or has not the size that its header says.
    """
    shape, dtype = read_header(file)
    if dtype.hasobject:
        raise ValueError("holds Python objects (pickle), which are never loaded")
    wanted = prod(shape) * dtype.itemsize
    if size != file.tell() + wanted:
        raise ValueError(f"unpacks to {size:,} bytes, expected {file.tell() + wanted:,}")
    if wanted > most:
        raise ValueError(f"has {wanted:,} bytes, more than {most:,}")
    array = np.empty(shape, dtype=dtype)
    rest = memoryview(array.reshape(-1).view(np.uint8).data) if wanted else memoryview(b"")
    while len(rest):
        data = file.read(min(len(rest), _CHUNK))
        if not data:
            raise ValueError("ends too early")
        rest[: len(data)] = data
        rest = rest[len(data) :]
    if file.read(1):  # reading to the end is what compares a ZIP's checksum
        raise ValueError("goes on where it should end")
    if dtype.kind == "U" and wanted:
        codes = array.reshape(-1).view(np.dtype(np.uint32).newbyteorder(dtype.byteorder))
        if int(codes.max()) > sys.maxunicode:  # Python would end in an internal error
            raise ValueError("holds what is no text")
    return array


def npy_header(shape: Sequence[int], dtype: np.dtype[Any]) -> bytes:
    """Return the beginning of a .npy file of version 1.0; NumPy's own has had other padding in other releases."""
    text = f"{{'descr': '{dtype.str}', 'fortran_order': False, 'shape': {tuple(shape)}, }}"
    filled = -(len(text) + 11) % _ALIGNMENT  # magic string, version and length have 10 bytes, the line break one
    line = (text + " " * filled + "\n").encode("latin1")
    return b"\x93NUMPY\x01\x00" + len(line).to_bytes(2, "little") + line
