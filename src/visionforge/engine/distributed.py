"""The processes of one training: which is the first, what it tells the others, and how they part."""

import json
import os
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from visionforge.config.loading import SETTINGS
from visionforge.config.schema import RunSettings
from visionforge.errors import PeerEndedError, RunError, VisionForgeError
from visionforge.runs.config_hash import processes_of
from visionforge.runs.session import FOLDER
from visionforge.runs.signals import Interrupted

if TYPE_CHECKING:
    import lightning.pytorch as pl

_LONGEST = 100_000  # characters of a variable of the environment; Linux takes 131,072 bytes
LOST_S = 2.0  # until the end of a process is known whose connection has ended
CHECKPOINT = "VISIONFORGE_RUN_CHECKPOINT"  # environment variable: what the other ranks continue from


@contextmanager
def told_to_ranks(given: Mapping[str, Any], first: bool) -> Iterator[None]:
    """Let the ranks that this process starts have its settings: a pipe is read once, and a file may change meanwhile.

    Args:
        given: Nested settings as they were given; objects from Python are left to the script that the ranks run, too.
        first: This is the first process.
    """
    try:
        text = json.dumps(given) if first else None
    except TypeError:
        text = None
    if text is not None and len(text) < _LONGEST:
        os.environ[SETTINGS] = text
    try:
        yield
    finally:
        if first:
            os.environ.pop(SETTINGS, None)


def current_rank() -> int:
    """Return the number of this process; the first, 0, writes the files. Lightning reads it from the environment."""
    from lightning.pytorch.utilities import rank_zero_only

    return getattr(rank_zero_only, "rank", None) or 0


def inherited_checkpoint() -> Path | None:
    """Return what the first rank continues from, if it has started this process and continues something."""
    checkpoint = os.environ.get(CHECKPOINT)
    return Path(checkpoint) if checkpoint else None


def expected_processes(settings: RunSettings) -> int:
    """Return how many processes train, by the launcher's variables or else by the settings."""
    for name in ("WORLD_SIZE", "SLURM_NTASKS"):
        if os.environ.get(name, "").isdigit():
            return int(os.environ[name])
    return processes_of(settings.trainer.model_dump()) or 1


def inherited_folder() -> Path | None:
    """Return the run folder that the first rank has made, if it has started this process."""
    folder = os.environ.get(FOLDER)
    return Path(folder) if folder else None


def refuse_search_by_ranks(choice: str | None) -> None:
    """Ranks that were started from outside cannot agree on what to resume; they have to be told.

    Raises:
        RunError: If the choice is left to each of them.
    """
    if choice == "auto" and inherited_folder() is None:
        raise RunError("--resume: auto works for processes that visionforge starts itself; name the run folder")


def leave_process_group() -> None:
    """Let all ranks wait for the first, which writes the results, and end their communication in order.

    A rank that ends before is taken for a crash by its launcher, which then kills the others.
    """
    import torch

    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()


def lost_process(error: BaseException, trainer: "pl.Trainer | None", parent: int) -> BaseException:
    """Return what an error comes from: a process of a training that Lightning has started may have been killed.

    Args:
        error: What ended this process, such as a collective that nobody answered.
        trainer: The Trainer, if there is one.
        parent: The process that had started this one.
    """
    if trainer is None or trainer.world_size == 1 or not isinstance(error, RuntimeError):
        return error
    started = getattr(trainer.strategy.launcher, "procs", [])
    if isinstance(error, VisionForgeError) or (trainer.local_rank == 0 and not started):  # of another launcher
        return error
    until = time.monotonic() + LOST_S
    while time.monotonic() < until:
        if trainer.local_rank > 0:
            killed = [0] if os.getppid() != parent else []
        else:
            killed = [k for k, process in enumerate(started, 1) if (process.poll() or 0) < 0]
        if killed:
            tells = trainer.local_rank == (1 if killed[0] == 0 else 0)
            return PeerEndedError(f"process {killed[0]} of {trainer.world_size} was lost", 1, told=not tells)
        time.sleep(0.05)
    return error


def leave_or_end(trainer: "pl.Trainer", error: Interrupted) -> None:
    """Part from the other ranks: in order if all of them stopped after the same step, otherwise by ending them."""
    if error.together:
        leave_process_group()
    elif trainer.strategy.launcher is not None:
        trainer.strategy.launcher.kill(signal.SIGKILL)
