"""CIFAR's binary version: a .tar.gz of files whose records are labels and a picture, and nothing that is executed.

A record is one label (CIFAR-10) or two, the superclass and the class (CIFAR-100), and then 1,024 red, 1,024 green and
1,024 blue values, row by row; see https://www.cs.toronto.edu/~kriz/cifar.html.
"""

import gzip
import tarfile
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import IO, cast

import numpy as np
import numpy.typing as npt

from visionforge.data.formats.pool import READ_ERRORS, Pool, Wanted, damaged, mapped
from visionforge.data.originals import CifarOriginal
from visionforge.errors import DataError

_SPARE_BYTES = 1 << 20  # of headers, padding and lists of names beside the wanted files


class _Bounded:
    """A stream that ends in an error once more was read than a file can have."""

    def __init__(self, source: IO[bytes], most: int) -> None:
        self._source, self._left = source, most

    def read(self, size: int) -> bytes:
        """Return the next bytes."""
        data = self._source.read(size)
        self._left -= len(data)
        if self._left < 0:
            raise ValueError("unpacks to more bytes than it can have")
        return data


def cifar_pools(original: CifarOriginal, paths: Mapping[str, Path], wanted: Wanted) -> list[Pool]:
    """Return the images of training and test.

    Members are found by their exact names and unpacked under none; others are passed over.

    Args:
        original: What the catalog says of the file.
        paths: Where it is, by its name.
        wanted: What has to be in it.

    Raises:
        DataError: If it is not what the catalog says.
    """
    path = paths[original.archive.file]
    try:
        sizes = _sizes(original, wanted)
        found = _members(path, sizes, wanted)
    except (*READ_ERRORS, tarfile.TarError) as error:
        raise damaged(path, error) from error
    record, labels = prod(wanted.shape) + original.label_bytes, original.label_bytes
    return [
        _pool([found[name].reshape(-1, record) for name in names], labels, wanted.shape)
        for names in (original.train, original.test)
    ]


def _sizes(original: CifarOriginal, wanted: Wanted) -> dict[str, int]:
    """Return the bytes of each member: the images of a part are spread evenly over its files."""
    if len(wanted.shape) != 3:
        raise DataError("original: CIFAR's binary version is of colour images; set channels: 3")
    record, sizes = prod(wanted.shape) + original.label_bytes, {}
    for names, count in ((original.train, wanted.train), (original.test, wanted.test)):
        if count % len(names):
            raise DataError(f"original: {count:,} images cannot be in {len(names)} files of one size")
        sizes.update(dict.fromkeys(names, count // len(names) * record))
    return sizes


def _members(path: Path, sizes: Mapping[str, int], wanted: Wanted) -> dict[str, npt.NDArray[np.uint8]]:
    """Return the bytes of the members of those names."""
    found: dict[str, npt.NDArray[np.uint8]] = {}
    most = sum(sizes.values()) + _SPARE_BYTES
    with gzip.open(path, "rb") as unpacked:
        stream = cast("IO[bytes]", _Bounded(cast("IO[bytes]", unpacked), most))
        with tarfile.open(fileobj=stream, mode="r|") as archive:
            for member in archive:
                size = sizes.get(member.name)
                if size is None:
                    continue
                if member.name in found:
                    raise ValueError(f"{member.name} is there twice")
                source = archive.extractfile(member) if member.isreg() else None
                if source is None:
                    raise ValueError(f"{member.name} is no file")
                if member.size != size:
                    raise ValueError(f"{member.name} has {member.size:,} bytes, expected {size:,}")
                found[member.name] = mapped(source, size, wanted)
    missing = [name for name in sizes if name not in found]
    if missing:
        raise ValueError(f"lacks {', '.join(missing)}")
    return found


def _pool(parts: list[npt.NDArray[np.uint8]], labels: int, shape: tuple[int, ...]) -> Pool:
    """Return the images of records (n, labels + 3 · H · W) that lie one part after the other."""
    each, (height, width, channels) = len(parts[0]), shape

    def images(start: int, stop: int) -> npt.NDArray[np.uint8]:
        pieces = [part[max(0, start - k * each) : max(0, stop - k * each), labels:] for k, part in enumerate(parts)]
        planes = np.concatenate(pieces).reshape(-1, channels, height, width)
        return np.ascontiguousarray(planes.transpose(0, 2, 3, 1))

    return Pool(np.concatenate([part[:, labels - 1] for part in parts]), images)
