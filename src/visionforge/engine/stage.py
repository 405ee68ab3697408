"""One use of a Trainer, from checked settings to written results, and however it ends, a run that says so."""

import json
import logging
import os
import sys
from abc import ABC, abstractmethod
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback, RichProgressBar
from lightning.pytorch.loggers import Logger

from visionforge.data.datamodule import ImageDataModule
from visionforge.data.info import Split
from visionforge.data.source import fingerprint, prepare, stored_side_table
from visionforge.engine.construction import Construction, as_list
from visionforge.engine.device_lock import hold_device
from visionforge.engine.distributed import (
    CHECKPOINT,
    current_rank,
    expected_processes,
    inherited_folder,
    leave_or_end,
    leave_process_group,
    lost_process,
)
from visionforge.engine.failure import conclude, translate
from visionforge.engine.lightning_compat import use_current_leaf_spec
from visionforge.engine.loggers import close_loggers, log_hyperparameters, log_results, shield
from visionforge.engine.reporting import embedded, write_outcome
from visionforge.engine.resume import outputs_of
from visionforge.engine.slurm import requeue
from visionforge.engine.team import current_team
from visionforge.errors import RunError
from visionforge.evaluation.embedding_map import Embedded, drawn, method_of
from visionforge.evaluation.evaluation import Partial
from visionforge.evaluation.subgroup_columns import check_asked
from visionforge.inference.loading import read_checkpoint, restore
from visionforge.runs.files import write_atomic
from visionforge.runs.locks import Lock
from visionforge.runs.logfile import RunLog
from visionforge.runs.session import FOLDER, ActiveRun
from visionforge.runs.signals import Interrupted, Interruption
from visionforge.runs.workspace import Workspace, run_name
from visionforge.terminal import in_notebook
from visionforge.training.calibration import sets_asked
from visionforge.training.checkpoints import BEST, keep_calibration
from visionforge.training.kept_features import KeptFeatures

log = logging.getLogger(__name__)

BAR_REFRESH_STEPS = 10  # a refresh costs as much as a training step of a small network


def _progress_bar() -> Callback:
    """Return the bar for where this runs."""
    if in_notebook():
        from visionforge.engine.notebook_progress import NotebookProgress

        return NotebookProgress()
    return RichProgressBar(refresh_rate=BAR_REFRESH_STEPS)


