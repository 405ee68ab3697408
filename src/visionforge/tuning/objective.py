"""One trial: values from the sampler, an ordinary fit, and the best epoch as the result."""

import gc
import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import optuna
import torch
from lightning.pytorch.callbacks import Callback
from optuna.trial import Trial, TrialState
from optuna_integration import PyTorchLightningPruningCallback

from visionforge.config.resizing import network_resolution
from visionforge.config.schema import RunSettings, TuneSettings
from visionforge.data.registry import dataset_info
from visionforge.errors import TrainingError, VisionForgeError
from visionforge.models.inspect import profile
from visionforge.models.registry import backbone_entry
from visionforge.redaction import redact_text
from visionforge.runs.processes import this_process
from visionforge.runs.signals import Interrupted
from visionforge.runs.workspace import Workspace
from visionforge.training.checkpoints import LastCheckpoint, checkpoint_to_resume
from visionforge.tuning.folder import StudyFolder
from visionforge.tuning.space import Space, Values
from visionforge.tuning.study import minimised
from visionforge.tuning.trials import (
    CONTINUES,
    EARLIER_S,
    EPOCHS,
    OWN,
    OWNER,
    REASON,
    RETRY,
    RUN,
    SURPLUS,
    counted,
    cut_off,
    run_of,
    spent_s,
)

log = logging.getLogger(__name__)

BEST_EPOCH, SEED, FOLDS = "best_epoch", "seed", "folds"  # user attributes of a trial; the last are values of folds
ORDERLY_RETRIES = 1_000  # an interrupted trial is tried again whenever the search goes on


class SurplusError(Exception):
    """The trial is one more than asked for: another worker was faster."""


class BestEpoch(Callback):
    """Remembers the best value of the metric over the epochs, and the run; tells of every epoch.

    Args:
        metric: Name of the metric.
        told: Called with the number of finished epochs and the value of the last.
    """

    def __init__(self, metric: str, told: Callable[[int, float], None]) -> None:
        self._metric = metric
        self._told = told
        self.value: float | None = None
        self.epoch = -1
        self.epochs = 0
        self.run: Path | None = None

    def take_up(self, values: Mapping[int, float]) -> None:
        """Begin with the values of epochs, by their numbers from 0, that a run has had before it was paused."""
        for epoch in sorted(values):
            self._compare(epoch, values[epoch])

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Note where the run lies."""
        for callback in trainer.checkpoint_callbacks:
            if isinstance(callback, LastCheckpoint):
                self.run = callback.path.parent.parent

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Compare with the best epoch so far; of equal ones the later counts, as for the best checkpoint."""
        if trainer.sanity_checking:  # of a network that is not trained
            return
        value = float(trainer.callback_metrics[self._metric])
        self.take(trainer.current_epoch, value)

    def take(self, epoch: int, value: float) -> None:
        """Compare the value of an epoch, from 0, with the best so far, and tell of it."""
        self._compare(epoch, value)
        self._told(self.epochs, value)

    def _compare(self, epoch: int, value: float) -> None:
        self.epochs = epoch + 1
        best = self.value
        if best is None or math.isnan(best) or (value <= best if minimised(self._metric) else value >= best):
            self.value, self.epoch = value, epoch


