"""Processes of this machine that work beside the first: each has its share of it."""

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence

from visionforge.config.environment import keep_freed_memory
from visionforge.config.imports import import_modules
from visionforge.config.schema import RunSettings
from visionforge.errors import VisionForgeError
from visionforge.runs.provenance import usable_cores
from visionforge.runs.signals import Interrupted, Interruption
from visionforge.streams import warn

END_WAIT_S = 90.0  # a worker finishes its step and its checkpoint

EXIT_MISTAKE = 2

Process = subprocess.Popen[bytes]


def threads_for(workers: int) -> int:
    """Return how many threads each of several processes should use."""
    return max(1, usable_cores() // workers)


def start_worker(module: str, sent: bytes, number: int, workers: int, accelerator: str, each: int = 1) -> Process:
    """Start a module of Python with its share of the processor, and devices of its own where there are several.

    Args:
        module: Its name.
        sent: What it finds on its standard input.
        number: Which of the workers it is, from 0.
        workers: How many there are.
        accelerator: What the settings ask for.
        each: How many devices a worker trains on.
    """
    import torch

    environment = dict(os.environ)
    environment.setdefault("OMP_NUM_THREADS", str(threads_for(workers * each)))
    devices = torch.cuda.device_count()
    if devices > 1 and accelerator in ("auto", "gpu", "cuda"):
        seen = os.environ.get("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(devices)))).split(",")
        own = [seen[(number * each + place) % len(seen)] for place in range(min(each, len(seen)))]
        environment["CUDA_VISIBLE_DEVICES"] = ",".join(own)
    process = subprocess.Popen(
        [sys.executable, "-m", module],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError), process.stdin as pipe:  # it has died, which is seen in a moment
        pipe.write(sent)
    return process


def serve(work: Callable[[RunSettings, Interruption], object]) -> int:
    """Work with the settings that the first process has sent; return the exit status.

    Args:
        work: What is done with them.
    """
    keep_freed_memory()
    values = json.load(sys.stdin.buffer)
    try:
        import_modules(values.get("imports", ()))  # before the settings, which may name what is registered there
        settings = RunSettings.model_validate(values)
        with Interruption() as interruption:
            work(settings, interruption)
    except VisionForgeError as error:
        for problem in error.problems:
            warn(f"error: {problem}")
        return EXIT_MISTAKE
    except Interrupted as interrupted:
        return interrupted.exit_status
    return 0


def end_workers(processes: Sequence[Process]) -> None:
    """Ask processes to end, wait, and kill those that are left."""
    for process in processes:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
    limit = time.monotonic() + END_WAIT_S
    for process in processes:
        try:
            process.wait(max(0.0, limit - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
