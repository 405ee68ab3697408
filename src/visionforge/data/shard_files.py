"""Where the files of a sharded archive lie: beside its index, or in a bounded cache that is filled from an address."""

import contextlib
import logging
import os
import shutil
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from visionforge.data.fetch_once import LOCK_TIMEOUT_S, fetch_once
from visionforge.data.shard_index import ShardFile, shard_address
from visionforge.errors import DataError, SettingsError
from visionforge.fetch import DEFAULT_RETRIES, Retries, without_bars
from visionforge.runs.locks import held
from visionforge.runs.paths import cache_folder

log = logging.getLogger(__name__)

LIMIT = "VISIONFORGE_SHARDS_GB"  # 10⁹ bytes that the cache may take
SHARE = 0.5  # of the free disk, where nobody says how much
THREADS = 4  # that fetch what is needed next
ONCE = Retries(attempts=1)  # of those: whoever reads it tries again
ABANDONED_S = 3600.0  # after which nobody goes on with a part of a file
SCHEDULED = 1 << 13  # images whose shards are looked up together


@dataclass(frozen=True)
class ShardFiles:
    """The files of a folder that may be on this machine or not.

    Attributes:
        folder: Where they lie if they are here, beside their index.
        address: Of the index, where they can be got from; None if nowhere.
        cache: Where those that are got are kept for a time.
        limit: Bytes that the cache may take.
    """

    folder: Path
    address: str | None
    cache: Path
    limit: int

    def path(self, file: ShardFile, retries: Retries = DEFAULT_RETRIES) -> Path:
        """Return where a file lies, after it was got if need be.

        Args:
            file: The file.
            retries: How often and how patiently that is tried.

        Raises:
            DataError: If it is missing, has another size, or cannot be got.
        """
        try:
            return self._path(file, retries)
        except OSError as error:
            where = error.filename or self.cache
            raise DataError(f"{where}: cannot be used for shards ({error.strerror or error})") from error

    def _path(self, file: ShardFile, retries: Retries) -> Path:
        here = self.folder / file.file
        if (size := _size(here)) is not None:
            if size != file.bytes:
                raise DataError(f"{here}: {size:,} bytes, its index says {file.bytes:,}; get it again")
            return here
        kept = self.cache / file.file
        size = _size(kept)
        if size == file.bytes:
            with contextlib.suppress(OSError):
                os.utime(kept)  # used last
            return kept
        if self.address is None:
            raise DataError(f"{here}: missing, and there is no address to get it from, or data.download is false")
        if size is not None:
            kept.unlink(missing_ok=True)  # somebody has cut it
        self._make_room(file)
        by_hand = f"place the files of {self.address.removesuffix('.json')} in {self.folder}"
        with without_bars():  # a training has its own
            fetch_once(shard_address(self.address, file.file), kept, file.checksum, file.bytes, by_hand, retries)
        return kept

    @property
    def here(self) -> bool:
        """Whether nothing has to be got, or can be."""
        return self.address is None

    def _make_room(self, file: ShardFile) -> None:
        """Remove what was used longest ago, until a file fits."""
        if file.bytes > self.limit:
            raise DataError(
                f"{self.address}: {file.file} has {file.bytes / 1e9:.2f} GB, and the cache of shards may have "
                f"{self.limit / 1e9:.2f} GB; raise {LIMIT}"
            )
        root = self.cache.parent
        root.mkdir(parents=True, exist_ok=True)
        with held(root / ".lock", str(root), LOCK_TIMEOUT_S):
            kept = sorted(_kept(root), key=lambda each: each[2])
            total = sum(size for _, size, _ in kept)
            for path, size, _ in kept:
                if total + file.bytes <= self.limit:
                    break
                path.unlink(missing_ok=True)
                total -= size


def shards_cache() -> Path:
    """Return the folder of the shards that were got."""
    return cache_folder() / "shards"


def cache_limit() -> int:
    """Return the bytes that the cache of shards may take: $VISIONFORGE_SHARDS_GB, or half of what is free or its own.

    Raises:
        SettingsError: If the variable is no positive number.
    """
    text = os.environ.get(LIMIT, "").strip()
    if text:
        try:
            value = float(text)
        except ValueError:
            value = 0.0
        if not 0 < value < 1e9:
            raise SettingsError(f"{LIMIT}: {text!r} is not allowed; allowed: a number of gigabytes above 0")
        return int(value * 1e9)
    folder = shards_cache()
    own = sum(size for _, size, _ in _kept(folder))
    there = next(path for path in (folder, *folder.parents) if path.exists())
    return int((shutil.disk_usage(there).free + own) * SHARE)


def _kept(root: Path) -> Iterator[tuple[Path, int, int]]:
    """Yield the files of all folders of the cache: path, bytes, and when each was used last."""
    for path in root.glob("*/*"):
        with contextlib.suppress(OSError):
            found = path.stat()
            arriving = path.suffix == ".part" and time.time() - found.st_mtime < ABANDONED_S
            if path.suffix in (".npy", ".npz", ".part") and not arriving:
                yield path, found.st_size, found.st_mtime_ns


def _size(path: Path) -> int | None:
    """Return the bytes of a file; None if it is not there."""
    try:
        return path.stat().st_size
    except (FileNotFoundError, NotADirectoryError):
        return None


class LookAhead:
    """Gets the shards that an epoch needs next, while it is at others.

    Args:
        files: Where they lie.
        shards: Of a split, in order.
        starts: (S + 1,) position of the first image of each, and the number of all.
        order: (N,) positions of the images of an epoch.

    Raises:
        DataError: If the images of a few steps lie in more shards than the cache may hold.
    """

    def __init__(
        self, files: ShardFiles, shards: tuple[ShardFile, ...], starts: npt.NDArray[np.int64], order: npt.NDArray[Any]
    ) -> None:
        self._files, self._shards = files, shards
        self._steps = [
            np.unique(np.searchsorted(starts, order[start : start + SCHEDULED], side="right") - 1)
            for start in range(0, len(order), SCHEDULED)
        ]
        self._bytes = np.array([shard.bytes for shard in shards])
        most = max((int(self._bytes[needed].sum()) for needed in self._steps), default=0)
        if min(2 * most, int(self._bytes.sum())) > files.limit:  # those that are read, and those that come next
            raise DataError(
                f"{files.address}: {SCHEDULED:,} images in a row lie in {most / 1e9:.1f} GB of shards, and their "
                f"cache may have {files.limit / 1e9:.1f} GB; set data.sampler to blocks, with fewer "
                f"together, raise {LIMIT}, or get all of them with `visionforge datasets download`"
            )
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="shards")
        self._asked: dict[int, Future[Path]] = {}
        self._at = -1

    def advance(self, position: int) -> None:
        """Ask for what follows after a position in the order, as far as half of the cache holds it."""
        if (step := position // SCHEDULED) == self._at:
            return
        self._at = step
        wanted: dict[int, None] = {}
        total = 0
        for needed in self._steps[step:]:
            new = [int(place) for place in needed if int(place) not in wanted]
            total += int(self._bytes[new].sum())
            if wanted and 2 * total > self._files.limit:
                break
            wanted.update(dict.fromkeys(new))
        self._asked = {place: asked for place, asked in self._asked.items() if place in wanted}
        for place in wanted:
            if place not in self._asked:
                self._asked[place] = self._pool.submit(self._files.path, self._shards[place], ONCE)

    def close(self) -> None:
        """Stop; what is being got is finished."""
        self._pool.shutdown(wait=False, cancel_futures=True)
