"""A bar for notebooks, where a terminal's does not belong: one line that is drawn anew, and stays when it is done."""

import time
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import ProgressBar

from visionforge.reporting.rendering import render

LEAST_SECONDS = 0.25  # between two drawings


class NotebookProgress(ProgressBar):
    """Shows epoch, step and the time that is left in one output of the cell; needs no widgets.

    What it has shown last is kept with the notebook.
    """

    def __init__(self) -> None:
        super().__init__()
        self._enabled = True
        self._handle: Any = None
        self._started = self._drawn = 0.0
        self._first = 0  # steps that were done before, of a run that goes on

    def enable(self) -> None:
        """Draw."""
        self._enabled = True

    def disable(self) -> None:
        """Draw nothing, as in all processes but the first."""
        self._enabled = False

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin."""
        self._begin()
        self._first = trainer.current_epoch * self._steps()

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Show how far the training is."""
        steps, epochs = self._steps(), max(0, trainer.max_epochs or 0)
        done = trainer.current_epoch * steps + batch_idx + 1
        total = epochs * steps if epochs > 0 else 0
        self._draw(f"epoch {trainer.current_epoch + 1}/{epochs or '?'}", done, total)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Leave how long it took."""
        self._end(f"trained, {trainer.current_epoch} epochs")

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Leave that it did not come to its end."""
        self._end(f"stopped in epoch {trainer.current_epoch + 1}" if trainer.training else "stopped", None)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin, unless it is one between two epochs."""
        if trainer.state.fn == "validate":
            self._begin()

    def on_validation_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Show how far the validation is."""
        if trainer.state.fn == "validate":
            self.has_dataloader_changed(dataloader_idx)
            self._evaluating("validation", batch_idx, self.total_val_batches_current_dataloader)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Leave how long it took."""
        if trainer.state.fn == "validate":
            self._end("validated")

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin."""
        self._begin()

    def on_test_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Show how far the test is."""
        self.has_dataloader_changed(dataloader_idx)
        self._evaluating("test", batch_idx, self.total_test_batches_current_dataloader)

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Leave how long it took."""
        self._end("tested")

    def _steps(self) -> int:
        steps = self.total_train_batches
        return int(steps) if steps != float("inf") else 0

    def _evaluating(self, name: str, batch: int, total: float) -> None:
        self._draw(name, batch + 1, int(total) if total != float("inf") else 0)

    # --- drawing

    def _begin(self) -> None:
        self._handle, self._first = None, 0
        self._started = self._drawn = time.monotonic()

    def _draw(self, what: str, done: int, total: int) -> None:
        now = time.monotonic()
        if not self._enabled or now - self._drawn < LEAST_SECONDS:
            return
        self._drawn = now
        gone, steps = now - self._started, done - self._first
        left = gone / steps * (total - done) if total and steps > 0 else None
        self._show(what=what, share=done / total if total else None, text="" if left is None else f"{left:.0f} s left")

    def _end(self, what: str, share: float | None = 1.0) -> None:
        if self._handle is not None:
            self._show(what=what, share=share, text=f"{time.monotonic() - self._started:.1f} s")

    def _show(self, **shown: Any) -> None:
        from IPython.display import HTML, display  # a notebook has it

        page = HTML(render("notebook_progress.html.j2", **shown))
        if self._handle is None:
            self._handle = display(page, display_id=True)
        else:
            self._handle.update(page)
