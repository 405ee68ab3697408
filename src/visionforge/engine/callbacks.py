"""The callbacks of every training, and which of somebody else's go with a run."""

from collections.abc import Callable, Sequence
from typing import Any

from lightning.pytorch.callbacks import Callback, ModelCheckpoint

from visionforge.config.problems import nearest
from visionforge.errors import SettingsError
from visionforge.runs.signals import Interruption
from visionforge.runs.workspace import Workspace
from visionforge.training.callbacks import SpaceCheck
from visionforge.training.checkpoints import BestCheckpoint, LastCheckpoint, WholeFiles
from visionforge.training.epoch_log import EpochLog
from visionforge.training.monitor import Monitor

_SHARDED = ("fsdp", "deepspeed", "modelparallel", "model_parallel")


def checkpoint_plugins(strategy: Any) -> list[Any]:
    """Return what writes checkpoints whole; strategies that shard the network write theirs themselves."""
    name = strategy if isinstance(strategy, str) else type(strategy).__name__
    return [] if name.lower().startswith(_SHARDED) else [WholeFiles()]


LOGGED = ("train/loss", "train/accuracy", "train/accuracy_mixed", "val/loss", "val/accuracy", "val/auc", "lr")
_COUNTED = ("epoch", "step")  # by which a ModelCheckpoint can go, too: it counts them itself
_REFUSED = {  # callbacks of Lightning's that change settings behind the back of a run, which records them
    "BackboneFinetuning": "set model.finetuning",
    "BatchSizeFinder": "set data.batch_size",
    "LearningRateFinder": "set model.optimizer.learning_rate, or search it with `visionforge tune`",
    "GradientAccumulationScheduler": "set trainer.accumulate_grad_batches, by which the schedule is planned",
    "ModelPruning": "prune the network of a checkpoint afterwards",
}


def check_callbacks(callbacks: list[Any], metrics: Sequence[str] = ()) -> None:
    """Refuse callbacks that do not go with a run, before anything is trained.

    Args:
        callbacks: The callbacks.
        metrics: What can be logged of the validation split beside `LOGGED`.

    Raises:
        SettingsError: With a line for each.
    """
    problems = []
    own = all(type(callback).__module__.startswith("lightning.") for callback in callbacks)  # others may log anything
    for callback in callbacks:
        name, watched = type(callback).__name__, getattr(callback, "monitor", None)
        if name in _REFUSED:
            problems.append(
                f"trainer.callbacks: {name} does not go with a run, which records its settings; {_REFUSED[name]}"
            )
            continue
        allowed = (*LOGGED, *_COUNTED) if isinstance(callback, ModelCheckpoint) else LOGGED
        if own and isinstance(watched, str) and watched not in (*allowed, *metrics):
            close = nearest(watched, (*allowed, *metrics)) or allowed
            problems.append(
                f"trainer.callbacks: {name} goes by {watched!r}, which is not logged; nearest: {', '.join(close)}"
            )
    if problems:
        raise SettingsError(problems)


def fit_callbacks(
    workspace: Workspace,
    minutes: float,
    interruption: Interruption,
    rows: EpochLog,
    monitor: Monitor,
    saved: Callable[[int, int], None],
) -> list[Callback]:
    """Return the callbacks of every training: a look at the disk, and the best and the last checkpoint.

    Args:
        workspace: The run folder.
        minutes: Longest time between two checkpoints.
        interruption: Where a signal is remembered.
        rows: The table of epochs.
        monitor: What the epochs are compared by.
        saved: Called after every checkpoint with the number of finished epochs and of optimiser steps.
    """
    folder = workspace.checkpoints
    best = BestCheckpoint(
        folder,
        filename="best",
        monitor=monitor.name,
        mode=monitor.mode,
        save_weights_only=True,
        enable_version_counter=False,
    )
    last = LastCheckpoint(folder, minutes, interruption, rows, saved)
    return [SpaceCheck(workspace.path), best, last]
