"""The masks that a network gives for a split, batch by batch: probabilities of pixels are too many to be kept."""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from visionforge.config.schema import EvaluationSettings
from visionforge.config.schema.task import IGNORED
from visionforge.data.info import TaskSpec
from visionforge.scoring.mask_cases import MaskCases, WeightedMaskCases
from visionforge.training.calibration import Calibration, uncalibrated
from visionforge.training.criterion import AnyCriterion
from visionforge.training.gather import gather_rows
from visionforge.training.metrics import metric_values, wanted_metrics
from visionforge.training.split_outputs import Concluded, Pass

BOUNDARY_SHARE = 0.0075  # of the diagonal (Csurka et al., 2013), up to which boundaries agree; one pixel at least


@dataclass(frozen=True)
class MaskView:
    """What was said of N pictures, alone or averaged over their views.

    Attributes:
        masks: (N, H, W) uint8.
        sure: (N,) mean probability of the predicted class over the pixels of each.
    """

    masks: Tensor
    sure: Tensor


@dataclass(frozen=True)
class MaskPredictions:
    """The record of one pass over a split.

    Attributes:
        split: Which split.
        labels: (N, H, W) uint8, 255 does not count.
        alone: Of the images alone.
        with_views: Averaged over the test-time views, or None.
        loss: Mean cross-entropy of the pixels.
    """

    split: Literal["val", "test"]
    labels: Tensor
    alone: MaskView
    with_views: MaskView | None
    loss: float


class MaskOutputs:
    """Masks of the batches of this process; see `visionforge.training.split_outputs.SplitOutputs`."""

    def __init__(self) -> None:
        self._batches: list[list[Tensor]] = []

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
        """Keep masks, truth and losses of a batch."""
        plain = criterion.plain()
        finite = torch.isfinite(logits).flatten(1).all(dim=1)
        usable = torch.where(finite.view(-1, 1, 1, 1), logits, 0.0).float()
        each = torch.stack(
            [plain(usable[index : index + 1], labels[index : index + 1]) for index in range(len(labels))]
        )
        kept = [labels.to(torch.uint8), each.where(finite, torch.nan), *_said(criterion.probabilities(usable))]
        kept = kept if averaged is None else [*kept, *_said(averaged)]
        if not torch.distributed.is_initialized():  # several processes gather them from their devices
            kept = [part.cpu() if part.dtype == torch.uint8 else part for part in kept]
        self._batches.append(kept)

    def gather(self, ranks: int) -> "GatheredMasks":
        """Return those of all processes in the order of the split, and forget them."""
        columns = list(zip(*self._batches, strict=True))
        self._batches.clear()
        parts = [gather_rows(torch.cat(columns.pop(0)), ranks) for _ in range(len(columns))]
        labels, losses, masks, sure, *views = parts
        return GatheredMasks(labels, losses, MaskView(masks, sure), MaskView(*views) if views else None)


def _said(probabilities: Tensor) -> tuple[Tensor, Tensor]:
    """Return (N, H, W) uint8 classes, and (N,) the mean of their probabilities."""
    highest, masks = probabilities.max(dim=1)
    return masks.to(torch.uint8), highest.flatten(1).mean(dim=1)


@dataclass(frozen=True)
class GatheredMasks:
    """Masks of a whole split.

    Attributes:
        labels: (N, H, W) uint8.
        losses: (N,), NaN where the outputs were not finite.
        alone: Of the images alone.
        with_views: Averaged over the test-time views, or None.
    """

    labels: Tensor
    losses: Tensor
    alone: MaskView
    with_views: MaskView | None

    @property
    def finite(self) -> bool:
        """Return whether all outputs are finite."""
        return bool(torch.isfinite(self.losses).all())

    def conclude(self, given: Pass) -> Concluded:
        """Return metrics and predictions."""
        loss = self._loss()
        values = {f"{given.split}/loss": loss, **self._metrics(given, self.alone)}
        if self.with_views is not None:
            values |= {f"{name}_tta": value for name, value in self._metrics(given, self.with_views).items()}
        views = None if self.with_views is None else _on_cpu(self.with_views)
        predictions = MaskPredictions(given.split, self.labels.cpu(), _on_cpu(self.alone), views, float(loss))
        return Concluded(values, predictions)

    def _loss(self) -> Tensor:
        """Return the mean over the pixels that count, of which pictures may have different numbers."""
        counted = (self.labels != IGNORED).flatten(1).sum(dim=1).to(self.losses)  # which may lie elsewhere
        return (self.losses * counted).sum() / counted.sum().clamp(min=1)

    def _metrics(self, given: Pass, view: MaskView) -> dict[str, Tensor]:
        weighted = WeightedMaskCases(
            cases_of(self.labels.cpu().numpy(), view.masks.cpu().numpy(), given.spec), np.ones((len(self.labels), 1))
        )
        wanted = wanted_metrics(given.spec.task, given.watched)
        return metric_values(wanted, weighted, given.split, self.losses)

    def calibrate(
        self, spec: TaskSpec, criterion: AnyCriterion, settings: EvaluationSettings
    ) -> tuple[Calibration, Tensor | None]:
        """Refuse.

        Raises:
            DataError: In any case.
        """
        raise uncalibrated(spec.task)


def _on_cpu(view: MaskView) -> MaskView:
    return MaskView(view.masks.cpu(), view.sure.float().cpu())


def cases_of(
    truth: "np.ndarray[tuple[int, ...], np.dtype[np.uint8]]",
    masks: "np.ndarray[tuple[int, ...], np.dtype[np.uint8]]",
    spec: TaskSpec,
) -> MaskCases:
    """Return masks and their truth as metrics take them.

    Args:
        truth: (N, H, W), 255 does not count.
        masks: (N, H, W).
        spec: The task.
    """
    tolerance = max(1.0, BOUNDARY_SHARE * math.hypot(*truth.shape[-2:]))
    return MaskCases(truth, masks, len(spec.classes), IGNORED, background_of(spec), tolerance)


def background_of(spec: TaskSpec) -> int | None:
    """Return the number of the class that is in no mean; None if there is none."""
    return spec.kind.background(spec.classes)
