"""The application: routes, limits, and what every answer says to browsers; it can be mounted in any ASGI project."""

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from starlette.applications import Starlette
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from visionforge.data.pictures import PictureError
from visionforge.data.stream import bombs_refused
from visionforge.engine.picture_predictions import MOST_THREADS
from visionforge.errors import VisionForgeError
from visionforge.printable import printable
from visionforge.serving.answers import Answer
from visionforge.serving.batching import Batcher
from visionforge.serving.measures import CONTENT_TYPE, Measures
from visionforge.serving.network import ServedNetwork
from visionforge.serving.page import page_of
from visionforge.serving.reading import Picture
from visionforge.serving.settings import ServingSettings
from visionforge.serving.uploads import Upload, Uploads, busy

ROUTES = ("/", "/predict", "/health", "/metrics", "/contract")
SAFE = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
}


class Service:
    """A network that answers requests.

    Args:
        network: What is served.
        settings: How pictures are gathered, and what is refused.
        threads: That read pictures.

    Attributes:
        cut_off: Whether a request could not be answered before the end.
    """

    def __init__(self, network: ServedNetwork, settings: ServingSettings, threads: int) -> None:
        self.network = network
        self.settings = settings
        self.measures = Measures()
        self._coming = 0  # requests that arrive, and pictures that are decoded
        self._uploads = Uploads(settings)
        self._threads = threads
        self._pool: ThreadPoolExecutor | None = None  # an application may be begun again after its end
        self._batcher: Batcher[Picture, Answer] = Batcher(
            self._answers, settings.batch_size, settings.max_wait_ms / 1000, lambda: self._coming > 0
        )
        self.cut_off = False
        self._admitted = 0
        self._page, self._policy = page_of(network, settings)

    def close(self) -> None:
        """Answer what is in work, and end the threads."""
        self._batcher.close()
        if self._pool is not None:
            self._pool.shutdown()
            self._pool = None

    def _answers(self, pictures: list[Picture]) -> list[Answer]:
        self.measures.batches.observe(len(pictures))
        return self.network.reader.answers(pictures)

    # --- routes

    async def page(self, request: Request) -> Response:
        """Return the page on which pictures are dropped."""
        return HTMLResponse(self._page, headers={"Content-Security-Policy": self._policy})

    async def health(self, request: Request) -> Response:
        """Return that there is a network, and which."""
        spec = self.network.spec
        return JSONResponse(
            {"status": "ok", "name": self.network.name, "task": spec.task, "classes": len(spec.classes)}
        )

    async def contract(self, request: Request) -> Response:
        """Return what the network says of itself."""
        return JSONResponse(self.network.about)

    async def metrics(self, request: Request) -> Response:
        """Return the counters."""
        self.measures.waiting.set(self._admitted)
        return Response(self.measures.text(), media_type=CONTENT_TYPE)

    async def predict(self, request: Request) -> Response:
        """Return what is said of the pictures of a request; 422 if none of them could be read."""
        started = time.perf_counter()
        try:
            async with contextlib.AsyncExitStack() as stack:
                with self._arriving():
                    uploads = await stack.enter_async_context(self._uploads.of(request))
                stack.enter_context(self._admitting(len(uploads)))
                told = await asyncio.gather(*map(self._one, uploads), return_exceptions=True)
        except asyncio.CancelledError:
            self.cut_off = True
            raise
        answers = _answers_of(uploads, told)
        failed = sum("error" in answer for answer in answers)
        self.measures.errors.inc(failed)
        self.measures.pictures.inc(len(answers) - failed)
        self.measures.seconds.observe(time.perf_counter() - started)
        return JSONResponse({"predictions": answers}, 422 if failed == len(answers) else 200)

    @contextlib.contextmanager
    def _arriving(self) -> Iterator[None]:
        """Let a batch wait until the block ends."""
        self._coming += 1
        try:
            yield
        finally:
            self._coming -= 1

    @contextlib.contextmanager
    def _admitting(self, count: int) -> Iterator[None]:
        """Count pictures as admitted until the block ends; refuse what there is no room for."""
        most = self.settings.max_queue
        if count > most:
            raise HTTPException(400, f"the request holds {count:,} pictures; allowed: {most:,}")
        if self._admitted + count > most:
            raise busy(f"{self._admitted:,} of {most:,} pictures wait already")
        self._admitted += count
        try:
            yield
        finally:
            self._admitted -= count

    async def _one(self, upload: Upload) -> Answer:
        if upload.content is None:
            return {"name": upload.name, "error": "is no base64"}
        read = self.network.reader.read
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self._threads, "visionforge-serve-decode")
        try:
            with self._arriving():
                picture = await asyncio.get_running_loop().run_in_executor(
                    self._pool, read, upload.name, upload.content, self.settings.max_pixels
                )
        except PictureError as error:
            return {"name": upload.name, "error": printable(error)}
        except Exception as error:  # on damaged files, readers raise almost anything
            return {"name": upload.name, "error": printable(f"cannot be read ({error or type(error).__name__})")}
        return await asyncio.wrap_future(self._batcher.submit(picture))


