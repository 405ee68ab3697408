"""Several processes on one study: started, watched, replaced when they die, and ended together."""

import datetime
import logging
import time
from collections.abc import Callable, Sequence
from typing import Any

from optuna.study import Study
from optuna.trial import FrozenTrial

from visionforge.config.schema import RunSettings
from visionforge.engine.worker_processes import EXIT_MISTAKE, Process, end_workers, start_worker
from visionforge.runs.config_hash import processes_of
from visionforge.runs.signals import Interrupted, Interruption
from visionforge.tuning.samplers import grid_sampler
from visionforge.tuning.search import GRID_EXHAUSTED, reason_to_stop
from visionforge.tuning.space import Space
from visionforge.tuning.trials import finished, recover, without_owner

log = logging.getLogger(__name__)

POLL_S = 0.5
Reason = Callable[[Sequence[FrozenTrial]], str | None]  # why no further trial is begun


def run_workers(
    study: Study,
    settings: RunSettings,
    space: Space,
    deadline: float | None,
    changed: Callable[[], None],
    tick: Callable[[], None],
    interruption: Interruption,
) -> str:
    """Run the search in several processes, and return why it has ended.

    Args:
        study: The study, which the workers open themselves.
        settings: The settings.
        space: The space.
        deadline: Time of `time.monotonic` after which no trial is begun.
        changed: Called when a trial has ended.
        tick: Called every now and then.
        interruption: Handles the signals.

    Raises:
        TrainingError: If too many trials have failed in a row.
        Interrupted: If a signal asked to end; the workers are asked as well.
    """
    grid = grid_sampler(space, settings.seed_everything) if settings.tune.sampler == "grid" else None
    begun = datetime.datetime.now()

    def reason(trials: Sequence[FrozenTrial]) -> str | None:
        if grid is not None and grid.is_exhausted(study):
            return GRID_EXHAUSTED
        return reason_to_stop(settings, list(trials), deadline, begun)

    return share(
        study,
        settings.tune.workers,
        lambda number: _start(number, settings, deadline),
        reason,
        settings.tune.max_failures,
        changed,
        tick,
        interruption,
    )


def share(
    study: Study,
    workers: int,
    start: Callable[[int], Process],
    reason_of: Reason,
    most_deaths: int,
    changed: Callable[[], None],
    tick: Callable[[], None],
    interruption: Interruption,
) -> str:
    """Let several processes share the trials of a study, and return why they have ended.

    Args:
        study: The study, which the workers open themselves.
        workers: How many there are.
        start: Starts one, by its number from 0.
        reason_of: Returns why no further trial is begun, or None.
        most_deaths: After so many workers that died, none is started again.
        changed: Called when a trial has ended.
        tick: Called every now and then.
        interruption: Handles the signals.

    Raises:
        Interrupted: If a signal asked to end; the workers are asked as well.
    """
    processes: dict[int, Process] = {}
    known = len(finished(study.get_trials(deepcopy=False)))
    died = 0
    try:
        for number in range(workers):
            processes[number] = start(number)
        while True:
            time.sleep(POLL_S)
            tick()
            trials = study.get_trials(deepcopy=False)
            if (now := len(finished(trials))) != known:
                known = now
                changed()
            reason = reason_of(trials)
            ended = {number: process for number, process in processes.items() if process.poll() is not None}
            for number, process in ended.items():
                del processes[number]
                died += process.returncode != 0  # also of those that refuse their settings, of which they tell
                if process.returncode not in (0, EXIT_MISTAKE):
                    log.warning("worker %d ended with status %d", number, process.returncode)
            recover(study)
            waiting = reason is None and len(processes) < workers
            if waiting and died < most_deaths:
                for number in sorted(set(range(workers)) - set(processes)):
                    processes[number] = start(number)
            if not processes and not without_owner(study):
                changed()
                final = reason_of(study.get_trials(deepcopy=False))
                if final is not None or died >= most_deaths:  # else the last one left something behind
                    return final or f"{died} workers died, so no more are started"
    except Interrupted as interrupted:
        log.warning("%s: the workers finish their steps", interrupted.name)
        raise
    finally:
        with interruption.deferred():
            end_workers(list(processes.values()))
            recover(study)


def _start(number: int, settings: RunSettings, deadline: float | None) -> Process:
    changed: dict[str, Any] = {"workers": 1}
    if deadline is not None:
        changed["timeout_minutes"] = max(1e-3, (deadline - time.monotonic()) / 60)
    own = settings.model_copy(update={"tune": settings.tune.model_copy(update=changed)})
    sent = own.model_dump_json(exclude_unset=True).encode()
    asked = settings.tune.workers, settings.trainer.accelerator, processes_of(settings.trainer.model_dump()) or 1
    return start_worker("visionforge.tuning.worker", sent, number, *asked)
