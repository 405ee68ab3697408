"""Callbacks that every fit has: the choice of the best epoch, and a look at the disk before the first checkpoint."""

from pathlib import Path

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from torch import Tensor

from visionforge.runs.workspace import require_space

RESULT_BYTES = 20_000_000  # figures, tables and logs of a run, with a margin


class SpaceCheck(Callback):
    """Refuses to train when the checkpoints would not fit on the disk.

    Args:
        folder: The run folder.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Compare the free space with what two checkpoints need, each written beside the one that it replaces.

        Raises:
            RunError: If there is too little.
        """
        if trainer.is_global_zero:
            weights = sum(p.numel() * p.element_size() for p in [*pl_module.parameters(), *pl_module.buffers()])
            best, last = weights, 2 * weights  # the last one holds the momentum too
            require_space(self._folder, 2 * (best + last) + RESULT_BYTES)


class BestCheckpoint(ModelCheckpoint):
    """Keeps the epoch with the best monitored value; of equal ones the later, which a falling learning rate favours."""

    def check_monitor_top_k(self, trainer: pl.Trainer, current: Tensor | None = None) -> bool:
        """Return whether the current value is as good as the best one so far."""
        if super().check_monitor_top_k(trainer, current):
            return True
        return current is not None and self.best_model_score is not None and bool(current == self.best_model_score)