def _answers_of(uploads: Sequence[Upload], told: Sequence[Answer | BaseException]) -> list[Answer]:
    """Return the answers, with an error in the place of those that the network did not give.

    Raises:
        BaseException: What is no such error, or the first if it gave none.
    """
    for each in told:
        if isinstance(each, BaseException) and not isinstance(each, VisionForgeError):
            raise each
    answers: list[Answer] = []
    for upload, each in zip(uploads, told, strict=True):
        if isinstance(each, VisionForgeError):
            answers.append({"name": upload.name, "error": printable("; ".join(each.problems))})
        elif not isinstance(each, BaseException):
            answers.append(each)
    first = told[0]
    if isinstance(first, BaseException) and all(isinstance(each, BaseException) for each in told):
        raise first
    return answers


def service_app(
    network: ServedNetwork,
    settings: ServingSettings,
    *,
    allowed_hosts: Sequence[str] | None = None,
    threads: int | None = None,
) -> Starlette:
    """Return the application that serves a network.

    Args:
        network: What is served.
        settings: How pictures are gathered, and what is refused.
        allowed_hosts: Names by which it may be asked for, as in the `Host` header; requests that a browser sends for a
            page of somebody else are refused, too. None leaves both to whoever mounts it.
        threads: That read pictures; None is one per core, 8 at most.
    """
    service = Service(network, settings, min(MOST_THREADS, threads or os.cpu_count() or 1))

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        with bombs_refused():
            yield
        await asyncio.to_thread(service.close)

    guards = [] if allowed_hosts is None else [Middleware(OwnPages, allowed_hosts=allowed_hosts)]
    handlers: dict[Any, Any] = {HTTPException: _refused, VisionForgeError: _failed, Exception: _unexpected}
    app = Starlette(
        routes=[
            Route("/", service.page),
            Route("/predict", service.predict, methods=["POST"]),
            Route("/health", service.health),
            Route("/metrics", service.metrics),
            Route("/contract", service.contract),
        ],
        middleware=[Middleware(Counted, measures=service.measures), *guards],
        exception_handlers=handlers,
        lifespan=lifespan,
    )
    app.state.service = service
    return app


class Counted:
    """Counts answers, and adds the headers that every answer has.

    Args:
        app: What answers.
        measures: Where it is counted.
    """

    def __init__(self, app: ASGIApp, measures: Measures) -> None:
        self._app = app
        self._measures = measures

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path = scope["path"].removeprefix(scope.get("root_path", "")) or "/"
        known = path if path in ROUTES else "other"

        async def counting(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in SAFE.items():
                    headers.setdefault(name, value)
                self._measures.requests.labels(known, str(message["status"])).inc()
            await send(message)

        try:
            await self._app(scope, receive, counting)
        except Exception:  # of which nobody knows, and which is answered outside of this
            self._measures.requests.labels(known, "500").inc()
            raise


class OwnPages(TrustedHostMiddleware):
    """Answers to the names that it may be asked for by, and to no page of somebody else.

    A name that somebody makes point to this machine would let their page read answers (DNS rebinding); a form of their
    page could ask for work, though not read what comes of it.
    """

    def __init__(self, app: ASGIApp, allowed_hosts: Sequence[str]) -> None:
        super().__init__(app, allowed_hosts, www_redirect=False)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        foreign = scope["type"] == "http" and Headers(scope=scope).get("sec-fetch-site") == "cross-site"
        if foreign and scope["method"] not in ("GET", "HEAD"):
            refused = JSONResponse({"error": "the request comes from a page of another site"}, 403)
            await refused(scope, receive, send)
            return
        await super().__call__(scope, receive, send)


# --- answers


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": error.detail}, error.status_code, error.headers)


async def _failed(request: Request, error: Exception) -> Response:
    """Tell of what the network could not do."""
    assert isinstance(error, VisionForgeError)
    return JSONResponse({"error": "; ".join(error.problems)}, 500)


async def _unexpected(request: Request, error: Exception) -> Response:
    return JSONResponse({"error": "something went wrong here; whoever runs this finds it in the log"}, 500)
