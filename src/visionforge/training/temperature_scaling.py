"""The calibration of a training by anyone's Trainer, as a callback."""

import logging
import pickle
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.trainer.states import RunningStage

from visionforge.errors import RunError, SettingsError
from visionforge.models.tensor_files import load_tensors
from visionforge.training.checkpoints import best_checkpoint, keep_calibration
from visionforge.training.classifier import ImageClassifier

log = logging.getLogger(__name__)


class TemperatureScaling(Callback):
    """Calibrates an `ImageClassifier` on the validation batches when a training ends, as `visionforge.fit` does.

    One temperature (Guo et al., 2017, arXiv:1706.04599) divides the logits of single images, another one those of the
    average over the test-time views; labels that do not exclude each other get the thresholds that maximise their F1.

    The module takes the weights of the best epoch, that of the Trainer's `ModelCheckpoint` or `RunFolder`, and is
    calibrated with them; the best checkpoint keeps what was found, and so does the module. Without such a checkpoint
    the weights at the end of the training are calibrated.

    Args:
        load_best: False keeps the weights at the end of the training, and calibrates those; checkpoints that were
            written before are then left alone.

    Raises:
        SettingsError: When the training begins, if the module is no `ImageClassifier`.
        RunError: When it ends, if the best checkpoint cannot be read.

    >>> import lightning.pytorch as pl, visionforge as vf
    >>> trainer = pl.Trainer(max_epochs=3, callbacks=[vf.TemperatureScaling()], logger=False)
    """

    def __init__(self, load_best: bool = True) -> None:
        self._load_best = load_best

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Look at the module."""
        if not isinstance(pl_module, ImageClassifier):
            raise SettingsError(
                f"TemperatureScaling: calibrates an ImageClassifier, not {type(pl_module).__name__}; SplitReport fits "
                "a temperature for any module"
            )

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take the best weights, look at the validation batches, and keep what they say."""
        assert isinstance(pl_module, ImageClassifier)
        if not _loaders(trainer):
            log.warning("there are no validation batches, so the probabilities are not calibrated")
            return
        checkpoint = best_checkpoint(trainer) if self._load_best else None
        if checkpoint is not None:
            pl_module.load_state_dict(_state_of(checkpoint))
        device, stage = pl_module.device, trainer.state.stage
        trainer.state.stage = RunningStage.VALIDATING  # a data module may augment where the Trainer trains
        try:
            pl_module.to(trainer.strategy.root_device)  # the Trainer has put the module aside already
            with trainer.precision_plugin.forward_context():
                found = pl_module.calibrate(_batches(trainer))
        finally:
            trainer.state.stage = stage
            pl_module.to(device)
        if checkpoint is not None and trainer.is_global_zero:
            keep_calibration(checkpoint, found, pl_module.thresholds, pl_module.outliers)
        trainer.strategy.barrier("TemperatureScaling")
        of = "the last weights" if checkpoint is None else checkpoint.name
        log.info("calibrated %s on %s validation images", of, f"{found.images:,}")


def _loaders(trainer: pl.Trainer) -> list[tuple[Any, int | None]]:
    """Return the validation loaders and how many batches the Trainer takes of each; None for all."""
    given: Any = trainer.val_dataloaders
    loaders = [] if given is None else list(given) if isinstance(given, list | tuple) else [given]
    limits: list[int | float] = list(trainer.num_val_batches)
    pairs = zip(loaders, limits, strict=False)
    return [(loader, None if limit == float("inf") else int(limit)) for loader, limit in pairs if limit]


def _batches(trainer: pl.Trainer) -> Iterator[Any]:
    """Yield the validation batches on the device, after the hooks of data module and module."""
    for index, (loader, limit) in enumerate(_loaders(trainer)):
        for batch in islice(loader, limit):
            converted = trainer.precision_plugin.convert_input(batch)
            yield trainer.strategy.batch_to_device(converted, trainer.strategy.root_device, index)


def _state_of(checkpoint: Path) -> dict[str, Any]:
    try:
        return dict(load_tensors(checkpoint)["state_dict"])
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, pickle.UnpicklingError) as error:
        reason = str(error).splitlines()[0][:160] if str(error) else type(error).__name__
        raise RunError(f"{checkpoint}: cannot be read as a checkpoint to calibrate ({reason})") from error
