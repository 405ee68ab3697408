"""How fast an artifact is, beside the network in PyTorch: latency of one image, throughput of batches."""

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

from visionforge.inference.artifacts import prepared
from visionforge.inference.contract import Contract
from visionforge.inference.exported import ExportedClassifier
from visionforge.inference.predictions import Pixels
from visionforge.training.classifier import ImageClassifier

BATCHES = (1, 32, 256)
ROUNDS = 7
MOST_OUTPUTS = 1 << 26  # of a batch: 256 MiB
SECONDS = 0.3  # that each measurement takes at least
Work = Callable[[Pixels], Any]


def eager(model: ImageClassifier) -> Work:
    """Return the model itself as a function of pixels."""
    assert model.spec is not None
    predictor = model.spec.kind.predictor(model)
    return lambda pixels: predictor(torch.from_numpy(pixels))


def compiled(module: ExportedClassifier, contract: Contract) -> Work:
    """Return the network, compiled by `torch.compile`, as a function of pixels."""
    run = torch.compile(module, dynamic=True)

    def work(pixels: Pixels) -> Any:
        with torch.inference_mode():
            return run(torch.from_numpy(prepared(pixels, contract)))

    return work


def speed_table(alternatives: Mapping[str, Work], shape: tuple[int, ...], outputs: int = 1) -> list[dict[str, Any]]:
    """Return median and range of images per second, and of milliseconds per batch, of each alternative in turn.

    Args:
        alternatives: Name → a function of uint8 pixels (N, C, R, R).
        shape: (C, R, R), or (C, R, R, R) of volumes.
        outputs: Numbers that are given for one image; batches with too many of them are left out.
    """
    rows = []
    generator = np.random.default_rng(0)
    for batch in (each for each in BATCHES if each == 1 or each * outputs <= MOST_OUTPUTS):
        pixels = generator.integers(0, 256, (batch, *shape), dtype=np.uint8)
        repeats = {}
        for name, work in alternatives.items():
            work(pixels)  # the first call allocates, and compiles where there is something to compile
            started = time.perf_counter()
            work(pixels)
            repeats[name] = max(1, round(SECONDS / max(time.perf_counter() - started, 1e-6)))
        taken: dict[str, list[float]] = {name: [] for name in alternatives}
        for _ in range(ROUNDS):
            for name, work in alternatives.items():
                started = time.perf_counter()
                for _ in range(repeats[name]):
                    work(pixels)
                taken[name].append((time.perf_counter() - started) / repeats[name])
        for name, seconds in taken.items():
            rows.append(
                {
                    "runtime": name,
                    "batch": batch,
                    "milliseconds": [1000 * f(seconds) for f in (statistics.median, min, max)],
                    "images_per_second": [batch / f(seconds) for f in (statistics.median, max, min)],
                }
            )
    return rows
