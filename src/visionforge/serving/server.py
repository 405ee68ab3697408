"""A network at an address: `serve` answers until it is told to stop, `serving_app` is for one's own application."""

import ipaddress
import os
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from visionforge.distribution import how_to_install
from visionforge.errors import SettingsError
from visionforge.printable import printable
from visionforge.runs.signals import Interrupted, Interruption
from visionforge.runs.workspace import describe
from visionforge.serving.settings import (
    BATCH_SIZE,
    MAX_QUEUE,
    MAX_REQUEST_PIXELS,
    MAX_UPLOAD_MB,
    MAX_WAIT_MS,
    ServingSettings,
)

if TYPE_CHECKING:
    from starlette.applications import Starlette

    from visionforge.engine.run import Run

HOST, PORT = "127.0.0.1", 8000
MOST_CONNECTIONS = 1024  # beyond, uvicorn answers 503
BACKLOG = 1024  # connections that wait to be taken
GRACE_S = 30  # in which requests are answered after a signal
_OWN_NAMES = ("localhost", "127.0.0.1", "[::1]")


def serve(
    source: "str | Path | Run",
    *,
    host: str = HOST,
    port: int = PORT,
    allowed_hosts: Sequence[str] | None = None,
    batch_size: int = BATCH_SIZE,
    max_wait_ms: float = MAX_WAIT_MS,
    max_upload_mb: float = MAX_UPLOAD_MB,
    max_pixels: int = MAX_REQUEST_PIXELS,
    max_queue: int = MAX_QUEUE,
    tta: bool | None = None,
    accelerator: str = "auto",
    num_threads: int | None = None,
    ready: Callable[[str], None] = lambda address: None,
) -> None:
    """Answer requests with what a network says of their pictures, as `visionforge serve` does, until Ctrl-C or SIGTERM.

    Requests that are in work then are answered first, for half a minute at most.

    Args:
        source: A run (folder, name or object), a checkpoint file, or an exported `.onnx` or `.safetensors` file.
        host: Address to listen at; everybody who can reach it may ask.
        port: Its port; 0 is one that is free.
        allowed_hosts: Names by which browsers may ask for it; None is those of this machine at a loopback address, and
            any at others.
        batch_size: Pictures of a pass at most; of masks and boxes tiles of a picture.
        max_wait_ms: So long a batch waits for pictures that are on the way, in milliseconds.
        max_upload_mb: Bytes of a request, in millions.
        max_pixels: Pixels of a picture, and voxels of a NIfTI file.
        max_queue: Pictures in work or waiting; what is beyond is told to ask again.
        tta: Average over test-time views; None is as the network is set.
        accelerator: ``auto``, ``cpu``, ``gpu``, ``cuda`` or ``mps``.
        num_threads: CPU threads of the network; None leaves them to its runtime.
        ready: Told the address when it can be asked.

    Raises:
        SettingsError: If an argument is not allowed, the address cannot be taken, or a package is missing.
        RunError: If there is no such network.
        Interrupted: If a signal came and not everything could be answered.
    """
    _require_packages()
    settings = ServingSettings(batch_size, max_wait_ms, max_upload_mb, max_pixels, max_queue)
    with _listening(host, port) as listener, Interruption():
        if allowed_hosts is None and _is_loopback(listener):
            allowed_hosts = (*_OWN_NAMES, host.lower())
        app = _app(source, settings, allowed_hosts, tta, accelerator, num_threads)
        number = listener.getsockname()[1]
        shown = f"[{host}]" if ":" in host else host
        ready(f"http://{shown}:{number}")
        _run(app, listener)