class Pausing(Callback):
    """Reports every epoch, and ends the training where the pruner says so, after the epoch's checkpoint.

    Args:
        trial: The trial.
        metric: What is reported.
        waits: It ends where it goes on: it was to wait there, and was killed before it did.
    """

    def __init__(self, trial: Trial, metric: str, waits: bool = False) -> None:
        self._trial = trial
        self._metric = metric
        self._waits = waits
        self._reported = False  # a trial that goes on has been compared already

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Report."""
        if not trainer.sanity_checking:
            self._reported = True
            self._trial.report(float(trainer.callback_metrics[self._metric]), trainer.current_epoch)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """End here if the trial is to wait: the epoch before has its checkpoint now.

        Raises:
            optuna.TrialPruned: If it is.
        """
        if self._waits or (self._reported and self._trial.should_prune()):
            raise optuna.TrialPruned(f"paused after {trainer.current_epoch} epochs")


@dataclass(frozen=True)
class TrialFit:
    """What a trial asks the front door to do: an ordinary fit, without its test.

    Attributes:
        config: The nested configuration.
        folder: Where the run folder is made.
        callbacks: Further callbacks.
        parent: What the manifest says of its origin.
        best: Is told of the epochs by itself where the training is not in this process.
        run: The run that it goes on with; None for a new one.
        ends: Reports the value of an epoch, and returns whether the trial ends; None if it never does.
        pauses: It ends after the epoch's checkpoint.
        waits: It ends at once, after the checkpoint that it goes on with.
    """

    config: dict[str, Any]
    folder: Path
    callbacks: list[Callback]
    parent: dict[str, Any]
    best: BestEpoch
    run: Workspace | None = None
    ends: Callable[[int, float], bool] | None = None
    pauses: bool = False
    waits: bool = False


Fit = Callable[[TrialFit], Path]  # returns the run folder


def trial_epochs(settings: RunSettings) -> int:
    """Return the number of epochs of a whole trial."""
    return settings.tune.epochs or settings.trainer.max_epochs


class Objective:
    """The function that a study optimises.

    Args:
        settings: The settings of the whole study.
        space: The space.
        fit: Runs an ordinary fit.
        folder: Folder of the study, in which the trials' runs are.
        name: Name of the study.
        told: Called with (trial number, finished epochs, all epochs, last value).
    """

    def __init__(
        self,
        settings: RunSettings,
        space: Space,
        fit: Fit,
        folder: StudyFolder,
        name: str,
        told: Callable[[int, int, int, float], None],
    ) -> None:
        self._settings = settings
        self._space = space
        self._fit = fit
        self._folder = folder
        self._name = name
        self._told = told

    @property
    def _tune(self) -> TuneSettings:
        return self._settings.tune

    @property
    def _folds(self) -> int:
        """Return how many networks a trial trains."""
        data = self._settings.data
        return (data.folds or 1) * data.fold_repeats if self._tune.cross_validate else 1

    def __call__(self, trial: Trial) -> float | tuple[float, ...]:
        """Run one trial and return its value, or its two values.

        Raises:
            optuna.TrialPruned: If it was ended early.
            VisionForgeError: If it failed; the study stores the reason.
        """
        study = trial.study
        counting = [other.number for other in counted(study.get_trials(deepcopy=False))]
        if trial.number in counting[self._tune.n_trials :] and RETRY not in trial.user_attrs:  # that counts already
            trial.set_user_attr(SURPLUS, True)
            raise SurplusError
        trial.set_user_attr(OWNER, this_process().as_dict())
        own = bool(trial.user_attrs.get(OWN))
        try:
            values = self._space.suggest_base(trial) if own else self._space.suggest(trial)
        except Exception as error:
            trial.set_user_attr(REASON, redact_text(_reason(error)))
            raise
        epochs = trial_epochs(self._settings)
        trial.set_user_attr(EPOCHS, epochs * self._folds)
        trial.set_user_attr(SEED, self._settings.seed_everything)
        best = BestEpoch(self._tune.metric, lambda done, value: self._told(trial.number, done, epochs, value))
        try:
            config = self._space.apply({**values, "trainer.max_epochs": epochs})
            if self._tune.cross_validate:
                run, value = self._cross_validated(trial, config, best, epochs)
            else:
                taken_up, waits = self._taken_up(trial, best)
                callbacks: list[Callback] = [best]
                if self._tune.pruner == "halving":
                    callbacks.append(Pausing(trial, self._tune.metric, waits))
                elif self._tune.second_metric is None:  # with two objectives a study cannot store values of epochs
                    callbacks.append(PyTorchLightningPruningCallback(trial, self._tune.metric))
                run, value = self._trained(trial, config, best, callbacks, taken_up, waits)
        except Interrupted as interrupted:
            frozen = study._storage.get_trial(trial._trial_id)
            cut_off(study, frozen, f"interrupted by {interrupted.name}", ORDERLY_RETRIES)
            raise
        except optuna.TrialPruned:
            if best.run is not None:
                trial.set_user_attr(RUN, str(best.run))
            trial.set_user_attr(BEST_EPOCH, best.epoch + 1)
            raise
        except Exception as error:
            trial.set_user_attr(REASON, redact_text(_reason(error)))
            raise
        finally:
            self._tidy()
        trial.set_user_attr(RUN, str(run))
        trial.set_user_attr(BEST_EPOCH, best.epoch + 1)
        if self._tune.second_metric is None:
            return value
        return value, float(self._cost(values))

    def _taken_up(self, trial: Trial, best: BestEpoch) -> tuple[Workspace | None, bool]:
        """Report the epochs that a trial has behind it, and return the run that it goes on with; None for a new one.

        And whether it is to wait right there: one that waited goes on, but one that was killed may have been killed
        before it was compared with the others.
        """
        number = trial.user_attrs.get(CONTINUES)
        before = [other for other in trial.study.get_trials(deepcopy=False) if other.number == number]
        run = run_of(before[0], self._folder) if before else None
        if run is None:
            return None, False
        if checkpoint_to_resume(run.checkpoints) is None:
            log.warning("trial %d: the run of trial %s is gone, so it begins anew", trial.number, number)
            return None, False
        trial.set_user_attr(RUN, str(run.path))  # if the process is killed, the next one goes on with it
        values = before[0].intermediate_values
        for step in sorted(values):
            trial.report(values[step], step)
        best.take_up(values)
        trial.set_user_attr(EARLIER_S, spent_s(before[0]))
        return run, before[0].state == TrialState.FAIL and trial.should_prune()

    def _trained(
        self,
        trial: Trial,
        config: dict[str, Any],
        best: BestEpoch,
        callbacks: list[Callback],
        taken_up: Workspace | None = None,
        waits: bool = False,
    ) -> tuple[Path, float]:
        """Fit, and return the run folder and the best value.

        Raises:
            TrainingError: If there is none.
        """
        parent = {"study": self._name, "trial": trial.number, "reason": "trial"}
        halves = self._tune.pruner == "halving"
        ends = None if self._tune.second_metric or self._tune.cross_validate else partial(_ends, trial)
        run = self._fit(TrialFit(config, self._folder.trials, callbacks, parent, best, taken_up, ends, halves, waits))
        if best.value is None or not math.isfinite(best.value):
            what = "was validated" if best.value is None else f"has a finite {self._tune.metric}"
            raise TrainingError(f"tune.metric: no epoch of the trial {what}")
        return run, best.value

    def _cross_validated(
        self, trial: Trial, config: dict[str, Any], best: BestEpoch, epochs: int
    ) -> tuple[Path, float]:
        """Fit every fold, and return the run folder of the first and the mean of the best values.

        After each fold the mean so far is told, as if it were that of so many epochs, and a trial may be pruned.

        Raises:
            optuna.TrialPruned: If the mean so far is not worth another fold.
        """
        runs, values = list[Path](), list[float]()
        count = self._folds
        for fold in range(count):
            best.value, best.epoch = None, -1
            run, value = self._trained(trial, {**config, "data": {**config["data"], "fold": fold}}, best, [best])
            runs.append(run)
            values.append(value)
            trial.set_user_attr(FOLDS, values)
            if self._tune.second_metric is None and fold < count - 1:
                trial.report(math.fsum(values) / len(values), (fold + 1) * epochs - 1)
                if trial.should_prune():
                    raise optuna.TrialPruned(f"after {fold + 1} of {count} folds")
        return runs[0], math.fsum(values) / len(values)

    def _cost(self, values: Values) -> int:
        """Return multiply-adds per image or parameters of the trial's network."""
        settings = RunSettings.model_validate(self._space.apply(values))
        info = dataset_info(settings.data.dataset, settings.data.synthetic)
        backbone = settings.model.backbone
        channels = 3 if settings.data.force_rgb else info.channels
        entry = backbone_entry(backbone.name)
        found = profile(
            entry,
            network_resolution(settings.data.resize, settings.data.resolution),
            channels,
            len(info.classes),
            backbone.adapt_stem,
            info.spatial_dims,
            backbone.volume_convolution,
        )
        return found.multiply_adds if self._tune.second_metric == "multiply_adds" else found.parameters

    @staticmethod
    def _tidy() -> None:
        """Give back the memory of a trial before the next begins."""
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def _ends(trial: Trial, epoch: int, value: float) -> bool:
    """Report the value of an epoch, and return whether the trial ends."""
    trial.report(value, epoch)
    return trial.should_prune()


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())[:500]
    return text if isinstance(error, VisionForgeError) else f"{type(error).__name__}: {text}"
