"""Fetch a file over HTTPS or from an object store.

It is continued after failures, verified, and never visible under its name before it is whole.
"""

import contextlib
import errno
import hashlib
import http.client
import logging
import os
import re
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from email.message import Message
from email.utils import parsedate_to_datetime
from http.client import HTTPMessage
from pathlib import Path
from typing import IO, Protocol
from urllib.parse import urlsplit
from urllib.request import Request

from visionforge.errors import DataError
from visionforge.printable import printable
from visionforge.redaction import redact_url

log = logging.getLogger(__name__)

CHUNK_BYTES = 1 << 18
OBJECT_STORES = {"s3": "s3fs", "gs": "gcsfs", "abfs": "adlfs"}  # scheme → the package that reads it
_TEMPORARY = (408, 425, 429, 500, 502, 503, 504)  # HTTP answers that may be different next time


@dataclass(frozen=True)
class Retries:
    """How often and how patiently a download is tried.

    Attributes:
        attempts: Tries without any progress before it is given up.
        backoff_s: Wait after the first failure, in seconds; doubled after each further one.
        max_wait_s: Longest wait, also where the server asks for more.
        timeout_s: Longest silence of the server.
    """

    attempts: int = 5
    backoff_s: float = 1.0
    max_wait_s: float = 60.0
    timeout_s: float = 30.0


DEFAULT_RETRIES = Retries()


@dataclass(frozen=True)
class Checksum:
    """What a downloaded file must have.

    Attributes:
        algorithm: Name as hashlib knows it.
        value: Hexadecimal digits, lower case.
    """

    algorithm: str
    value: str

    @property
    def name(self) -> str:
        """Return the algorithm's name for messages."""
        return {"md5": "MD5", "sha256": "SHA-256"}.get(self.algorithm, self.algorithm)

    def of(self, path: Path) -> str:
        """Return the checksum of a file."""
        with path.open("rb") as file:
            return hashlib.file_digest(file, self.algorithm).hexdigest()

    def fits(self, path: Path) -> bool:
        """Return whether a file has it."""
        return self.of(path) == self.value


class _Readable(Protocol):
    """What bytes come from."""

    def read(self, size: int, /) -> bytes:
        """Return some bytes, and none at the end."""


class _TryAgainError(Exception):
    """The attempt failed in a way that may pass."""

    def __init__(self, reason: str, wait_s: float | None = None) -> None:
        super().__init__(reason)
        self.wait_s = wait_s


def fetch(url: str, path: Path, checksum: Checksum | None, max_bytes: int, retries: Retries = DEFAULT_RETRIES) -> None:
    """Download `url` to `path`; the name appears only once the whole file is there and its MD5 is right.

    What has arrived is kept in ``NAME.part`` and continued by the next attempt or the next process. A file that turns
    out wrong after it was continued is fetched once more from the start.

    Args:
        url: An address of HTTPS or of an object store, such as ``s3://bucket/name``, whose credentials are those of
            the environment.
        path: Where the file goes.
        checksum: What the file must have; None is not checked.
        max_bytes: Refuse to receive more.
        retries: How often and how patiently it is tried.

    Raises:
        DataError: If the URL is another, the package for its store is missing, the answer is a page or too large, or
            the checksum is wrong.
        OSError: If the connection fails for good, or the file cannot be written.
    """
    if urlsplit(url).scheme not in ("https", *OBJECT_STORES):
        raise DataError(f"{url}: only HTTPS is downloaded, and {', '.join(OBJECT_STORES)} of object stores")
    partial = path.with_name(f"{path.name}.part")
    level = logging.DEBUG if _without_bars.get() else logging.INFO
    log.log(level, "downloading %s to %s", redact_url(url), path)
    continued = _size(partial) > 0
    _receive_all(url, partial, max_bytes, retries)
    if checksum is not None and continued and not checksum.fits(partial):
        log.warning("%s: what was continued has a wrong %s; starting again", path.name, checksum.name)
        partial.unlink()
        _receive_all(url, partial, max_bytes, retries)
    if checksum is not None and (actual := checksum.of(partial)) != checksum.value:
        partial.unlink()
        raise DataError(f"{url}: the download has {checksum.name} {actual}, expected {checksum.value}; discarded")
    partial.replace(path)
    log.log(level, "downloaded %s bytes", f"{_size(path):,}")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _receive_all(url: str, partial: Path, max_bytes: int, retries: Retries) -> None:
    """Receive until the file is whole; progress makes the count of failures start again."""
    failures = 0
    while True:
        before = _size(partial)
        try:
            if urlsplit(url).scheme in OBJECT_STORES:
                _receive_object(url, partial, max_bytes)
            else:
                _receive(url, partial, max_bytes, retries.timeout_s)
            return
        except _TryAgainError as error:
            failures = 1 if _size(partial) > before else failures + 1
            if failures >= retries.attempts:
                raise ConnectionError(f"{error}, {failures} times in a row") from error
            wait = retries.backoff_s * 2 ** (failures - 1) if error.wait_s is None else error.wait_s
            wait = min(wait, retries.max_wait_s)
            log.warning("%s: %s; trying again in %.0f s", partial.stem, error, wait)
            time.sleep(wait)


