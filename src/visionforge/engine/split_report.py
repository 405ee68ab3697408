"""The evaluation of anybody's LightningModule: metrics with intervals, calibration, predictions, figures, report."""

import logging
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Literal

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from visionforge.config.schema import EvaluationSettings
from visionforge.data.archive import SplitArrays
from visionforge.data.batches import ArrayDataset
from visionforge.data.info import Split, TaskSpec
from visionforge.engine.run_folder import RunFolder
from visionforge.errors import DataError, RunError, SettingsError
from visionforge.models.tensor_files import load_tensors
from visionforge.reporting.context import ReportContext
from visionforge.reporting.results import write_results
from visionforge.runs.manifest import read_manifest
from visionforge.runs.paths import shown
from visionforge.runs.query import load_run
from visionforge.runs.workspace import Workspace
from visionforge.training.calibration import Calibration, fit_calibration, negative_log_likelihood
from visionforge.training.checkpoints import best_checkpoint
from visionforge.training.epoch_log import read_epochs
from visionforge.training.predictions import Predictions

log = logging.getLogger(__name__)

Loader = Iterable[Any]


class SplitReport(Callback):
    """Evaluates the best epoch when the training ends, and writes the results into the run folder.

    The best epoch is that of the Trainer's `ModelCheckpoint`, for instance of `RunFolder`; without one, the network is
    evaluated as it is. The module keeps the weights that it has at the end of the training.

    Args:
        spec: What the labels mean; `TaskSpec.of_arrays` makes one from arrays.
        loader: Batches (images, labels) of the test split; None is the `test_dataloader` of data module or module.
        calibration: Batches of the validation split, on which a temperature is fitted; None is `val_dataloader`.
        folder: Where the results go; None is the folder of the Trainer's `RunFolder`.
        outputs: What the module's call gives for images: ``logits`` (N, K) or ``probabilities`` (N, K).
        settings: What is reported.

    Raises:
        SettingsError: If the task says nothing of whole images.

    >>> import numpy as np, visionforge as vf
    >>> images = np.random.default_rng(0).integers(0, 256, (20, 28, 28), dtype=np.uint8)
    >>> spec = vf.TaskSpec.of_arrays(images, np.arange(20) % 2, classes=("cat", "dog"))
    >>> report = vf.SplitReport(spec)
    """

    def __init__(
        self,
        spec: TaskSpec,
        loader: Loader | None = None,
        calibration: Loader | None = None,
        *,
        folder: str | Path | None = None,
        outputs: Literal["logits", "probabilities"] = "logits",
        settings: EvaluationSettings | None = None,
    ) -> None:
        if not spec.kind.calibrates:
            raise SettingsError(f"spec: SplitReport is for classes or labels of images; {spec.task} has none")
        self._spec = spec
        self._loader = loader
        self._calibration = calibration
        self._folder = None if folder is None else Path(folder)
        self._gives_logits = outputs == "logits"
        self._settings = settings or EvaluationSettings()
        self.content: dict[str, Any] | None = None

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Evaluate and write; in a training of several processes, the first does.

        Raises:
            RunError: If there is no folder to write into.
            DataError: If there are no test batches, or a batch is no pair of images and labels.
        """
        if not trainer.is_global_zero:
            return
        run = next((each.workspace for each in trainer.callbacks if isinstance(each, RunFolder)), None)  # type: ignore[attr-defined]
        workspace = run if self._folder is None else Workspace(self._folder)
        if workspace is None:
            raise RunError(
                "SplitReport: there is no folder; give it one, or add a RunFolder to the Trainer's callbacks"
            )
        workspace.path.mkdir(parents=True, exist_ok=True)
        checkpoint = best_checkpoint(trainer)
        kept = {name: tensor.clone() for name, tensor in pl_module.state_dict().items()}
        training = pl_module.training
        try:
            pl_module.eval()
            if checkpoint is not None:
                pl_module.load_state_dict(load_tensors(checkpoint)["state_dict"])
            self.content = self._report(trainer, pl_module, workspace, run, checkpoint)
        finally:
            pl_module.load_state_dict(kept)
            pl_module.train(training)

    def _report(
        self,
        trainer: pl.Trainer,
        module: pl.LightningModule,
        workspace: Workspace,
        run: Workspace | None,
        checkpoint: Path | None,
    ) -> dict[str, Any]:
        spec = self._spec
        calibration = self._calibrate(trainer, module)
        images, probabilities, labels = self._pass(module, self._batches(trainer, "test", self._loader))
        loss = negative_log_likelihood(probabilities, labels)
        predictions = Predictions("test", probabilities, None, labels, loss, calibration=calibration)
        evaluation = spec.kind.evaluate(predictions, spec, "test", self._settings)
        name = type(module).__name__
        facts = {
            "": spec.dataset,
            "at": spec.resized_text,
            "backbone": name,
            "split": f"test, {len(labels):,} images",
            "checkpoint": "the last epoch" if checkpoint is None else checkpoint.name,
        }
        background = ReportContext(
            title=workspace.path.name,
            facts=facts,
            config={} if run is None else load_run(run).config,
            defaults={},
            manifest=None if run is None else read_manifest(run.manifest),
            epochs=[] if run is None else read_epochs(run.epochs),
        )
        provenance = {"backbone": name, "checkpoint": None if checkpoint is None else checkpoint.name}
        arrays = ArrayDataset(SplitArrays(images, labels.numpy()))
        content = write_results(workspace, evaluation, arrays, provenance, background)
        log.info("results of %s test images: %s", f"{len(labels):,}", shown(workspace.report))
        return content

    def _calibrate(self, trainer: pl.Trainer, module: pl.LightningModule) -> Calibration | None:
        """Return the temperature that the validation split asks for; None without one."""
        batches = self._batches(trainer, "val", self._calibration, needed=False)
        if batches is None:
            return None
        _, probabilities, labels = self._pass(module, batches)
        return fit_calibration(probabilities, None, labels, self._spec.task, self._settings)

    def _batches(self, trainer: pl.Trainer, split: Split, given: Loader | None, needed: bool = True) -> Any:
        if given is not None:
            return given
        if split == "val" and trainer.val_dataloaders is not None:
            return trainer.val_dataloaders
        source: Any = getattr(trainer, "datamodule", None) or trainer.lightning_module
        hook: Callable[[], Any] | None = getattr(source, f"{split}_dataloader", None)
        if isinstance(source, pl.LightningDataModule):
            source.setup("test" if split == "test" else "validate")
        elif hook is not None and not _overridden(source, f"{split}_dataloader"):
            hook = None
        if hook is None and needed:
            raise DataError(f"SplitReport: there are no {split} batches; give a loader, or define {split}_dataloader")
        return None if hook is None else hook()

    def _pass(self, module: pl.LightningModule, batches: Loader) -> tuple[Any, Tensor, Tensor]:
        """Return images (N, H, W) or (N, H, W, 3) uint8, probabilities (N, K) and labels of all batches."""
        found: list[tuple[Any, Tensor, Tensor]] = []
        with torch.no_grad():
            for batch in batches:
                if not (isinstance(batch, list | tuple) and len(batch) == 2):
                    raise DataError("SplitReport: a batch has to be a pair (images, labels)")
                images, labels = batch
                given = module(images.to(module.device)).float().cpu()
                found.append((self._pixels(images), self._probabilities(given), labels.cpu()))
        if not found:
            raise DataError("SplitReport: the loader gives no batch")
        images, probabilities, labels = zip(*found, strict=True)
        return np.concatenate(images), torch.cat(probabilities), torch.cat(labels)

    def _probabilities(self, given: Tensor) -> Tensor:
        if not self._gives_logits:
            return given
        return self._spec.kind.probabilities(given)

    def _pixels(self, images: Tensor) -> Any:
        """Return images as pixels; what is no uint8 was normalised by the constants of the task, or lies in [0, 1]."""
        images = images.detach().cpu()
        if images.dtype != torch.uint8:
            low, high = float(images.min()), float(images.max())
            if low < 0 or high > 1:
                mean, std = (torch.tensor(each).view(1, -1, 1, 1) for each in (self._spec.mean, self._spec.std))
                images = images * std + mean
            images = (images.clamp(0, 1) * 255).round().to(torch.uint8)
        pixels = images.numpy()
        return pixels[:, 0] if pixels.shape[1] == 1 else pixels.transpose(0, 2, 3, 1)


def _overridden(module: Any, name: str) -> bool:
    return getattr(type(module), name, None) is not getattr(pl.LightningModule, name, None)