class Stage(ABC):
    """What a fit and an evaluation have in common.

    Args:
        construction: The resolved configuration.
        run_log: Takes the log file once the run folder exists.
        interruption: Handles the signals.
        active: A run that was reopened; None makes a new one where one is needed.

    Attributes:
        name: Of the stage, as the manifest has it.
        workspace: The folder of the results.
    """

    name: str
    workspace: Workspace
    trainer: pl.Trainer
    model: Any
    datamodule: ImageDataModule

    def __init__(
        self, construction: Construction, run_log: RunLog, interruption: Interruption, active: ActiveRun | None = None
    ) -> None:
        self.construction = construction
        self.settings = construction.settings
        self.run_log = run_log
        self.interruption = interruption
        self.active = active
        self.parent: dict[str, Any] = {}
        self.provenance: dict[str, Any] = {}  # further facts for `metrics.json`
        self._team = current_team()
        self._parent_process = os.getppid()
        self._steps_before = 0  # what an earlier process of the run has done
        self._device_lock: Lock | None = None
        self._trainer: pl.Trainer | None = None
        self._embedded: Embedded | None = None

    def workspace_of_another(self) -> Workspace:
        """Return the folder that the first process has made; only that one writes into it.

        Raises:
            RunError: If there is no first process.
        """
        settings, folder = self.settings, inherited_folder()
        if folder is None and expected_processes(settings) == 1:
            raise RunError(
                f"the environment says that this is process {current_rank()} of several (RANK, LOCAL_RANK or "
                "SLURM_PROCID), but the training has one; unset it"
            )
        names = settings.data.dataset, settings.model.backbone.name, self.construction.hash
        return Workspace(folder or outputs_of(settings) / run_name(*names))

    # --- the steps that a stage has of its own

    @abstractmethod
    def take_workspace(self) -> Workspace:
        """Return the folder of the results, made if need be."""

    @abstractmethod
    def work(self) -> None:
        """Do what the stage is for; everything is built."""

    def is_pruned(self, error: BaseException | None) -> bool:
        """Return whether an error only says that a study has seen enough."""
        return False

    # --- the way of all stages

    def run(self) -> None:
        """Verify data and weights, take the folder, build everything, work, and write how it ended.

        Raises:
            VisionForgeError: For every mistake that the user can mend.
            Interrupted: If a signal ended it.
        """
        use_current_leaf_spec()
        try:
            self.check_sources()
            self.workspace = self.take_workspace()
            self._steps_before = self._steps()
            if self._team is not None and self._team.rank == 0:
                self._team.tell({name: os.environ.get(name) for name in (FOLDER, CHECKPOINT)})
                self._team.last_words = self._end
            self.build()
            self.work()
            leave_process_group()
        except BaseException as error:
            if self._team is not None:
                self._team.writes = True
            with self.interruption.deferred():  # a signal that comes meanwhile finds the run with its end written
                if self._team is None:
                    told = translate(lost_process(error, self._trainer, self._parent_process))
                else:
                    told = translate(self._team.cause(error))
                self._end(told)
            if isinstance(error, SystemExit) and self._trainer is not None and self._trainer.interrupted:
                raise KeyboardInterrupt from None  # which Lightning turned into an exit
            if told is error:
                raise
            raise told from told.__cause__
        self._end(None)

    def check_sources(self) -> None:
        """Download and verify what is read, before anything is made."""
        data = self.settings.data
        module = ImageDataModule(dataset=data.dataset, resolution=data.resolution, synthetic=data.synthetic)
        prepare(module.info, data.resolution, data.root, data.download)
        self.info = module.info
        method_of(self.settings.evaluation.embedding)
        if asked := self.settings.evaluation.subgroups:
            check_asked(asked, module.info, stored_side_table(module.info, data.resolution, data.root, "test"))

    def build(self) -> None:
        """Build data module, model and Trainer."""
        self.construction.instantiate()
        self.model, self.datamodule = self.construction.model, self.construction.datamodule
        self.model.evaluation = self.settings.evaluation
        flags = self.construction.flags
        callbacks, loggers = as_list(flags.get("callbacks")), as_list(flags.get("logger"))
        more = self.equip(callbacks, loggers)
        shield(loggers)
        wanted = flags.get("enable_progress_bar")
        bar = self.shows_progress() if wanted is None else bool(wanted)
        if bar:
            callbacks.append(_progress_bar())
        more |= {"default_root_dir": str(self.workspace.path), "enable_progress_bar": bar}
        self.trainer = self._trainer = self.construction.make_trainer(callbacks, loggers, **more)
        if self.settings.exclusive_device:
            device = self.trainer.strategy.root_device
            self._device_lock = hold_device(device, current_rank(), self.settings.device_wait)

    def equip(self, callbacks: list[Callback], loggers: list[Logger]) -> dict[str, Any]:
        """Add what the stage needs to what the user has chosen, and return further flags of the Trainer."""
        return {"enable_checkpointing": False}

    def shows_progress(self) -> bool:
        """Return whether there is a progress bar where nobody has said so."""
        return sys.stdout.isatty() or in_notebook()

    def _end(self, error: BaseException | None) -> None:
        """Let go of run and device, and write how the run ended."""
        with self.interruption.deferred():
            if self.active is not None:
                conclude(self.active, error, pruned=self.is_pruned(error))
            if self._device_lock is not None:
                self._device_lock.release()
            trainer = self._trainer
            if trainer is not None and trainer.is_global_zero:
                close_loggers(trainer.loggers, failed=error is not None and not self.is_pruned(error))
            if trainer is not None and error is not None:
                further = self._steps() > self._steps_before
                self.interruption.last(partial(requeue, trainer, error, further=further))
            if isinstance(error, Interrupted) and trainer is not None and trainer.world_size > 1:
                leave_or_end(trainer, error)

    def _steps(self) -> int:
        """Return after how many steps the run's last checkpoint is."""
        return 0 if self.active is None else int(self.active.manifest.progress.get("steps", 0))

    def introduce(self, run: str) -> None:
        """Tell the loggers what is about to run."""
        if self.trainer.is_global_zero:
            config = self.construction.resolved
            facts = {"run.name": run, "run.hash": self.construction.hash, "run.stage": self.name}
            facts |= {f"run.{key}": self.parent[key] for key in ("study", "trial") if key in self.parent}
            log_hyperparameters(self.trainer.loggers, config, facts)

    def write_transfer(self) -> None:
        """Write what became of pretrained weights."""
        if self.model.transfer is not None:
            if self.active is not None:
                found = self.model.transfer
                weights = {"source": found.source, "sha256": found.sha256, "revision": found.revision}
                self.active.update(weights=weights)
            self.workspace.weight_transfer.parent.mkdir(exist_ok=True)
            write_atomic(self.workspace.weight_transfer, json.dumps(self.model.transfer.as_dict(), indent=2) + "\n")

    # --- a checkpoint on a split

    def restore(self, checkpoint: Path) -> int | None:
        """Take the weights, and nothing else, of a checkpoint; return the number of epochs it was trained for."""
        content = read_checkpoint(checkpoint)
        self.model.bind(self.datamodule.spec)
        restore(self.model, content, checkpoint)
        epoch = content.get("epoch")
        return epoch + 1 if isinstance(epoch, int) else None

    def evaluate(self, split: Split, checkpoint: Path, epoch: int | None, run: Workspace | None) -> bool:
        """Evaluate the restored checkpoint on one split and write the results.

        A checkpoint whose temperature is not known yet is calibrated first; the one that a fit has chosen keeps it.

        Args:
            split: The split.
            checkpoint: Where the weights are from.
            epoch: The number of epochs that they were trained for.
            run: The run that the checkpoint belongs to.

        Returns:
            Whether there are results: a Trainer's flags may leave no image.
        """
        self.model.predictions = self.model.training_features = None
        loggers, self.trainer.loggers = self.trainer.loggers, []  # they get what is reported, in `_write`
        try:
            if split == "test":
                if self.datamodule.spec.kind.calibrates and not self._is_calibrated():
                    self._calibrate(checkpoint)
                self._keep_features(split)
                self.trainer.test(self.model, datamodule=self.datamodule, verbose=False)
            else:
                self._keep_features(split)
                self.trainer.validate(self.model, datamodule=self.datamodule, verbose=False)
            self._embedded = self._take_features(split)
        finally:
            self.trainer.loggers = loggers
            self.model.kept_features = None
        if self.model.predictions is None or self.model.predictions.split != split:
            log.warning("no image of the %s split was evaluated, so there are no results", split)
            return False
        if self.trainer.is_global_zero:
            self._write(split, checkpoint, epoch, run)
        return True

    def _keep_features(self, split: Split) -> None:
        """Let the network keep the features of what is then looked at, if anybody will draw them."""
        settings, model = self.settings.evaluation, self.model
        if not (settings.figures or settings.report) or method_of(settings.embedding) is None:
            return
        if not self.datamodule.spec.kind.calibrates or model.last_layer_name is None:
            return
        model.kept_features = KeptFeatures(torch.from_numpy(drawn(len(self.datamodule.dataset_for(split)))))

    def _take_features(self, split: Split) -> Embedded | None:
        """Return what the network has kept; None if nobody asked."""
        kept, method = self.model.kept_features, method_of(self.settings.evaluation.embedding)
        if kept is None or method is None or self.model.predictions is None:
            return None
        return embedded(self.model, self.datamodule, split, kept, method, self.trainer.world_size)

    def _is_calibrated(self) -> bool:
        """Return whether the checkpoint has a temperature, and the sets and the score that the settings ask for."""
        model, settings = self.model, self.settings.evaluation
        calibration, method = model.calibration, model.ood_method
        if calibration is None or calibration.asked != sets_asked(settings, model.spec.task)[1]:
            return False
        if method != (model.outliers.method if model.outliers is not None else "none"):
            return False
        if settings.abstain_below != calibration.abstain_below:  # which nothing is fitted for
            below = settings.abstain_below if model.spec.kind.abstains else None
            model.calibration = replace(calibration, abstain_below=below)
        return True

    def _calibrate(self, checkpoint: Path) -> None:
        """Look at the validation split once more, with test-time views."""
        if not self.trainer.limit_val_batches:
            log.warning(
                "trainer.limit_val_batches: 0 leaves no validation image, so temperature, sets of classes and "
                "ood_score stay as the checkpoint has them, or there are none"
            )
            return
        self.model.keeps_temperature = True  # one that the checkpoint has
        self.trainer.validate(self.model, datamodule=self.datamodule, verbose=False)
        if self.name == "fit" and self.trainer.is_global_zero and self.model.calibration is not None:
            keep_calibration(checkpoint, self.model.calibration, outliers=self.model.outliers)

    def _write(self, split: Split, checkpoint: Path, epoch: int | None, run: Workspace | None) -> None:
        """Write the results of the split that was just evaluated."""
        model, data = self.model, self.datamodule
        settings = data.settings
        provenance = {
            "backbone": model.settings.backbone.name,
            "checkpoint": checkpoint.name,
            "epoch": epoch,
            "chosen_by": model.monitor.name if checkpoint.name == BEST else None,
            "archive_md5": fingerprint(data.info, settings.resolution, settings.root),
            **self.provenance,
        }
        config, partial = self.construction.resolved, self._partial(split)
        reported = self.settings.evaluation
        content = write_outcome(
            self.workspace, run, model, data, split, reported, config, provenance, partial, self._embedded
        )
        log_results(self.trainer.loggers, self.workspace, content, self.trainer.global_step)

    def _partial(self, split: Split) -> Partial | None:
        """Return how much of a split was evaluated, and which flag says so; None if it was all of it."""
        seen, images = len(self.model.predictions.labels), len(self.datamodule.dataset_for(split))
        if seen >= images:
            return None
        given = self.construction.flags
        names = ("fast_dev_run", "overfit_batches", f"limit_{split}_batches")
        reasons = [f"trainer.{name} {given[name]}" for name in names if given.get(name)]
        return Partial(seen, images, ", ".join(reasons) or "fewer batches")