def serving_app(
    source: "str | Path | Run",
    *,
    allowed_hosts: Sequence[str] | None = None,
    batch_size: int = BATCH_SIZE,
    max_wait_ms: float = MAX_WAIT_MS,
    max_upload_mb: float = MAX_UPLOAD_MB,
    max_pixels: int = MAX_REQUEST_PIXELS,
    max_queue: int = MAX_QUEUE,
    tta: bool | None = None,
    accelerator: str = "auto",
    num_threads: int | None = None,
) -> "Starlette":
    """Return the ASGI application that `serve` runs, to be mounted in one's own or run by one's own server.

    Args:
        source: A run (folder, name or object), a checkpoint file, or an exported `.onnx` or `.safetensors` file.
        allowed_hosts: Names by which browsers may ask for it; None leaves that to the application it is mounted in.
        batch_size: Pictures of a pass at most; of masks and boxes tiles of a picture.
        max_wait_ms: So long a batch waits for pictures that are on the way, in milliseconds.
        max_upload_mb: Bytes of a request, in millions.
        max_pixels: Pixels of a picture, and voxels of a NIfTI file.
        max_queue: Pictures in work or waiting; what is beyond is told to ask again.
        tta: Average over test-time views; None is as the network is set.
        accelerator: ``auto``, ``cpu``, ``gpu``, ``cuda`` or ``mps``.
        num_threads: CPU threads of the network; None leaves them to its runtime.

    Raises:
        SettingsError: If an argument is not allowed, or a package is missing.
        RunError: If there is no such network.
    """
    _require_packages()
    settings = ServingSettings(batch_size, max_wait_ms, max_upload_mb, max_pixels, max_queue)
    return _app(source, settings, allowed_hosts, tta, accelerator, num_threads)


def _require_packages() -> None:
    try:
        import prometheus_client  # noqa: F401
        import python_multipart  # noqa: F401
        import starlette  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise SettingsError(f"serve: needs {error.name}: {how_to_install('serve')}") from error


def _app(
    source: "str | Path | Run",
    settings: ServingSettings,
    allowed_hosts: Sequence[str] | None,
    tta: bool | None,
    accelerator: str,
    num_threads: int | None,
) -> "Starlette":
    for name in allowed_hosts or ():
        if "*" in name[1:] or (name.startswith("*") and name != "*" and name[1:2] != "."):
            raise SettingsError(
                f"allowed_hosts: {printable(name, 200)} is not allowed; allowed: names, *.NAME for all below one, or *"
            )
    from visionforge.serving.app import service_app
    from visionforge.serving.network import open_network

    network = open_network(
        source if isinstance(source, str | Path) else source.path,
        tta=tta,
        accelerator=accelerator,
        num_threads=num_threads,
        batch_size=settings.batch_size,
    )
    return service_app(network, settings, allowed_hosts=allowed_hosts, threads=num_threads)


# --- the address


def _listening(host: str, port: int) -> socket.socket:
    """Return a socket that listens, so that an address that is taken is told before a network is read.

    Raises:
        SettingsError: If the address cannot be taken.
    """
    if not 0 <= port <= 65_535:
        raise SettingsError(f"port: {port} is not allowed; allowed: 0 (one that is free) to 65535")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP, flags=socket.AI_PASSIVE
        )[0]
    except (OSError, UnicodeError) as error:
        raise SettingsError(f"host: {printable(host, 200)} is no address of this machine ({error})") from error
    listener = socket.socket(family, kind, protocol)  # named, or answers would wait for an acknowledgement (40 ms)
    try:
        if os.name == "posix":  # elsewhere it would let two services listen at one address
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise SettingsError(
            f"port: {port} of {printable(host, 200)} cannot be listened at ({describe(error)}); choose another, or 0"
        ) from error
    return listener


def _is_loopback(listener: socket.socket) -> bool:
    return ipaddress.ip_address(listener.getsockname()[0].partition("%")[0]).is_loopback


def _run(app: "Starlette", listener: socket.socket) -> None:
    """Answer until a signal comes; uvicorn sends it once more to whoever handled it before."""
    import uvicorn

    config = uvicorn.Config(
        app,
        log_config=None,
        log_level="error",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        ws="none",
        lifespan="on",
        timeout_graceful_shutdown=GRACE_S,
        backlog=BACKLOG,
        limit_concurrency=MOST_CONNECTIONS,
    )
    server = uvicorn.Server(config)
    try:
        server.run(sockets=[listener])
    except Interrupted:
        if app.state.service.cut_off:
            raise
