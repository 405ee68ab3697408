"""Where archives lie, and how a missing one is got: downloaded or made once, by one process."""

from pathlib import Path

from visionforge.data.fetch_once import fetch_once
from visionforge.data.info import DatasetInfo
from visionforge.data.shard_index import MAX_INDEX, is_sharded
from visionforge.errors import DataError
from visionforge.fetch import DEFAULT_RETRIES, Checksum, Retries
from visionforge.runs.paths import data_folder, resolve


def data_root(root: str | None) -> Path:
    """Return the folder that holds archives: `root`, else the folder of `data://`."""
    return data_folder() if root is None else resolve(root)


def ensure_archive(
    info: DatasetInfo, resolution: int, root: str | None, download: bool, retries: Retries = DEFAULT_RETRIES
) -> Path:
    """Return the path of an archive, downloading it if it is missing and that is allowed.

    One process downloads; others that want the same file wait for it, and use it. Where the catalog has files of
    another format instead, it is made of them, which needs no download if they are on this machine.

    Raises:
        DataError: If it is missing and cannot be downloaded or made; the message says how to place it by hand.
    """
    if resolution not in info.archives:
        raise DataError(f"{info.name}: its catalog entry has no archive of {resolution} pixels")
    folder = data_root(root)
    path = folder / info.archive_name(resolution)
    if path.is_file():
        return path
    archive, most = info.archives[resolution], info.max_archive_bytes(resolution)
    most = MAX_INDEX if is_sharded(path) else most
    if archive.url is None and info.original is not None:
        from visionforge.data.converting import make_archive  # readers that other data sets do without

        make_archive(info, resolution, folder, download, retries)
        return path
    if archive.url is None:
        raise DataError(f"{path}: missing, and there is no address to get it from; name its folder with --data.root")
    by_hand = (
        f"place {archive.url} (at most {most / 1e6:,.1f} MB, MD5 {archive.md5}) at {path}, "
        "or name its folder with --data.root"
    )
    if not download:
        raise DataError(f"{path}: missing, and data.download is false; {by_hand}")
    fetch_once(archive.url, path, Checksum("md5", archive.md5) if archive.md5 else None, most, by_hand, retries)
    return path
