"""From a catalog entry to arrays, wherever they come from."""

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

from visionforge.data.archive import SplitArrays, md5_of, read_split, verify_archive
from visionforge.data.download import ensure_archive
from visionforge.data.embedded import digits_split, synthetic_split
from visionforge.data.info import DatasetInfo, Split

EMBEDDED: dict[str, Callable[[DatasetInfo, int, Split], SplitArrays]] = {
    "digits": digits_split,
    "synthetic": synthetic_split,
}


def prepare(info: DatasetInfo, resolution: int, root: str | None, download: bool) -> None:
    """Make sure that the arrays can be read: download a missing archive, and verify it.

    Raises:
        DataError: If the archive is missing or is not what the catalog says.
    """
    if info.source not in EMBEDDED:
        path = ensure_archive(info, resolution, root, download)
        stat = path.stat()
        _verify_once(path, stat.st_size, stat.st_mtime_ns, info.name, resolution, info.model_dump_json())


@lru_cache(maxsize=64)
def _verify_once(path: Path, size: int, mtime_ns: int, name: str, resolution: int, entry: str) -> None:
    verify_archive(path, DatasetInfo.model_validate_json(entry), resolution)


def load_split(info: DatasetInfo, resolution: int, root: str | None, split: Split) -> SplitArrays:
    """Return the images and labels of one split; `prepare` has been called before.

    Raises:
        DataError: If the archive has gone, its data is damaged, or a label is out of range.
    """
    if info.source in EMBEDDED:
        return EMBEDDED[info.source](info, resolution, split)
    return read_split(ensure_archive(info, resolution, root, download=False), info, split)


def fingerprint(info: DatasetInfo, resolution: int, root: str | None) -> str | None:
    """Return the MD5 of the archive that was read, or None for an embedded data set."""
    if info.source in EMBEDDED:
        return None
    return md5_of(ensure_archive(info, resolution, root, download=False))
