"""Fetch an archive over HTTPS: verified while it streams, and never visible under its name before it is whole."""

import contextlib
import hashlib
import logging
import os
import ssl
import urllib.error
import urllib.request
from http.client import HTTPMessage
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit
from urllib.request import Request

from filelock import FileLock, Timeout
from platformdirs import user_cache_path

from visionforge.data.info import DatasetInfo
from visionforge.errors import DataError

log = logging.getLogger(__name__)

TIMEOUT_S = 30.0  # without a byte
LOCK_TIMEOUT_S = 3600.0  # another process is downloading the same file
CHUNK_BYTES = 1 << 20
MAX_ARCHIVE_BYTES = 64 << 30  # larger than any archive of the catalog


def data_root(root: str | None) -> Path:
    """Return the folder that holds archives: `root`, else $VISIONFORGE_DATA, else the user's cache folder."""
    if root is not None:
        return Path(root).expanduser()
    environment = os.environ.get("VISIONFORGE_DATA")
    return Path(environment).expanduser() if environment else user_cache_path("visionforge") / "datasets"


def ensure_archive(info: DatasetInfo, resolution: int, root: str | None, download: bool) -> Path:
    """Return the path of an archive, downloading it if it is missing and that is allowed.

    Raises:
        DataError: If it is missing and cannot be downloaded; the message says how to place it by hand.
    """
    folder = data_root(root)
    path = folder / info.archive_name(resolution)
    if path.is_file():
        return path
    archive = info.archives[resolution]
    by_hand = f"place {archive.url} (MD5 {archive.md5}) at {path}, or name its folder with --data.root"
    if not download:
        raise DataError(f"{path}: missing, and data.download is false; {by_hand}")
    made_folder = not folder.exists()
    lock = Path(f"{path}.lock")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(lock, timeout=LOCK_TIMEOUT_S):
            if not path.is_file():
                fetch(archive.url, path, archive.md5)
        return path
    except Timeout as error:
        raise DataError(f"{path}: another process has held its lock for {LOCK_TIMEOUT_S:.0f} s; {by_hand}") from error
    except (urllib.error.URLError, ssl.SSLError, TimeoutError, ConnectionError) as error:
        reason = getattr(error, "reason", error)
        raise DataError(f"{path}: missing, and the download failed ({reason}); {by_hand}") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be written ({error.strerror or error}); {by_hand}") from error
    finally:
        if made_folder and not path.is_file():  # leave nothing behind
            with contextlib.suppress(OSError):
                lock.unlink(missing_ok=True)
                folder.rmdir()


class _SecureRedirects(urllib.request.HTTPRedirectHandler):
    """Follow redirects only to HTTPS."""

    def redirect_request(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> Request | None:
        """Refuse what is not HTTPS."""
        if urlsplit(newurl).scheme != "https":
            raise DataError(f"{req.full_url}: redirects to {newurl}, which is not HTTPS; refused")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def fetch(url: str, path: Path, md5: str | None) -> None:
    """Download `url` to `path`; the name appears only once the whole file is there and its MD5 is right.

    Raises:
        DataError: If the URL is not HTTPS, the answer is no archive, or the MD5 is wrong.
        OSError: If the connection fails or the file cannot be written.
    """
    if urlsplit(url).scheme != "https":
        raise DataError(f"{url}: only HTTPS is downloaded")
    partial = path.with_name(f"{path.name}.part")
    log.info("downloading %s to %s", url, path)
    opener = urllib.request.build_opener(_SecureRedirects)
    digest, received = hashlib.md5(usedforsecurity=False), 0
    try:
        with opener.open(url, timeout=TIMEOUT_S) as response, partial.open("wb") as file:
            kind = response.headers.get_content_type()
            if kind.startswith("text/"):
                raise DataError(f"{url}: the server sent a page ({kind}) instead of an archive")
            expected = int(response.headers.get("Content-Length") or 0)
            while chunk := response.read(CHUNK_BYTES):
                received += len(chunk)
                if received > MAX_ARCHIVE_BYTES:
                    raise DataError(f"{url}: sent more than {MAX_ARCHIVE_BYTES:,} bytes; refused")
                digest.update(chunk)
                file.write(chunk)
            file.flush()
            os.fsync(file.fileno())
        if expected and received != expected:
            raise ConnectionError(f"connection ended after {received:,} of {expected:,} bytes")
        if md5 is not None and digest.hexdigest() != md5:
            raise DataError(f"{url}: the download has MD5 {digest.hexdigest()}, the catalog says {md5}; discarded")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    log.info("downloaded %s bytes", f"{received:,}")
