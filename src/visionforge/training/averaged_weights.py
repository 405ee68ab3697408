"""Averaged weights: Lightning's WeightAveraging, with batch-norm statistics that fit the averaged network."""

from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import WeightAveraging
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.swa_utils import AveragedModel, get_ema_avg_fn

CALIBRATION_IMAGES = 8192  # a mean of this many images is known to 1 % of a standard deviation


class AveragedWeights(WeightAveraging):
    """Averages every step exponentially, or the last steps of the epochs equally.

    As soon as there is an average, it is what is validated and what the checkpoints hold as `state_dict`; at the end of
    the training it replaces the current weights. Its batch-norm statistics are measured anew before each validation,
    because an average of statistics is not the statistics of an average.

    Args:
        start_epoch: First epoch (from 0) that is averaged.
        decay: Share of the old average in every step; None averages the last step of every epoch equally.
    """

    def __init__(self, start_epoch: int = 0, decay: float | None = None) -> None:
        # a mean of one copy per epoch has no avg_fn of its own: AveragedModel's default is the equal average
        extra: dict[str, Any] = {}
        if decay is not None:
            extra["avg_fn"] = get_ema_avg_fn(decay)  # type: ignore[no-untyped-call]
        super().__init__(use_buffers=False, **extra)
        self._start_epoch = start_epoch
        self._every_step = decay is not None
        self._epoch = 0
        self._last_of_epoch = False

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Copy the network, which is built for it if need be."""
        if stage == "fit":
            pl_module.configure_model()
            device = trainer.strategy.root_device
            self._average_model = AveragedModel(pl_module, device, use_buffers=self._use_buffers, **self._kwargs)

    @property
    def started(self) -> bool:
        """Return whether anything has been averaged yet."""
        return self._average_model is not None and int(self._average_model.n_averaged) > 0

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Average after an optimiser step."""
        self._last_of_epoch = trainer.is_last_batch
        self._epoch = trainer.current_epoch
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)

    def should_update(self, step_idx: int | None = None, epoch_idx: int | None = None) -> bool:
        """Return whether to average now: after a step, or only after the last one of an epoch."""
        if step_idx is None or self._epoch < self._start_epoch:
            return False
        return self._every_step or self._last_of_epoch

    def on_validation_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Put the average in place of the current weights, and fit its batch-norm statistics."""
        if self._evaluates_average(trainer):
            super().on_validation_epoch_start(trainer, pl_module)
            fit_batch_norm(trainer, pl_module)

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Put the current weights back."""
        if self._evaluates_average(trainer):
            super().on_validation_epoch_end(trainer, pl_module)

    def _evaluates_average(self, trainer: pl.Trainer) -> bool:
        return self.started and trainer.state.fn == TrainerFn.FITTING

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take the average over for good."""
        if self.started:
            super().on_train_end(trainer, pl_module)

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Store both states; before the first average there is only one."""
        if self.started:
            super().on_save_checkpoint(trainer, pl_module, checkpoint)

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Take both states up again."""
        if self._average_model is not None and "averaging_state" in checkpoint:
            super().on_load_checkpoint(trainer, pl_module, checkpoint)


def state_of_average(trainer: pl.Trainer) -> dict[str, Tensor] | None:
    """Return the state of the averaged module, ours or of a callback of Lightning's; None if there is no average."""
    callbacks: list[object] = trainer.callbacks  # type: ignore[attr-defined]
    averages = next((c for c in callbacks if isinstance(c, WeightAveraging)), None)
    model = None if averages is None else averages._average_model
    if model is None or int(model.n_averaged) == 0:
        return None
    return {name: value.clone() for name, value in model.module.state_dict().items()}


def fit_batch_norm(trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
    """Measure the batch-norm statistics of the current weights on augmented training images, a few thousand at most.

    The images are those of the data module's `calibration_batches`; with a data module without it, the statistics stay
    those of the training. So do those of frozen layers, and those that a fine-tuning keeps. The module is in evaluation
    mode, so nothing is dropped.
    """
    batches = getattr(trainer.datamodule, "calibration_batches", None)  # type: ignore[attr-defined]
    layers = [m for m in pl_module.modules() if isinstance(m, _BatchNorm) and _learns(m)]
    if batches is None or not layers or getattr(pl_module, "keeps_statistics", False):
        return
    momenta = {layer: layer.momentum for layer in layers}
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # the plain mean over the batches
        layer.train()
    for images in batches(CALIBRATION_IMAGES, pl_module.device):
        pl_module(images)
    for layer, momentum in momenta.items():
        layer.momentum = momentum
        layer.eval()


def _learns(layer: _BatchNorm) -> bool:
    return layer.track_running_stats and (layer.weight is None or layer.weight.requires_grad)
