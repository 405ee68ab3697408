"""Several processes on one study: started, watched, replaced when they die, and ended together."""

import contextlib
import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from optuna.study import Study

from visionforge.config.schema import RunSettings
from visionforge.runs.signals import Interrupted, Interruption
from visionforge.tuning.search import reason_to_stop
from visionforge.tuning.trials import finished, recover, without_owner

log = logging.getLogger(__name__)

POLL_S = 0.5
END_WAIT_S = 90.0  # a worker finishes its step and its checkpoint
EXIT_MISTAKE = 2


def run_workers(
    study: Study,
    settings: RunSettings,
    deadline: float | None,
    changed: Callable[[], None],
    tick: Callable[[], None],
    interruption: Interruption,
) -> str:
    """Run the search in several processes, and return why it has ended.

    Args:
        study: The study, which the workers open themselves.
        settings: The settings.
        deadline: Time of `time.monotonic` after which no trial is begun.
        changed: Called when a trial has ended.
        tick: Called every now and then.
        interruption: Handles the signals.

    Raises:
        TrainingError: If too many trials have failed in a row.
        Interrupted: If a signal asked to end; the workers are asked as well.
    """
    processes: dict[int, subprocess.Popen[bytes]] = {}
    known = len(finished(study.get_trials(deepcopy=False)))
    died = 0
    try:
        for number in range(settings.tune.workers):
            processes[number] = _start(number, settings, deadline)
        while True:
            time.sleep(POLL_S)
            tick()
            trials = study.get_trials(deepcopy=False)
            if (now := len(finished(trials))) != known:
                known = now
                changed()
            reason = reason_to_stop(settings, trials, deadline)
            ended = {number: process for number, process in processes.items() if process.poll() is not None}
            for number, process in ended.items():
                del processes[number]
                if process.returncode not in (0, EXIT_MISTAKE):
                    died += 1
                    log.warning("worker %d ended with status %d", number, process.returncode)
            recover(study)
            waiting = reason is None and len(processes) < settings.tune.workers
            if waiting and died < settings.tune.max_failures:
                for number in sorted(set(range(settings.tune.workers)) - set(processes)):
                    processes[number] = _start(number, settings, deadline)
            if not processes and not without_owner(study):
                changed()
                final = reason_to_stop(settings, study.get_trials(deepcopy=False), deadline)
                return final or f"{died} workers died, so the search stops"
    except Interrupted as interrupted:
        log.warning("%s: the workers finish their steps", interrupted.name)
        raise
    finally:
        with interruption.deferred():
            _end(list(processes.values()))
            recover(study)


def _start(number: int, settings: RunSettings, deadline: float | None) -> "subprocess.Popen[bytes]":
    """Start one worker: it has its share of the processor, and its own device where there are several."""
    environment = dict(os.environ)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    environment.setdefault("OMP_NUM_THREADS", str(max(1, cores // settings.tune.workers)))
    devices = torch.cuda.device_count()
    if devices > 1 and settings.trainer.accelerator in ("auto", "gpu", "cuda"):
        seen = os.environ.get("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(devices)))).split(",")
        environment["CUDA_VISIBLE_DEVICES"] = seen[number % len(seen)]
    changed: dict[str, Any] = {"workers": 1}
    if deadline is not None:
        changed["timeout_minutes"] = max(1e-3, (deadline - time.monotonic()) / 60)
    own = settings.model_copy(update={"tune": settings.tune.model_copy(update=changed)})
    process = subprocess.Popen(
        [sys.executable, "-m", "visionforge.tuning.worker"],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError), process.stdin as pipe:  # it has died, which is seen in a moment
        pipe.write(own.model_dump_json(exclude_unset=True).encode())
    return process


def _end(processes: "list[subprocess.Popen[bytes]]") -> None:
    """Ask the workers to end, wait, and kill those that are left."""
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
