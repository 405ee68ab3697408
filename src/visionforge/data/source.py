"""From a catalog entry to arrays, wherever they come from."""

import logging
from collections.abc import Callable

from visionforge.data.archive import SplitArrays, read_split
from visionforge.data.download import ensure_archive
from visionforge.data.embedded import digits_split, synthetic_split
from visionforge.data.info import DatasetInfo, Split
from visionforge.data.store import StoreError, open_archive, open_split, stored_md5

log = logging.getLogger(__name__)

EMBEDDED: dict[str, Callable[[DatasetInfo, int, Split], SplitArrays]] = {
    "digits": digits_split,
    "synthetic": synthetic_split,
}


def prepare(info: DatasetInfo, resolution: int, root: str | None, download: bool) -> None:
    """Make sure that the arrays can be read: download a missing archive, verify it and unpack it once.

    Raises:
        DataError: If the archive is missing or is not what the catalog says.
    """
    if info.source not in EMBEDDED:
        path = ensure_archive(info, resolution, root, download)
        try:
            open_archive(path, info, resolution)
        except StoreError as error:  # the archive is verified; it will be read into memory instead
            log.warning("%s", error)


def load_split(info: DatasetInfo, resolution: int, root: str | None, split: Split) -> SplitArrays:
    """Return the images and labels of one split; `prepare` has been called before.

    Raises:
        DataError: If the archive has gone, its data is damaged, or a label is out of range.
    """
    if info.source in EMBEDDED:
        return EMBEDDED[info.source](info, resolution, split)
    path = ensure_archive(info, resolution, root, download=False)
    try:
        return open_split(path, info, resolution, split)
    except StoreError:
        return read_split(path, info, split)


def fingerprint(info: DatasetInfo, resolution: int, root: str | None) -> str | None:
    """Return the MD5 of the archive that was read, or None for an embedded data set."""
    if info.source in EMBEDDED:
        return None
    return stored_md5(ensure_archive(info, resolution, root, download=False))
