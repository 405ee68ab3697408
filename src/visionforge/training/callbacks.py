"""A look at the disk before the training."""

from pathlib import Path

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback

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
        """Compare the free space with what the checkpoints need: best, last and the one before, and each written anew.

        Raises:
            RunError: If there is too little.
        """
        if trainer.is_global_zero:
            weights = sum(p.numel() * p.element_size() for p in [*pl_module.parameters(), *pl_module.buffers()])
            best, last = weights, 2 * weights  # the last one holds the momentum too
            require_space(self._folder, 2 * best + 3 * last + RESULT_BYTES)
