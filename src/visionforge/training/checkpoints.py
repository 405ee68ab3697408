"""Checkpoints that are whole or absent: written beside, read back, renamed, and the one before kept."""

import errno
import logging
import os
import signal
import time
import zipfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint
from torch import Tensor

from visionforge.errors import RunError
from visionforge.runs.files import replacing
from visionforge.runs.signals import Interruption
from visionforge.training.calibration import Calibration
from visionforge.training.epoch_log import EpochLog
from visionforge.training.outliers import Outliers

log = logging.getLogger(__name__)

ASK_S = 0.25  # how often processes that train together ask each other whether to save or to end
MOST_UNASKED = 1000  # steps
BEST, LAST, PREVIOUS = "best.ckpt", "last.ckpt", "last-previous.ckpt"


class WholeFiles(TorchCheckpointIO):
    """Writes a checkpoint beside its place, verifies what is on the disk, and puts it there in one step.

    The `last.ckpt` that it replaces stays as `last-previous.ckpt`.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        """Write a checkpoint.

        Raises:
            OSError: If the disk is full, or does not give back what was written.
        """
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as (file, temporary):
            try:
                torch.save(checkpoint, file)
                file.flush()
            except RuntimeError as error:  # torch's writer hides what the operating system said
                raise OSError(errno.ENOSPC, "the checkpoint cannot be written, the disk is full", str(path)) from error
            if damage := damage_of(temporary):
                raise OSError(errno.EIO, f"the disk does not give back what was written ({damage})", str(path))
            if path.name == LAST and path.exists():
                _keep(path, path.with_name(PREVIOUS))


def best_checkpoint(trainer: pl.Trainer) -> Path | None:
    """Return the best checkpoint of a training, of the first `ModelCheckpoint` that has kept one."""
    for callback in trainer.checkpoint_callbacks:
        if isinstance(callback, ModelCheckpoint) and callback.best_model_path:
            return Path(callback.best_model_path)
    return None


def keep_calibration(
    path: Path, calibration: Calibration, thresholds: Tensor | None = None, outliers: Outliers | None = None
) -> None:
    """Write into a checkpoint what the validation split says about its probabilities.

    Args:
        path: The checkpoint.
        calibration: The temperatures, and the sets of classes.
        thresholds: (L,) of labels, for single images; None leaves those that are there.
        outliers: What says how far out images are; None says nothing.
    """
    checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    checkpoint["calibration"] = asdict(calibration)
    checkpoint["outliers"] = None if outliers is None else outliers.stored()
    if thresholds is not None:
        checkpoint["thresholds"] = thresholds.tolist()
    WholeFiles().save_checkpoint(checkpoint, path)


def _keep(path: Path, previous: Path) -> None:
    """Give a file a second name, so that neither name is ever without a whole file."""
    spare = previous.with_name(f".{previous.name}.{os.getpid()}.tmp")
    spare.unlink(missing_ok=True)
    try:
        spare.hardlink_to(path)
    except OSError:  # a file system without hard links: for a moment only the previous name is there
        path.replace(previous)
    else:
        spare.replace(previous)
        spare.unlink(missing_ok=True)  # renaming does nothing where both names were the same file already


def damage_of(path: Path) -> str | None:
    """Return what is wrong with a checkpoint file, or None: every byte is compared with the checksums inside it."""
    try:
        with zipfile.ZipFile(path) as archive:
            bad = archive.testzip()
        return None if bad is None else f"{bad} does not have its checksum"
    except (OSError, zipfile.BadZipFile, EOFError, NotImplementedError, ValueError) as error:
        return str(error) or type(error).__name__


def checkpoint_to_resume(folder: Path) -> Path | None:
    """Return the newest whole checkpoint to continue from, or None if there is none yet.

    Raises:
        RunError: If there are checkpoints, but none is whole.
    """
    present = [path for path in (folder / LAST, folder / PREVIOUS) if path.exists()]
    damaged: list[str] = []
    for path in present:
        damage = damage_of(path)
        if damage is None:
            if damaged:
                log.warning("%s is damaged, so the run continues from the one before, %s", damaged[-1], path.name)
            return path
        damaged.append(f"{path} ({damage})")
    if damaged:
        raise RunError(
            f"{' and '.join(damaged)}: damaged, so there is nothing to continue from; begin anew with --resume never"
        )
    return None


class BestCheckpoint(ModelCheckpoint):
    """Keeps the epoch with the best monitored value; of equal ones the later, which a falling learning rate favours."""

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Prepare; Lightning's warning that the folder is not empty is wrong for a run that continues in it."""
        kept, self.save_top_k = self.save_top_k, 0
        super().setup(trainer, pl_module, stage)
        self.save_top_k = kept

    def check_monitor_top_k(self, trainer: pl.Trainer, current: Tensor | None = None) -> bool:
        """Return whether the current value is as good as the best one so far.

        An undefined value (NaN) is worse than every other; as long as there is no other, the latest epoch is kept.
        """
        best = self.best_model_score
        if current is not None and bool(current.isnan()):
            return best is None or not bool(best.isfinite())  # of an undefined value, Lightning keeps an infinite one
        if super().check_monitor_top_k(trainer, current):
            return True
        return current is not None and best is not None and bool(current == best)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the best value so far, also in a run folder that was moved."""
        folder = str(self.dirpath)
        if not (Path(folder) / BEST).is_file():  # a training that begins from another run's checkpoint has its own best
            return
        best = os.path.join(folder, BEST) if state_dict["best_model_path"] else ""  # noqa: PTH118  # as Lightning does
        scores = dict.fromkeys([best] if best else [], state_dict["best_model_score"])
        moved = {"dirpath": self.dirpath, "best_model_path": best, "kth_best_model_path": best, "best_k_models": scores}
        super().load_state_dict({**state_dict, **moved})


class LastCheckpoint(Checkpoint):
    """Saves everything that is needed to continue: after every epoch, every N minutes, and when a signal asks to end.

    It also writes the epoch's row of `metrics.csv` before the epoch's checkpoint, so that no row is lost between them.

    Args:
        folder: Folder of the checkpoints.
        minutes: Time between two checkpoints within an epoch.
        interruption: Where a signal is remembered; None for a process that handles none.
        rows: The table of epochs.
        saved: Called after every checkpoint with the number of finished epochs and of optimiser steps.

    Within an epoch nothing is saved if the data loader cannot go on in the middle of one (it has no `state_dict`): the
    epoch is then trained anew, which gives the same result, and its first batches are not trained on twice.
    """

    def __init__(
        self,
        folder: Path,
        minutes: float,
        interruption: Interruption | None = None,
        rows: EpochLog | None = None,
        saved: Callable[[int, int], None] | None = None,
    ) -> None:
        self.path = folder / LAST
        self._seconds = minutes * 60.0
        self._interruption = interruption
        self._rows = rows
        self._saved = saved
        self._written = self._asked = time.monotonic()
        self._unasked, self._every = 0, 1  # steps since processes have asked each other, and until they do

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take the signals back from Lightning, which would act in the middle of a step; begin to count the minutes."""
        if self._interruption is not None:
            self._interruption.install(*_requeue_signals(trainer))
        self._written = self._asked = time.monotonic()
        self._unasked, self._every = 0, 1

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save within an epoch if it is time; end here if a signal asks to.

        Raises:
            Interrupted: If a signal asked to end.
        """
        if trainer.is_last_batch:  # the end of the epoch, with its validation, is next
            return
        if (batch_idx + 1) % trainer.accumulate_grad_batches:  # no checkpoint holds the gradient of half a group
            return
        resumable = hasattr(trainer.train_dataloader, "state_dict")
        due = resumable and time.monotonic() - self._written >= self._seconds
        if not self._agreed(trainer, due or self._is_asked):
            return
        asked = _any(trainer, self._is_asked)
        if resumable:
            self._save(trainer, trainer.current_epoch)
        if asked:
            self._end()

    def _agreed(self, trainer: pl.Trainer, decision: bool) -> bool:
        """Return whether any process decides so, which they ask each other a few times a second, at the same steps.

        A question at every step would let all of them wait for the slowest, and for their devices.
        """
        if trainer.world_size == 1:
            return decision
        self._unasked += 1
        if self._unasked < self._every:
            return False
        now = time.monotonic()
        wanted = ASK_S * self._unasked / max(now - self._asked, 1e-6)  # steps between two questions, by this process
        said = torch.tensor([float(decision), wanted], device=trainer.strategy.root_device)
        decided, steps = trainer.strategy.reduce(said, reduce_op="max").tolist()
        self._every = max(1, min(int(steps), 2 * self._every, MOST_UNASKED))
        self._unasked, self._asked = 0, now
        return bool(decided)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save after an epoch; end here if a signal asks to.

        Raises:
            Interrupted: If a signal asked to end.
        """
        if self._rows is not None:
            self._rows.finish(trainer.current_epoch, _logged(trainer, pl_module))
        self._save(trainer, trainer.current_epoch + 1)
        if _any(trainer, self._is_asked):
            self._end()

    @property
    def _is_asked(self) -> bool:
        """Whether this process was asked to end."""
        return self._interruption is not None and self._interruption.requested is not None

    def _save(self, trainer: pl.Trainer, epochs: int) -> None:
        trainer.save_checkpoint(self.path, weights_only=False)  # with everything that is needed to continue
        self._written = time.monotonic()
        if self._saved is not None and trainer.is_global_zero:
            self._saved(epochs, trainer.global_step)

    def _end(self) -> None:
        assert self._interruption is not None
        self._interruption.requested = self._interruption.requested or signal.SIGTERM  # another process was asked
        self._interruption.check(together=True)


