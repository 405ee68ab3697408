"""The work on one cell: an ordinary fit or probe, or one that is there already, and what is kept of it."""

import gc
import statistics
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from visionforge.benchmarking.costs import Meter
from visionforge.benchmarking.plan import STAGES, Cell, network_costs
from visionforge.config.schema import RunSettings
from visionforge.config.schema.tasks import task_named
from visionforge.data.registry import dataset_info
from visionforge.engine.fit import Request
from visionforge.engine.resume import parent_of
from visionforge.engine.run import Run
from visionforge.errors import TrainingError
from visionforge.runs.paths import portable
from visionforge.runs.signals import Interruption

if TYPE_CHECKING:
    from visionforge.training.classifier import ImageClassifier

ROUNDS, SECONDS, MOST_IMAGES = 5, 0.2, 256
Record = dict[str, Any]


def work_on(cell: Cell, name: str, meter: Meter, interruption: Interruption) -> Record:
    """Train and test a cell, or take the run that is there, and return what the leaderboard needs of it.

    Args:
        cell: The cell, which can work.
        name: Name of the benchmark.
        meter: Measures the training.
        interruption: Handles the signals.

    Raises:
        VisionForgeError: If the work fails in a known way.
        Interrupted: If a signal ended it.
    """
    assert cell.settings is not None
    request, making = Request(cell.settings, {}), STAGES[cell.stage]
    try:
        with meter:
            known = making.complete(request)
            run = known or making.make(request, interruption, _parent(cell.settings, name, cell))
        return record_of(run, cell.settings, meter.found if known is None else None)
    finally:
        gc.collect()  # its memory, before the next begins


def _parent(settings: RunSettings, name: str, cell: Cell) -> dict[str, Any]:
    return parent_of(settings) or {"study": name, "reason": "benchmark", "cell": cell.name}


def record_of(run: Run, settings: RunSettings, spent: Mapping[str, Any] | None) -> Record:
    """Return what is kept of a complete run.

    Args:
        run: The run.
        settings: Its settings.
        spent: What this process has spent on it; None if it was there before.

    Raises:
        TrainingError: If the run has no test metrics.
    """
    found, info = run.result, dataset_info(settings.data.dataset, settings.data.synthetic)
    if not found.metrics:
        raise TrainingError(f"{run.name}: has no test metrics")
    task = task_named(info.task)
    first = task.headlines[0] if task.headlines else next(iter(found.metrics))
    manifest = run.stored.manifest
    return {
        "run": run.name,
        "path": portable(str(run.path)),
        "hash": run.hash,
        "md5": manifest.data.get("md5"),
        "metrics": {name: float(value) for name, value in found.metrics.items() if isinstance(value, int | float)},
        "intervals": {name: list(ends) for name, ends in found.intervals.items()},
        "confidence": _confidence(found.content),
        "first": first,
        "images": found.content.get("images"),
        "partial": bool(found.content.get("partial")),
        "seconds": run.stored.seconds,
        # of a process that was killed nobody knows how long it worked
        "whole": all(session.ended is not None for session in manifest.sessions),
        "epochs": manifest.progress.get("epochs"),
        "spent": None if spent is None else dict(spent),
        **_network(run, settings),
    }


def _confidence(content: Mapping[str, Any]) -> float | None:
    intervals = content.get("intervals")
    found = intervals.get("confidence") if isinstance(intervals, Mapping) else None
    return float(found) if isinstance(found, int | float) else None


def _network(run: Run, settings: RunSettings) -> Record:
    """Return size and speed of the trained network; what cannot be told is None."""
    model = run.model
    spec = model.spec
    assert spec is not None
    parameters, multiply_adds = sum(each.numel() for each in model.parameters()), None
    if not (spec.kind.decodes or spec.kind.detects):
        backbone = settings.model.backbone
        sides = spec.network_resolution, spec.channels, spec.spatial_dims, len(spec.classes)
        kind = backbone.adapt_stem, backbone.volume_convolution
        if costs := network_costs(backbone.name, sides[0], sides[1], sides[2], sides[3], *kind):
            parameters, multiply_adds = costs
    return {"parameters": parameters, "multiply_adds": multiply_adds, **speed_of(model)}


def speed_of(model: "ImageClassifier") -> Record:
    """Return how many images per second a network predicts on the processor, as it predicts: with its views.

    Args:
        model: The network.
    """
    import numpy as np
    import torch

    from visionforge.exporting.speed import eager

    spec = model.spec
    assert spec is not None
    work = eager(model.cpu().eval())
    shape = (spec.channels, *(spec.resolution,) * spec.spatial_dims)
    pixels = np.random.default_rng(0).integers(0, 256, (MOST_IMAGES, *shape), dtype=np.uint8)
    work(pixels[:1])  # the first call allocates
    count = 1
    while True:  # as many at a time as take a noticeable time
        taken = _timed(work, pixels[:count])
        if taken >= SECONDS / 2 or count >= MOST_IMAGES:
            break
        count = min(MOST_IMAGES, 4 * count)
    rounds: Sequence[float] = [taken, *(_timed(work, pixels[:count]) for _ in range(ROUNDS - 1))]
    return {"images_per_second": count / statistics.median(rounds), "threads": torch.get_num_threads()}


def _timed(work: Any, pixels: Any) -> float:
    started = time.perf_counter()
    work(pixels)
    return max(time.perf_counter() - started, 1e-9)
