"""Weights at an address, downloaded once and verified by the digest in it."""

import re
from pathlib import Path
from urllib.parse import urlsplit

from visionforge.errors import DataError, WeightsError
from visionforge.fetch import Checksum, fetch
from visionforge.models.weight_files import MAX_BYTES, SETTING
from visionforge.runs.locks import LockedError, held
from visionforge.runs.paths import cache_folder

LOCK_TIMEOUT_S = 3600.0  # another process is downloading the same file


def downloaded(address: str) -> Path:
    """Return the file of an address, downloading it if it is not in the user's cache folder yet.

    Args:
        address: ``https://HOST/FILE#sha256=DIGEST``.

    Raises:
        WeightsError: If the address names no SHA-256, or the file cannot be had.
    """
    url, _, fragment = address.partition("#")
    digest = re.fullmatch(r"sha256=([0-9a-fA-F]{64})", fragment)
    name = Path(urlsplit(url).path).name
    if digest is None or not name:
        raise WeightsError(
            f"{SETTING}: {address}: an address needs its file's SHA-256: https://HOST/FILE#sha256=DIGEST"
        )
    checksum = Checksum("sha256", digest[1].lower())
    path = cache_folder() / "weights" / f"{checksum.value[:16]}-{name}"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with held(Path(f"{path}.lock"), str(path), LOCK_TIMEOUT_S):
            if not path.is_file() or not checksum.fits(path):
                fetch(url, path, checksum, MAX_BYTES)
    except (DataError, LockedError) as error:
        raise WeightsError([f"{SETTING}: {problem}" for problem in error.problems]) from error
    except OSError as error:
        raise WeightsError(
            f"{SETTING}: {url} cannot be downloaded ({getattr(error, 'reason', error)}); place it at {path}"
        ) from error
    return path