def _receive(url: str, partial: Path, max_bytes: int, timeout_s: float) -> None:
    """Make one request for the bytes that are missing."""
    have = _size(partial)
    request = Request(url, headers={"User-Agent": "visionforge", "Accept-Encoding": "identity"})
    if have:
        request.add_header("Range", f"bytes={have}-")
    try:
        with urllib.request.build_opener(_SecureRedirects).open(request, timeout=timeout_s) as response:
            _check_kind(url, response)
            start, total = _range_of(response, have)
            if total is not None and total > max_bytes:
                raise DataError(f"{url}: {total:,} bytes are more than this file can have ({max_bytes:,}); refused")
            _write(response, partial, start, total, url, max_bytes)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416 and have:  # there are no more bytes: it is whole, or of another file
            if error.headers.get("Content-Range") == f"bytes */{have}":
                return
            partial.unlink()
            raise _TryAgainError("what had arrived does not belong to the file", 0.0) from error
        if error.code in _TEMPORARY:
            raise _TryAgainError(f"the server answered {error.code}", _retry_after(error.headers)) from error
        raise
    except urllib.error.URLError as error:
        if isinstance(error.reason, (TimeoutError, ConnectionError)):
            raise _TryAgainError(f"the connection failed ({error.reason})") from error
        raise
    except (TimeoutError, ConnectionError, http.client.HTTPException) as error:
        raise _TryAgainError(f"the connection failed ({error or type(error).__name__})") from error


def _receive_object(url: str, partial: Path, max_bytes: int) -> None:
    """Receive the bytes of an object that are missing."""
    import fsspec  # with Lightning

    scheme, have = urlsplit(url).scheme, _size(partial)
    try:
        store, path = fsspec.core.url_to_fs(url)
    except (ImportError, ValueError) as error:  # of the package, or of what it is configured with
        package = OBJECT_STORES[scheme]
        raise DataError(f"{url}: {scheme} needs the package {package} (`pip install {package}`): {error}") from error
    try:
        total = int(store.size(path))
        if total > max_bytes:
            raise DataError(f"{url}: {total:,} bytes are more than this file can have ({max_bytes:,}); refused")
        with store.open(path, "rb") as source:
            source.seek(min(have, total))
            _write(source, partial, min(have, total), total, url, max_bytes)
    except (TimeoutError, ConnectionError) as error:
        raise _TryAgainError(f"the connection failed ({error or type(error).__name__})") from error
    except (DataError, _TryAgainError):
        raise
    except Exception as error:  # the packages have errors of their own, for one of credentials
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):  # of this machine
            raise
        if isinstance(error, OSError) and not isinstance(error, FileNotFoundError | PermissionError):
            raise _TryAgainError(f"the store failed ({' '.join(str(error).split())})") from error
        raise DataError(f"{url}: cannot be read ({type(error).__name__}: {' '.join(str(error).split())})") from error


def _check_kind(url: str, response: http.client.HTTPResponse) -> None:
    kind = response.headers.get_content_type()
    wanted = urlsplit(url).path.endswith(".json")
    if (kind.startswith("text/") or kind == "application/json") and not (wanted and kind != "text/html"):
        raise DataError(f"{url}: the server sent a page ({kind}) instead of a file")


def _range_of(response: http.client.HTTPResponse, have: int) -> tuple[int, int | None]:
    """Return the position that the answer starts at, and the size of the whole file if it is known."""
    if response.status == http.HTTPStatus.PARTIAL_CONTENT:
        match = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
        if match is None or int(match[1]) != have:
            raise _TryAgainError("the server sent another part than was asked for")
        return have, None if match[2] == "*" else int(match[2])
    length = response.headers.get("Content-Length", "")
    return 0, int(length) if length.isdigit() else None


def _write(response: _Readable, partial: Path, start: int, total: int | None, url: str, max_bytes: int) -> None:
    """Append what arrives; what has arrived survives whatever happens next."""
    received = start
    with partial.open("r+b" if start else "wb") as file, transfer_bar(partial.stem, total) as advance:
        file.truncate(start)
        file.seek(start)
        advance(start)
        while chunk := response.read(CHUNK_BYTES):
            received += len(chunk)
            if received > max_bytes:
                raise DataError(f"{url}: sent more bytes than this file can have ({max_bytes:,}); refused")
            file.write(chunk)
            advance(len(chunk))
        file.flush()
        os.fsync(file.fileno())
    if total is not None and received < total:
        raise _TryAgainError(f"the connection ended after {received:,} of {total:,} bytes")


def _retry_after(headers: Message) -> float | None:
    """Return the seconds that a server asks to wait, given as a number or a date."""
    value = headers.get("Retry-After", "").strip()
    if value.isdigit():
        return float(value)
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except (TypeError, ValueError):
        return None


class _SecureRedirects(urllib.request.HTTPRedirectHandler):
    """Follow redirects only to HTTPS."""

    def redirect_request(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> Request | None:
        """Refuse what is not HTTPS."""
        if urlsplit(newurl).scheme != "https":
            raise DataError(f"{req.full_url}: redirects to {newurl}, which is not HTTPS; refused")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


_without_bars: ContextVar[bool] = ContextVar("without_bars", default=False)


@contextlib.contextmanager
def without_bars() -> Iterator[None]:
    """Show no progress of transfers within, and tell of them to debug only; a thread has its own."""
    token = _without_bars.set(True)
    try:
        yield
    finally:
        _without_bars.reset(token)


@contextlib.contextmanager
def transfer_bar(name: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """Show a progress bar for a transfer on a terminal; yields the function that advances it by some bytes."""
    if _without_bars.get() or sys.stderr is None or not sys.stderr.isatty():
        yield lambda count: None
        return
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    from visionforge.terminal import plain_console

    label = TextColumn("{task.description}", markup=False)
    columns = (label, BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=plain_console(stderr=True)) as progress:
        task = progress.add_task(printable(name), total=total)
        yield lambda count: progress.update(task, advance=count)
