"""IDX files, as MNIST's: a magic number, the sides of the array, and its bytes in C order.

The format is described at http://yann.lecun.com/exdb/mnist/: all numbers are big-endian, the third byte of the magic
number is the type (8 for unsigned bytes), the fourth the number of dimensions.
"""

import struct
from collections.abc import Mapping
from math import prod
from pathlib import Path

import numpy as np
import numpy.typing as npt

from visionforge.data.formats.pool import READ_ERRORS, Pool, Wanted, damaged, mapped, open_unpacked
from visionforge.data.originals import IdxOriginal

_UNSIGNED_BYTE = 8


def idx_pools(original: IdxOriginal, paths: Mapping[str, Path], wanted: Wanted) -> list[Pool]:
    """Return the images of training and test.

    Args:
        original: What the catalog says of the files.
        paths: Where they are, by their names.
        wanted: What has to be in them.

    Raises:
        DataError: If a file is not what the catalog says.
    """
    pools = []
    for images, labels, count in (
        (original.train_images, original.train_labels, wanted.train),
        (original.test_images, original.test_labels, wanted.test),
    ):
        pixels = read_idx(paths[images.file], (count, *wanted.shape), wanted)
        classes = np.array(read_idx(paths[labels.file], (count,), wanted))
        pools.append(Pool(classes, lambda start, stop, pixels=pixels: pixels[start:stop]))  # type: ignore[misc]
    return pools


def read_idx(path: Path, shape: tuple[int, ...], wanted: Wanted) -> npt.NDArray[np.uint8]:
    """Map the array of an IDX file, which may be packed with gzip.

    Raises:
        DataError: If it has another type or shape, is damaged, or has more or fewer bytes.
    """
    try:
        source = open_unpacked(path, wanted.files)
        magic = source.read(4)
        if len(magic) < 4 or magic[:2] != b"\0\0" or magic[3] == 0:
            raise ValueError("is no IDX file (its magic number is wrong)")
        if magic[2] != _UNSIGNED_BYTE:
            raise ValueError(f"holds numbers of type {magic[2]:#04x}, expected 0x08 (unsigned bytes)")
        found = struct.unpack(f">{magic[3]}I", source.read(4 * magic[3]))
        if found != shape:
            raise ValueError(f"has the shape {found}, expected {shape}")
        array = mapped(source, prod(shape), wanted)
        if source.read(1):
            raise ValueError("goes on where it should end")
    except struct.error as error:
        raise damaged(path, "ends within its header") from error
    except READ_ERRORS as error:
        raise damaged(path, error) from error
    return array.reshape(shape)
