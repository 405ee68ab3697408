"""What a network said of a split, batch by batch, until the split is over; and what is made of it then."""

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from visionforge.config.schema import EvaluationSettings
from visionforge.data.info import TaskSpec
from visionforge.training.calibration import Calibration, fit_calibration
from visionforge.training.criterion import AnyCriterion
from visionforge.training.gather import gather_rows
from visionforge.training.metrics import split_metrics
from visionforge.training.predictions import Predictions


@dataclass(frozen=True)
class Pass:
    """How a split was gone through.

    Attributes:
        split: Which split.
        spec: The task.
        criterion: What the network is trained by.
        watched: What epochs and trials are compared by, such as ``val/mcc``.
        training: Whether it is a validation within a training.
        thresholds: (K,) of labels, that a validation has left; None without one.
        calibration: What a validation has left; None without one.
        evaluation: When the network is to abstain.
        keeps: The temperatures of `calibration` stay where sets of classes are fitted.
    """

    split: Literal["val", "test"]
    spec: TaskSpec
    criterion: AnyCriterion
    watched: Collection[str] = ()
    training: bool = False
    thresholds: Tensor | None = None
    calibration: Calibration | None = None
    evaluation: EvaluationSettings = field(default_factory=EvaluationSettings)
    keeps: bool = False


@dataclass(frozen=True)
class Concluded:
    """What is known when a split is over.

    Attributes:
        values: What is logged, by name.
        predictions: The record of the pass, of which evaluations are made.
        thresholds: (K,) of labels; None if the task has none.
        calibration: The temperatures; None without any.
    """

    values: dict[str, Tensor]
    predictions: Any
    thresholds: Tensor | None = None
    calibration: Calibration | None = None


class Gathered(Protocol):
    """The outputs of a whole split, of all processes."""

    @property
    def finite(self) -> bool:
        """Return whether all outputs are finite."""

    def conclude(self, given: Pass) -> Concluded:
        """Return metrics and predictions of the split."""

    def calibrate(
        self, spec: TaskSpec, criterion: AnyCriterion, settings: EvaluationSettings
    ) -> tuple[Calibration, Tensor | None]:
        """Return temperatures, sets and thresholds that this split, a validation, asks for."""


class SplitOutputs(Protocol):
    """Keeps what is needed of the outputs of this process's batches."""

    def __len__(self) -> int:
        """Return the number of batches."""

    def add(
        self,
        logits: Tensor,
        labels: Tensor,
        averaged: Tensor | None,
        criterion: AnyCriterion,
        losses: Tensor | None = None,
    ) -> None:
        """Keep a batch.

        Args:
            logits: (N, K, …).
            labels: Those of the batch.
            averaged: (N, K, …) mean probabilities over the test-time views, or None.
            criterion: What the network is trained by.
            losses: (N,) what `Task.losses` gives; None leaves it to the criterion.
        """

    def gather(self, ranks: int) -> Gathered:
        """Return those of all processes in the order of the split, and forget them.

        Args:
            ranks: Number of processes.
        """


class ClassOutputs:
    """Logits (N, K), labels, and mean probabilities over the views or None, of the batches of this process."""

    def __init__(self) -> None:
        self._batches: list[tuple[Tensor, Tensor, Tensor | None]] = []

    def __len__(self) -> int:
        return len(self._batches)

    def add(
        self,
        logits: Tensor,
        labels: Tensor,
        averaged: Tensor | None,
        criterion: AnyCriterion,
        losses: Tensor | None = None,
    ) -> None:
        """Keep a batch; see `SplitOutputs`."""
        self._batches.append((logits, labels, averaged))

    def gather(self, ranks: int) -> "GatheredClasses":
        """Return those of all processes in the order of the split, and forget them."""
        logits, labels, averaged = zip(*self._batches, strict=True)
        self._batches.clear()
        views = None if averaged[0] is None else gather_rows(torch.cat(averaged), ranks)
        return GatheredClasses(gather_rows(torch.cat(logits), ranks), gather_rows(torch.cat(labels), ranks), views)


@dataclass(frozen=True)
class GatheredClasses:
    """Logits (N, K), labels, and mean probabilities over the views or None, of a whole split."""

    logits: Tensor
    labels: Tensor
    averaged: Tensor | None

    @property
    def finite(self) -> bool:
        """Return whether all logits are finite."""
        return bool(torch.isfinite(self.logits).all())

    def conclude(self, given: Pass) -> Concluded:
        """Return metrics and predictions; of a validation outside a training temperatures and thresholds, too."""
        criterion, spec, labels = given.criterion, given.spec, self.labels
        shown, thresholds, calibration = criterion.probabilities(self.logits), given.thresholds, given.calibration
        if given.split == "val":
            thresholds = spec.kind.thresholds(shown.cpu(), labels.cpu())
            if not given.training:
                kept = given.calibration if given.keeps else None
                calibration, _ = self.calibrate(spec, criterion, given.evaluation, kept)
        loss = criterion.plain()(self.logits.float(), labels)
        tta = None if self.averaged is None else self.averaged.cpu()
        predictions = Predictions(given.split, shown.cpu(), tta, labels.cpu(), float(loss), thresholds, calibration)
        asked = (labels, spec, given.split, given.watched, thresholds)
        values = {f"{given.split}/loss": loss, **split_metrics(shown, *asked)}
        if self.averaged is not None:
            tta_values = split_metrics(self.averaged, *asked)
            values |= {f"{name}_tta": value for name, value in tta_values.items()}
        return Concluded(values, predictions, thresholds, calibration)

    def calibrate(
        self, spec: TaskSpec, criterion: AnyCriterion, settings: EvaluationSettings, kept: Calibration | None = None
    ) -> tuple[Calibration, Tensor | None]:
        """Return temperatures and sets of classes, and thresholds of labels."""
        kind, labels = spec.kind, self.labels.cpu()
        shown = criterion.probabilities(self.logits).cpu()
        thresholds = kind.thresholds(shown, labels)
        averaged = None if self.averaged is None else self.averaged.cpu()
        found = None if averaged is None else kind.thresholds(averaged, labels)
        of_views = None if found is None else tuple(found.tolist())
        return fit_calibration(shown, averaged, labels, spec.task, settings, of_views, kept), thresholds
