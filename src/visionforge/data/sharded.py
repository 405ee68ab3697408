"""The images of a sharded split as one array, of which a batch is read from whichever shards it lies in."""

import io
import os
import shutil
from collections import OrderedDict
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from visionforge.data.archive import SplitArrays, read_labels
from visionforge.data.fetch_once import fetch_once
from visionforge.data.info import SPLITS, DatasetInfo, Split
from visionforge.data.records import Ahead, FileRecords
from visionforge.data.shard_files import LookAhead, ShardFiles, cache_limit, shards_cache
from visionforge.data.shard_index import (
    Shard,
    ShardFile,
    ShardIndex,
    index_md5,
    is_sharded,
    read_index,
    shard_address,
    shard_folder,
)
from visionforge.data.store import SPARE_BYTES
from visionforge.errors import DataError

OPEN_FILES = 256  # of a split; a process may open 1,024 by default
TRIES = 3  # to open a shard that another process takes out of the cache meanwhile


class ShardRecords(FileRecords):
    """Images of shards by position, in the order of the split.

    It has what an array has as far as that needs no memory: shape, type, length, and items by position. Slices and
    positions give arrays; `numpy.asarray` reads everything.

    Args:
        files: Where the shards lie.
        shards: The shards, in order.
        shape: Shape of an image.
    """

    dtype = np.dtype(np.uint8)

    def __init__(self, files: ShardFiles, shards: tuple[Shard, ...], shape: tuple[int, ...]) -> None:
        self._files, self._shards = files, shards
        self._starts = np.cumsum([0, *(shard.images for shard in shards)], dtype=np.int64)
        self._offsets = np.array([shard.offset for shard in shards], dtype=np.int64)
        super().__init__((int(self._starts[-1]), *shape))
        self._open: OrderedDict[int, io.FileIO] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        """Leave the open files out: another process opens its own."""
        return {**self.__dict__, "_open": OrderedDict()}

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes that all images take in memory."""
        return prod(self.shape)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> npt.NDArray[Any]:
        """Return all images."""
        return np.asarray(self[:], dtype=dtype)

    def __getitem__(self, key: Any) -> npt.NDArray[np.uint8]:
        """Return an image, or those of a slice, of positions, or of a mask (N,).

        Raises:
            DataError: If a shard is missing and cannot be got.
            IndexError: If there is no such position.
        """
        if isinstance(key, slice):
            return super().__getitem__(np.arange(*key.indices(len(self)), dtype=np.int64))
        wanted = np.asarray(key)
        if isinstance(key, tuple) or wanted.ndim > 1 or (wanted.dtype == np.bool_ and len(wanted) != len(self)):
            raise IndexError("images are chosen by a position, a slice, positions (n,) or a mask (N,)")
        if wanted.dtype == np.bool_:
            wanted = np.flatnonzero(wanted)
        positions = np.atleast_1d(wanted).astype(np.int64)
        positions = np.where(positions < 0, positions + len(self), positions)
        if len(positions) and not 0 <= positions.min() <= positions.max() < len(self):
            raise IndexError(f"positions from {positions.min()} to {positions.max()} of {len(self)} images")
        found = super().__getitem__(positions)
        return found if wanted.ndim else found[0]

    def _places(self, positions: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Return the number of the shard of each image, and the bytes before it there."""
        owners = np.searchsorted(self._starts, positions, side="right") - 1
        return owners, self._offsets[owners] + (positions - self._starts[owners]) * self._each

    def _handle(self, place: int) -> io.FileIO:
        """Return an open shard; those that were not read for long are closed."""
        file = self._open.get(place)
        if file is None:
            self._let_go()
            file = self._opened(self._shards[place])
            self._open[place] = file
            if len(self._open) > OPEN_FILES:
                self._open.popitem(last=False)[1].close()
        self._open.move_to_end(place)
        return file

    def _let_go(self) -> None:
        """Close shards that the cache has removed: their bytes are free only then."""
        if self.streams:
            for place, file in list(self._open.items()):
                if os.fstat(file.fileno()).st_nlink == 0:
                    self._open.pop(place).close()

    @property
    def streams(self) -> bool:
        """Whether shards are got while they are needed."""
        return not self._files.here

    def _opened(self, shard: Shard) -> io.FileIO:
        for left in reversed(range(TRIES)):
            path = self._files.path(shard)
            try:
                return io.FileIO(path)
            except FileNotFoundError:
                if not left:
                    raise DataError(f"{path}: another process removes it from the cache again and again") from None
        raise AssertionError

    def look_ahead(self, order: npt.NDArray[np.int64], processes: int = 1) -> Ahead | None:
        """Return what gets the shards of an epoch in time, or has them read where they are on this machine.

        Args:
            order: (N,) positions of the images of the epoch.
            processes: How many take turns in the whole order.

        Raises:
            DataError: See `LookAhead`.
        """
        if not self._files.here:
            return LookAhead(self._files, self._shards, self._starts, order)
        return super().look_ahead(order, processes)


