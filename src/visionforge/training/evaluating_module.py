"""How a network goes through a split that it does not learn: what is kept, and what is made of it in the end."""

import logging
from collections.abc import Iterable
from dataclasses import replace
from typing import Any, Literal

import torch
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor

from visionforge.config.schema import EvaluationSettings
from visionforge.errors import DataError, TrainingError
from visionforge.training.calibration import Calibration
from visionforge.training.ensemble import disagreement
from visionforge.training.gather import gather_rows
from visionforge.training.monitor import Monitor
from visionforge.training.outliers import OF_FEATURES, OF_LOGITS, TRAINING_IMAGES, fit_outliers, watching
from visionforge.training.predicting_module import PredictingModule
from visionforge.training.rate_curve import RateCurve
from visionforge.training.split_outputs import Pass, SplitOutputs

log = logging.getLogger(__name__)


class EvaluatingModule(PredictingModule):
    """The part of `ImageClassifier` that validates and tests.

    Attributes:
        evaluation: What is fitted on the validation split beside the temperature.
        keeps_temperature: Only what is beside the temperature is fitted.
        monitor: What epochs are compared by.
        watched: Further metrics that somebody goes by.
        predictions: Those of the last split, as the task has them.
    """

    evaluation: EvaluationSettings
    keeps_temperature: bool
    monitor: Monitor
    watched: tuple[str, ...]
    predictions: Any
    training_features: Tensor | None = None  # of `ImageDataModule.plain_positions`, where they have been looked at
    _outputs: SplitOutputs | None
    _curve: RateCurve | None
    _scores: list[Tensor]
    _apart: list[Tensor]

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Keep the batch's logits; after the training, its probabilities over the test-time views, too."""
        images, labels = self._labelled(batch)
        self._keep(images, labels, self.trainer.state.fn != TrainerFn.FITTING)

    def on_validation_start(self) -> None:
        """Look at training images where a validation outside a training is to say how far out others are."""
        if self.trainer.state.fn != TrainerFn.FITTING:
            self._prepare_outliers()

    def _prepare_outliers(self) -> None:
        """Fit the score of images that are far out, of which the validation split then gives the threshold."""
        method = self.ood_method
        self.outliers = None
        if method == "none":
            return
        if method not in OF_FEATURES:
            self.outliers = fit_outliers(method)
            return
        datamodule = None if self._trainer is None else getattr(self.trainer, "datamodule", None)
        batches = getattr(datamodule, "plain_batches", None)
        if batches is None:
            log.info("evaluation.ood: %s needs an ImageDataModule; nothing says how far out images are", method)
            return
        labels: list[Tensor] = []
        with torch.no_grad(), watching(self.last_layer) as features:
            for images, truth in batches(TRAINING_IMAGES, self.device):
                self(images)
                labels.append(truth)
        found = torch.cat(features)
        self.outliers = fit_outliers(method, found, torch.cat(labels))
        self.training_features = found.float().cpu()

    @property
    def ood_method(self) -> str:
        """Return what `evaluation.ood` stands for with this task."""
        chosen = self.evaluation.ood
        if chosen == "none" or self.members or not self._bound_spec().kind.abstains:
            return "none"
        if chosen in OF_LOGITS:  # those of grades are one number, which only says where in their order an image is
            return "none" if self.cumulative is not None else chosen
        return "none" if self.last_layer is None else "mahalanobis" if chosen == "auto" else chosen

    def _keep(self, images: Tensor, labels: Tensor, tta: bool) -> None:
        if tta:  # outside a training
            with self.members_kept() as members:
                logits, averaged, scores = self._scored_forward(images, tta)
            self._scores += [] if scores is None else [scores]
            several = self._bound_spec().kind.several
            self._apart += [disagreement(each[:, : len(images)], several) for each in members[:1]]
        else:
            logits, averaged = self._views_forward(images, tta)
        losses = self._bound_spec().kind.losses(self, images, labels)
        self._kept().add(logits, labels, averaged, self._bound_criterion(), losses)

    def _kept(self) -> SplitOutputs:
        if self._outputs is None:
            self._outputs = self._bound_spec().kind.outputs()
        return self._outputs

    def on_validation_epoch_end(self) -> None:
        """Log loss (without smoothing, focusing and class weights) and metrics of the whole validation split.

        Outside a training the temperature is fitted, too; see `Calibration`.
        """
        values = self._conclude("val")
        self.log_dict(values, sync_dist=True)
        if self._curve is not None and self.trainer.state.fn == TrainerFn.FITTING and not self.trainer.sanity_checking:
            self._curve.observe(float(values[self.monitor.name]), self.trainer.global_step)
            for group in self.trainer.optimizers[0].param_groups:  # already set for the step that follows
                group["lr"] = group["initial_lr"] * self._curve(self.trainer.global_step)

    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Keep the batch's logits, and its probabilities over the test-time views."""
        images, labels = self._labelled(batch)
        self._keep(images, labels, True)

    def on_test_epoch_end(self) -> None:
        """Log the same for the test split, with and without test-time augmentation."""
        self.log_dict(self._conclude("test"), sync_dist=True)

    def _conclude(self, prefix: Literal["val", "test"]) -> dict[str, Tensor]:
        """Leave the predictions of the whole split in `predictions`, and return its metrics.

        Raises:
            TrainingError: If the network's outputs are not finite.
        """
        gathered, scores = self._kept().gather(self._ranks()), self._gather_scores()
        if not gathered.finite:
            raise TrainingError(
                f"model.optimizer.learning_rate: the training has diverged, the network's outputs are not finite in "
                f"epoch {self.current_epoch + 1}; lower the learning rate ({self.settings.optimizer.learning_rate:g})"
            )
        training = self.trainer.state.fn == TrainerFn.FITTING
        concluded = gathered.conclude(
            Pass(
                prefix,
                self._bound_spec(),
                self._bound_criterion(),
                {self.monitor.name, *self.watched} if training else (),
                training,
                self.thresholds,
                self.calibration,
                self.evaluation,
                self.keeps_temperature,
            )
        )
        self.thresholds, self.calibration = concluded.thresholds, concluded.calibration
        self.predictions = concluded.predictions
        if self.outliers is not None and scores is not None:
            if prefix == "val":
                self.outliers = self.outliers.fitted(scores)
            told = self.outliers.reported()
            self.predictions = replace(self.predictions, columns={"ood_score": scores}, ood=told)
        if apart := self._apart:
            self._apart = []
            found = gather_rows(torch.cat(apart), self._ranks()).float().cpu()
            self.predictions = replace(self.predictions, columns={**self.predictions.columns, "disagreement": found})
        return concluded.values

    def _gather_scores(self) -> Tensor | None:
        """Return how far out the images of the split are, of all processes, and forget it; None if nobody asked."""
        given, self._scores = self._scores, []
        return gather_rows(torch.cat(given), self._ranks()).float().cpu() if given else None

    def calibrate(self, batches: Iterable[Any]) -> Calibration:
        """Fit the temperatures, and the thresholds of labels, on batches of the validation split.

        They are those of the weights as they are; `calibration` and `thresholds` keep them, and so does a checkpoint
        that is written afterwards. The module looks in evaluation mode and is then as it was before.

        Args:
            batches: Pairs (images, labels) as `training_step` takes them, at least one.

        Raises:
            DataError: If there is no batch, one is not of the task, or the task has no temperatures.
            TrainingError: If the network's outputs are not finite.
        """
        if not self._bound_spec().kind.calibrates:
            raise DataError(f"calibration: a {self._bound_spec().task} has no temperatures")
        modes = {module: module.training for module in self.modules()}
        self.eval()
        try:
            self._prepare_outliers()
            with torch.no_grad():
                for batch in batches:
                    images, labels = self._labelled(batch)
                    logits, averaged, scores = self._scored_forward(images.to(self.device), True)
                    self._scores += [] if scores is None else [scores]
                    self._kept().add(logits, labels.to(self.device), averaged, self._bound_criterion())
        finally:
            for module, training in modes.items():
                module.training = training
        if not len(self._kept()):
            raise DataError("calibration: there is no validation batch")
        gathered, far = self._kept().gather(self._ranks()), self._gather_scores()
        if not gathered.finite:
            raise TrainingError("calibration: the network's outputs are not finite, so nothing can be fitted to them")
        found = gathered.calibrate(self._bound_spec(), self._bound_criterion(), self.evaluation)
        self.calibration, self.thresholds = found
        if self.outliers is not None and far is not None:
            self.outliers = self.outliers.fitted(far)
        return self.calibration