def _logged(trainer: pl.Trainer, module: pl.LightningModule) -> dict[str, float]:
    """Return what the training of this epoch has logged; the Trainer keeps what earlier epochs have, too."""
    names = getattr(module, "logged_names", None)
    if names is not None:
        return {name: float(trainer.callback_metrics[name]) for name in names}
    found = trainer.fit_loop._results.metrics(on_step=False)["log"]
    return {name: float(value) for name, value in found.items()}


def _any(trainer: pl.Trainer, decision: bool) -> bool:
    """Return whether any process of the training decides so; all of them get the same answer."""
    return trainer.strategy.reduce_boolean_decision(decision, all=False) if trainer.world_size > 1 else decision


def _requeue_signals(trainer: pl.Trainer) -> tuple[int, ...]:
    """Return the signal by which a SLURM plugin of the Trainer expects to be told of the job's end."""
    environment = slurm_environment(trainer)
    chosen = None if environment is None else environment.requeue_signal
    return () if chosen is None else (int(chosen),)


def slurm_environment(trainer: pl.Trainer) -> SLURMEnvironment | None:
    """Return the Trainer's SLURM plugin, if it has one."""
    environment = trainer._accelerator_connector.cluster_environment
    return environment if isinstance(environment, SLURMEnvironment) else None
