"""From a catalog entry to arrays, wherever they come from."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from visionforge.data.archive import SplitArrays, read_split
from visionforge.data.download import data_root, ensure_archive
from visionforge.data.embedded import digits_split, synthetic_split
from visionforge.data.info import DatasetInfo, Split
from visionforge.data.shard_index import is_sharded
from visionforge.data.sharded import download_shards, open_sharded, side_archive
from visionforge.data.side_table import SideTable, read_side_table
from visionforge.data.store import StoreError, open_archive, open_split, stored_md5
from visionforge.errors import DataError, SettingsError

log = logging.getLogger(__name__)

EMBEDDED: dict[str, Callable[[DatasetInfo, int, Split], SplitArrays]] = {
    "digits": digits_split,
    "synthetic": synthetic_split,
}


def offered_resolution(info: DatasetInfo, wanted: int | None = None) -> int:
    """Return the wanted resolution, or the smallest that the data set offers.

    Raises:
        SettingsError: If the data set does not offer it.
    """
    offered = tuple(info.archives) or info.resolutions  # an entry may offer what it has no archive of
    resolution = wanted if wanted is not None else min(offered) if offered else 28
    if offered is not None and resolution not in offered:
        allowed = ", ".join(map(str, offered))
        raise SettingsError(f"resolution: {resolution} is not offered by {info.name}; allowed: {allowed}")
    return resolution


def local_archive(info: DatasetInfo, resolution: int, root: str | None = None) -> Path:
    """Return the path of an archive that is there already.

    Raises:
        DataError: If it is not.
    """
    path = data_root(root) / info.archive_name(resolution)
    if not path.is_file():
        size = "" if resolution == offered_resolution(info) else f" --resolution {resolution}"
        raise DataError(
            f"{path}: missing; `visionforge datasets download {info.name}{size}` gets it, or name its --root"
        )
    return path


@dataclass(frozen=True)
class Downloaded:
    """An archive that is here, verified and unpacked.

    Attributes:
        path: The file.
        size: Its bytes.
        md5: Its MD5; None where the catalog has none.
    """

    path: Path
    size: int
    md5: str | None

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain values."""
        return {"file": str(self.path), "bytes": self.size, "md5": self.md5}


def download_archive(info: DatasetInfo, resolution: int | None = None, root: str | None = None) -> Downloaded:
    """Get an archive if it is missing, verify it, and unpack it for later use.

    Args:
        info: The data set.
        resolution: Height and width in pixels; None is the smallest.
        root: Folder of the archives; None is where they lie by default.

    Raises:
        SettingsError: If the data set does not offer the resolution.
        DataError: If there is no archive, or it is not what the catalog says.
    """
    resolution = offered_resolution(info, resolution)
    if not info.archives:
        raise DataError(f"{info.name}: is made on this machine, there is no archive to download")
    path = ensure_archive(info, resolution, root, download=True)
    if is_sharded(path):
        size = download_shards(path, info, resolution)
    else:
        open_archive(path, info, resolution)
        size = path.stat().st_size
    return Downloaded(path, size, info.archives[resolution].md5)


def prepare(info: DatasetInfo, resolution: int, root: str | None, download: bool) -> None:
    """Make sure that the arrays can be read: download a missing archive, verify it and unpack it once.

    Raises:
        DataError: If the archive is missing or is not what the catalog says.
    """
    if info.source not in EMBEDDED:
        path = ensure_archive(info, resolution, root, download)
        try:
            if is_sharded(path):
                side_archive(path, info, resolution, download)
            else:
                open_archive(path, info, resolution)
        except StoreError as error:  # the archive is verified; it will be read into memory instead
            log.warning("%s", error)


def load_split(
    info: DatasetInfo, resolution: int, root: str | None, split: Split, download: bool = False
) -> SplitArrays:
    """Return the images and labels of one split; `prepare` has been called before.

    Args:
        info: The data set.
        resolution: Height and width in pixels.
        root: Folder of the archives; None is where they lie by default.
        split: Which split.
        download: Get shards that are missing when they are read.

    Raises:
        DataError: If the archive has gone, its data is damaged, or a label is out of range.
    """
    if info.source in EMBEDDED:
        return EMBEDDED[info.source](info, resolution, split)
    path = ensure_archive(info, resolution, root, download=False)
    if is_sharded(path):
        return open_sharded(path, info, resolution, split, download)
    try:
        return open_split(path, info, resolution, split)
    except StoreError:
        return read_split(path, info, split)


def whole_split(path: Path, info: DatasetInfo, resolution: int, split: Split) -> SplitArrays:
    """Return one split of a verified archive in memory.

    Raises:
        DataError: If the data is damaged.
    """
    if not is_sharded(path):
        return read_split(path, info, split)
    arrays = open_sharded(path, info, resolution, split, download=False)
    return SplitArrays(np.asarray(arrays.images), arrays.labels)


def stored_side_table(
    info: DatasetInfo, resolution: int, root: str | None, split: Split, download: bool = False
) -> SideTable:
    """Return what the archive of a data set holds beside all images of a split; an embedded data set has nothing.

    Args:
        info: The data set.
        resolution: Height and width in pixels.
        root: Folder of the archives; None is where they lie by default.
        split: Which split.
        download: Get what is missing of a sharded archive.

    Raises:
        DataError: If the archive is missing, or what it has beside its images is no table of them.
    """
    if info.source in EMBEDDED:
        return SideTable()
    path = ensure_archive(info, resolution, root, download=False)
    return read_side_table(side_archive(path, info, resolution, download), split, getattr(info.splits, split))


def fingerprint(info: DatasetInfo, resolution: int, root: str | None) -> str | None:
    """Return the MD5 of the archive that was read, or None for an embedded data set."""
    if info.source in EMBEDDED:
        return None
    return stored_md5(ensure_archive(info, resolution, root, download=False))
