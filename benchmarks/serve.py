"""Requests per second of `visionforge serve`, with and without batches, and how long a request takes.

    python -m benchmarks.serve [--rounds 5] [--requests 600] [--clients 1 16] [--models mini_cnn resnet18]

Each client sends one PNG of noise after the other over a connection that stays open; the services, which read ONNX
models with random weights in processes of their own, take turns. The clients share the machine with them.
"""

import argparse
import asyncio
import contextlib
import io
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.timing import ratio, summary

PIXELS = 28
SIDES = {"batches of up to 32": (), "one picture a pass": ("--batch_size", "1")}


def write_model(name: str, path: Path) -> None:
    """Write an ONNX model with random weights."""
    from visionforge import ImageClassifier, TaskSpec
    from visionforge.exporting.formats import write_onnx
    from visionforge.inference.contract import contract_of
    from visionforge.inference.exported import ExportedClassifier

    spec = TaskSpec(classes=8, channels=3, resolution=PIXELS)
    model = ImageClassifier({"name": name, "pretrained": False}, tta="off", spec=spec)
    model.configure_model()
    contract = contract_of(model.eval(), "uint8", None, None, None)
    write_onnx(ExportedClassifier(model, contract), contract, path, 18)


@contextlib.contextmanager
def serving(model: Path, *flags: str) -> Iterator[int]:
    """Start a service, and yield its port."""
    command = [sys.executable, "-m", "visionforge", "serve", str(model), "--port", "0", *flags]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        found = re.search(r"http://127\.0\.0\.1:(\d+)", process.stdout.readline())
        assert found is not None
        try:
            yield int(found[1])
        finally:
            process.terminate()


def request_of(seed: int) -> bytes:
    """Return a request with a picture of noise, as it goes over the wire."""
    buffer = io.BytesIO()
    noise = np.random.default_rng(seed).integers(0, 256, (PIXELS, PIXELS, 3), dtype=np.uint8)
    Image.fromarray(noise).save(buffer, "PNG")
    head = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n'
    body = head + buffer.getvalue() + b"\r\n--x--\r\n"
    lines = ("POST /predict HTTP/1.1", "Host: localhost", "Content-Type: multipart/form-data; boundary=x")
    return "\r\n".join([*lines, f"Content-Length: {len(body)}", "", ""]).encode() + body


async def _client(port: int, requests: list[bytes]) -> list[float]:
    """Send requests one after the other; return the seconds of each."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    taken = []
    for request in requests:
        started = time.perf_counter()
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200"), head
        found = re.search(rb"content-length: (\d+)", head)
        assert found is not None
        await reader.readexactly(int(found[1]))
        taken.append(time.perf_counter() - started)
    writer.close()
    return taken


async def _load(port: int, clients: int, requests: list[bytes]) -> tuple[float, list[float]]:
    """Return requests per second, and the milliseconds of each request."""
    started = time.perf_counter()
    parts = await asyncio.gather(*(_client(port, requests[number::clients]) for number in range(clients)))
    rate = len(requests) / (time.perf_counter() - started)
    return rate, [1000 * each for part in parts for each in part]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--requests", type=int, default=600)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--models", nargs="+", default=["mini_cnn", "resnet18"])
    options = parser.parse_args()
    requests = [request_of(seed) for seed in range(options.requests)]
    print("| network | clients | service | requests/s: median (range) | p50, p95 in ms | batches are faster by |")
    print("|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        for name in options.models:
            model = Path(folder) / f"{name}.onnx"
            write_model(name, model)
            ports = {side: stack.enter_context(serving(model, *flags)) for side, flags in SIDES.items()}
            for clients in options.clients:
                rates: dict[str, list[float]] = {side: [] for side in SIDES}
                times: dict[str, list[float]] = {side: [] for side in SIDES}
                for turn in range(options.rounds + 1):
                    for side, port in ports.items():
                        rate, taken = asyncio.run(_load(port, clients, requests))
                        if turn:  # the first one warms up
                            rates[side].append(rate)
                            times[side] += taken
                mine = rates["batches of up to 32"]
                for side, values in rates.items():
                    faster = "" if values is mine else ratio(mine, values)
                    p50, p95 = (statistics.quantiles(times[side], n=100)[place] for place in (49, 94))
                    row = (name, clients, side, summary(values), f"{p50:.1f}, {p95:.1f}", faster)
                    print(f"| {' | '.join(map(str, row))} |", flush=True)


if __name__ == "__main__":
    main()
