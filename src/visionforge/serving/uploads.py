"""The pictures of a request, from bodies that are bounded while they are read; nothing of them is written to disk."""

import asyncio
import base64
import binascii
import contextlib
from collections.abc import AsyncGenerator, Coroutine
from dataclasses import dataclass
from typing import Any

from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from visionforge.printable import printable
from visionforge.reading import UnreadableError, read_json_text
from visionforge.serving.settings import HELD_BODIES, ServingSettings

FORMS = "multipart/form-data with files, or application/json with images, a list of base64"
BODY_S = 300.0  # that a whole body may take
_NAME = 200  # characters of a file name


@dataclass(frozen=True)
class Upload:
    """A picture of a request.

    Attributes:
        name: Of the file, printable.
        content: What is in it; None if it was no base64.
    """

    name: str
    content: bytes | None


class Uploads:
    """Reads requests, and knows how much of them is in memory.

    Args:
        settings: What is refused.
    """

    def __init__(self, settings: ServingSettings) -> None:
        self._settings = settings
        self._held = 0

    @contextlib.asynccontextmanager
    async def of(self, request: Request) -> AsyncGenerator[list[Upload], None]:
        """Yield the pictures of a request, which count as held until the block ends.

        Raises:
            HTTPException: If it is of no known form, too large, has too many, or there is no room for it now.
        """
        if request.headers.get("content-encoding", "identity") != "identity":
            raise HTTPException(415, "content-encoding: is not allowed; send the request as it is")
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        readers = {"multipart/form-data": self._multipart, "application/json": self._json}
        if kind not in readers:
            raise HTTPException(415, f"content-type: {printable(kind, 60) or 'none'} is not allowed; allowed: {FORMS}")
        count = _Count()
        try:
            yield await self._read(readers[kind](request, self._body(request, count)))
        finally:
            self._held -= count.bytes

    async def _read(self, reading: Coroutine[Any, Any, list[Upload]]) -> list[Upload]:
        try:
            async with asyncio.timeout(BODY_S):
                found = await reading
        except TimeoutError:
            raise HTTPException(408, f"the request took more than {BODY_S:.0f} s to arrive") from None
        except ClientDisconnect:
            raise HTTPException(400, "the request ended too early") from None
        if not found:
            raise HTTPException(400, f"the request holds no picture; allowed: {FORMS}")
        return found

    async def _body(self, request: Request, count: "_Count") -> AsyncGenerator[bytes, None]:
        """Yield the body, as far as it is allowed."""
        most = self._settings.max_bytes
        stated = request.headers.get("content-length", "")
        if stated.isdecimal() and int(stated[:20]) > most:
            raise _too_large(most)
        async for chunk in request.stream():
            count.bytes += len(chunk)
            self._held += len(chunk)
            if count.bytes > most:
                raise _too_large(most)
            if self._held > HELD_BODIES * most:
                raise busy("too many requests arrive at the same time")
            yield chunk

    async def _multipart(self, request: Request, body: AsyncGenerator[bytes, None]) -> list[Upload]:
        parser = MultiPartParser(
            request.headers, body, max_files=self._settings.max_queue, max_fields=0, max_part_size=0
        )
        parser.spool_max_size = self._settings.max_bytes + 1  # so that it stays in memory
        try:
            form = await parser.parse()
        except MultiPartException as error:
            raise HTTPException(400, f"multipart: {printable(error.message, _NAME)}") from None
        files = [value for _, value in form.multi_items() if isinstance(value, UploadFile)]
        found = [
            Upload(printable(file.filename or f"picture {number}", _NAME), await file.read())
            for number, file in enumerate(files)
        ]
        await form.close()
        return found

    async def _json(self, request: Request, body: AsyncGenerator[bytes, None]) -> list[Upload]:
        content = b"".join([chunk async for chunk in body])
        return await asyncio.to_thread(_images_of, content, self._settings.max_queue)  # which takes a while


@dataclass
class _Count:
    """Bytes of a body that have been read."""

    bytes: int = 0


def busy(why: str) -> HTTPException:
    """Return that there is no room now, and when to ask again."""
    return HTTPException(503, f"{why}; ask again in a second", {"Retry-After": "1"})


def _too_large(most: int) -> HTTPException:
    return HTTPException(413, f"the request has more than {most:,} bytes; send fewer pictures at once, or smaller ones")


def _images_of(content: bytes, most: int) -> list[Upload]:
    """Return the pictures of a request in JSON."""
    if sum(map(content.count, (b"[", b"{", b","))) > most + 1:  # before a long list takes many times its size
        raise HTTPException(400, f"images: more than {most:,} pictures, or not a list of base64 alone")
    try:
        given: Any = read_json_text(content.decode("utf-8"))
    except (UnreadableError, UnicodeDecodeError) as error:
        raise HTTPException(400, f"the request: {printable(error, _NAME)}") from None
    images = given.get("images") if isinstance(given, dict) and len(given) == 1 else None
    if not isinstance(images, list) or not all(isinstance(each, str) for each in images):
        raise HTTPException(400, 'the request: is not allowed; allowed: {"images": [base64, …]}')
    return [Upload(f"images[{number}]", _decoded(each)) for number, each in enumerate(images)]


def _decoded(text: str) -> bytes | None:
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError):
        return None