def shard_files(path: Path, index: ShardIndex, info: DatasetInfo, resolution: int, download: bool) -> ShardFiles:
    """Return where the files of a sharded archive lie, and may be got from."""
    folder, url = shard_folder(path), info.archives[resolution].url if download else None
    if url is not None and all((folder / file.file).is_file() for file in index.files):
        url = None  # all of them are here
    return ShardFiles(folder, url, shards_cache() / index_md5(path), 0 if url is None else cache_limit())


def open_sharded(path: Path, info: DatasetInfo, resolution: int, split: Split, download: bool) -> SplitArrays:
    """Return one split of a sharded archive; its labels are in memory.

    Args:
        path: The index.
        info: The catalog entry.
        resolution: Height and width of the images, and depth of volumes.
        split: Which split.
        download: Get shards that are missing.

    Raises:
        DataError: If it is not what the catalog says, or labels are damaged.
    """
    index = read_index(path, info, resolution, info.archives[resolution].md5)
    files = shard_files(path, index, info, resolution, download)
    images = ShardRecords(files, index.of(split), index.shape)
    labels = read_labels(files.path(index.labels), info, split, resolution)
    return SplitArrays(images, labels)  # type: ignore[arg-type]  # it stands for the array


def side_archive(path: Path, info: DatasetInfo, resolution: int, download: bool = False) -> Path:
    """Return where the names, groups and columns of an archive lie, and of a sharded one the labels.

    Args:
        path: The archive, or the index of a sharded one.
        info: The catalog entry.
        resolution: Height and width of the images.
        download: Get it if it is missing.

    Raises:
        DataError: If it is missing, or the index is not what the catalog says.
    """
    if not is_sharded(path):
        return path
    index = read_index(path, info, resolution, info.archives[resolution].md5)
    return shard_files(path, index, info, resolution, download).path(index.labels)


def download_shards(path: Path, info: DatasetInfo, resolution: int) -> int:
    """Get all files of a sharded archive that are missing, and return the bytes of all.

    Raises:
        DataError: If there is no room, or one cannot be got.
    """
    archive = info.archives[resolution]
    index, folder = read_index(path, info, resolution, archive.md5), shard_folder(path)
    missing = [file for file in index.files if not _is_right(folder / file.file, file)]
    for file in missing:
        (folder / file.file).unlink(missing_ok=True)  # else it would be taken for the one that is got
    needed = sum(file.bytes for file in missing)
    if missing and archive.url is None:
        raise DataError(f"{folder / missing[0].file}: missing, and there is no address to get it from")
    if needed + SPARE_BYTES > shutil.disk_usage(path.parent).free:
        raise DataError(f"{folder}: there is no room for {needed / 1e9:,.1f} GB")
    for file in missing:
        by_hand = f"place it in {folder}"
        fetch_once(shard_address(str(archive.url), file.file), folder / file.file, file.checksum, file.bytes, by_hand)
    return sum(file.bytes for file in index.files)


def _is_right(path: Path, file: ShardFile) -> bool:
    """Return whether a file has the size and the checksum of an index."""
    return path.is_file() and path.stat().st_size == file.bytes and file.checksum.fits(path)


def verify_shards(path: Path, info: DatasetInfo, resolution: int) -> list[str]:
    """Return what is wrong with the files of a sharded archive, each of which is read completely.

    Raises:
        DataError: If its index is not what the catalog says.
    """
    index = read_index(path, info, resolution, info.archives[resolution].md5)
    folder, problems = shard_folder(path), []
    for file in index.files:
        here = folder / file.file
        if not here.is_file():
            problems.append(f"{file.file} is missing")
        elif not _is_right(here, file):
            problems.append(f"{file.file} is damaged")
    for split in SPLITS if not problems else ():
        try:
            open_sharded(path, info, resolution, split, download=False)
        except DataError as error:
            problems += error.problems
    return problems
