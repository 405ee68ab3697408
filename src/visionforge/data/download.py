"""Where archives lie, and how a missing one is got: downloaded once, by one process."""

import contextlib
import ssl
import urllib.error
from pathlib import Path

from visionforge.data.info import DatasetInfo
from visionforge.errors import DataError
from visionforge.fetch import DEFAULT_RETRIES, Checksum, Retries, fetch
from visionforge.runs.locks import LockedError, held
from visionforge.runs.paths import data_folder, resolve

LOCK_TIMEOUT_S = 3600.0  # another process is downloading the same file


def data_root(root: str | None) -> Path:
    """Return the folder that holds archives: `root`, else the folder of `data://`."""
    return data_folder() if root is None else resolve(root)


def ensure_archive(
    info: DatasetInfo, resolution: int, root: str | None, download: bool, retries: Retries = DEFAULT_RETRIES
) -> Path:
    """Return the path of an archive, downloading it if it is missing and that is allowed.

    One process downloads; others that want the same file wait for it, and use it.

    Raises:
        DataError: If it is missing and cannot be downloaded; the message says how to place it by hand.
    """
    if resolution not in info.archives:
        raise DataError(f"{info.name}: its catalog entry has no archive of {resolution} pixels")
    folder = data_root(root)
    path = folder / info.archive_name(resolution)
    if path.is_file():
        return path
    archive, most = info.archives[resolution], info.max_archive_bytes(resolution)
    if archive.url is None:
        raise DataError(f"{path}: missing, and there is no address to get it from; name its folder with --data.root")
    by_hand = (
        f"place {archive.url} (at most {most / 1e6:,.1f} MB, MD5 {archive.md5}) at {path}, "
        "or name its folder with --data.root"
    )
    if not download:
        raise DataError(f"{path}: missing, and data.download is false; {by_hand}")
    made_folder = not folder.exists()
    lock, partial = Path(f"{path}.lock"), path.with_name(f"{path.name}.part")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with held(lock, str(path), LOCK_TIMEOUT_S):
            if not path.is_file():
                fetch(archive.url, path, Checksum("md5", archive.md5) if archive.md5 else None, most, retries)
        return path
    except LockedError as error:
        owner = error.owner or "another process"
        raise DataError(f"{path}: {owner} has held its lock for {LOCK_TIMEOUT_S:.0f} s; {by_hand}") from error
    except (urllib.error.URLError, ssl.SSLError, TimeoutError, ConnectionError) as error:
        reason = getattr(error, "reason", error)
        raise DataError(f"{path}: missing, and the download failed ({reason}); {by_hand}") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be written ({error.strerror or error}); {by_hand}") from error
    finally:
        if made_folder and not path.is_file() and not partial.exists():  # leave nothing behind
            with contextlib.suppress(OSError):
                folder.rmdir()
