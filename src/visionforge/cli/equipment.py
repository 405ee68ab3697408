"""What surrounds a training: callbacks, device, fellow processes, and the facts on them for the manifest."""

import signal
import socket
from collections.abc import Callable
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint

from visionforge.config.problems import nearest
from visionforge.config.schema import DataSettings, RunSettings
from visionforge.data.info import DatasetInfo
from visionforge.data.source import EMBEDDED, fingerprint
from visionforge.errors import DataError, SettingsError
from visionforge.runs.active import ActiveRun
from visionforge.runs.anchors import cache_folder
from visionforge.runs.facts import environment_variables
from visionforge.runs.locks import Lock
from visionforge.runs.signals import Interrupted, Interruption
from visionforge.runs.workspace import Workspace
from visionforge.training.callbacks import SpaceCheck
from visionforge.training.checkpoints import BestCheckpoint, LastCheckpoint, WholeFiles
from visionforge.training.epoch_log import EpochLog
from visionforge.training.monitor import Monitor
from visionforge.training.switches import device_name, devices_in_use, switches_in_force

TRAINER_DEFAULTS = {
    "max_epochs": 60,
    "accelerator": "auto",
    "devices": "auto",
    "precision": "32-true",
    "deterministic": False,
    "enable_model_summary": False,  # one line in the log says as much
    "log_every_n_steps": 1,  # epochs of small data sets are shorter than Lightning's default of 50 steps
    "num_sanity_val_steps": 0,  # the archive is verified; metrics of two batches would only mislead
}
_SHARDED = ("fsdp", "deepspeed", "modelparallel", "model_parallel")


def as_list(value: Any) -> list[Any]:
    """Return what a Trainer flag takes as one thing, several or none, as a list."""
    if value is None or isinstance(value, bool):
        return []
    return list(value) if isinstance(value, list | tuple) else [value]


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


def check_callbacks(callbacks: list[Any]) -> None:
    """Refuse callbacks that do not go with a run, before anything is trained.

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
        if own and isinstance(watched, str) and watched not in allowed:
            close = nearest(watched, allowed) or allowed
            problems.append(
                f"trainer.callbacks: {name} goes by {watched!r}, which is not logged; nearest: {', '.join(close)}"
            )
    if problems:
        raise SettingsError(problems)


def fit_callbacks(
    workspace: Workspace,
    settings: RunSettings,
    interruption: Interruption,
    rows: EpochLog,
    monitor: Monitor,
    saved: Callable[[int, int], None],
) -> list[Callback]:
    """Return the callbacks of every fit: a look at the disk, and the best and the last checkpoint."""
    folder = workspace.checkpoints
    best = BestCheckpoint(
        folder,
        filename="best",
        monitor=monitor.name,
        mode=monitor.mode,
        save_weights_only=True,
        enable_version_counter=False,
    )
    last = LastCheckpoint(folder, settings.checkpoint_minutes, interruption, rows, saved)
    return [SpaceCheck(workspace.path), best, last]


def hold_device(device: torch.device, rank: int, wait_s: float) -> Lock | None:
    """Wait for a device that no other run may use at the same time; the processes of one run share the CPU.

    Raises:
        LockedError: If it is not free in time.
    """
    if device.type == "cpu" and rank != 0:
        return None
    folder = cache_folder() / "devices"
    folder.mkdir(parents=True, exist_ok=True)
    name = device_name(device)
    lock = Lock(folder / f"{socket.gethostname()}-{name}.lock", f"exclusive_device: {name}")
    lock.acquire(wait_s)
    return lock


def describe_data(active: ActiveRun, info: DatasetInfo, settings: DataSettings) -> None:
    """Write into the manifest what is read; a resumed run has to read the same.

    Raises:
        DataError: If the data is not what the run was begun with.
    """
    found = {
        "dataset": info.name,
        "resolution": settings.resolution,
        "archive": None if info.source in EMBEDDED else info.archive_name(settings.resolution),
        "md5": fingerprint(info, settings.resolution, settings.root),
        "images": info.splits.model_dump(),
    }
    before = active.manifest.data
    if before and before != found:
        raise DataError(
            f"data.root: {found['archive']} has MD5 {found['md5']}, the run was begun with {before.get('md5')}; "
            "name the folder of that archive, or begin a new run"
        )
    active.update(data=found)


def describe_session(active: ActiveRun, trainer: pl.Trainer, checkpoint: str | None) -> None:
    """Write into the manifest which device and which switches are in force, and what the training goes on from."""
    session = active.manifest.sessions[-1]
    active.update_session(
        hardware={**session.hardware, **devices_in_use(trainer)},
        switches=switches_in_force(),
        environment=environment_variables(),
        checkpoint=checkpoint,
    )


def leave_process_group() -> None:
    """Let all ranks wait for the first, which writes the results, and end their communication in order.

    A rank that ends before is taken for a crash by its launcher, which then kills the others.
    """
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()


def leave_or_end(trainer: pl.Trainer, error: Interrupted) -> None:
    """Part from the other ranks: in order if all of them stopped after the same step, otherwise by ending them."""
    if error.together:
        leave_process_group()
    elif trainer.strategy.launcher is not None:
        trainer.strategy.launcher.kill(signal.SIGKILL)
