"""A file that several processes may want is downloaded by one of them, and what went wrong is told in one line."""

import contextlib
import ssl
import urllib.error
from pathlib import Path

from visionforge.errors import DataError
from visionforge.fetch import DEFAULT_RETRIES, Checksum, Retries, fetch
from visionforge.runs.locks import LockedError, held

LOCK_TIMEOUT_S = 3600.0  # another process is downloading the same file


def fetch_once(
    url: str, path: Path, checksum: Checksum | None, most: int, by_hand: str, retries: Retries = DEFAULT_RETRIES
) -> None:
    """Download a file that is missing; others that want the same file wait for it, and use it.

    Args:
        url: Where it is.
        path: Where it goes.
        checksum: What it must have; None is not checked.
        most: Bytes that it has at most.
        by_hand: How to do it by hand, for messages.
        retries: How often and how patiently it is tried.

    Raises:
        DataError: If it cannot be downloaded or is not what it should be.
    """
    folder = path.parent
    made = [each for each in (folder, *folder.parents) if not each.exists()]
    lock, partial = Path(f"{path}.lock"), path.with_name(f"{path.name}.part")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with held(lock, str(path), LOCK_TIMEOUT_S):
            if not path.is_file():
                fetch(url, path, checksum, most, retries)
    except LockedError as error:
        owner = error.owner or "another process"
        raise DataError(f"{path}: {owner} has held its lock for {LOCK_TIMEOUT_S:.0f} s; {by_hand}") from error
    except (urllib.error.URLError, ssl.SSLError, TimeoutError, ConnectionError) as error:
        reason = getattr(error, "reason", error)
        raise DataError(f"{path}: missing, and the download failed ({reason}); {by_hand}") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be written ({error.strerror or error}); {by_hand}") from error
    finally:
        if made and not path.is_file() and not partial.exists():  # leave nothing behind
            with contextlib.suppress(OSError):
                for each in made:
                    each.rmdir()
