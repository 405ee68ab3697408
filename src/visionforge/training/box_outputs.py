"""The boxes that a network finds in a split, batch by batch."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from visionforge.config.schema import EvaluationSettings
from visionforge.data.augment import normalise
from visionforge.data.info import TaskSpec
from visionforge.scoring.box_cases import BoxCases, WeightedBoxCases
from visionforge.training.calibration import Calibration, uncalibrated
from visionforge.training.criterion import AnyCriterion
from visionforge.training.gather import gather_rows
from visionforge.training.metrics import metric_values, wanted_metrics
from visionforge.training.split_outputs import Concluded, Pass

_SAMPLING_SEED = 0  # of the regions and anchors of which a two-stage detector computes its losses


@dataclass(frozen=True)
class BoxPredictions:
    """The record of one pass over a split.

    Attributes:
        split: Which split.
        labels: (N, M, 5) float32 rows [class, x1, y1, x2, y2], class -1 in rows without a box.
        alone: (N, D, 6) float32 rows [class, score, x1, y1, x2, y2], of the images alone.
        with_views: The same of the test-time views together, or None.
        loss: Mean of the sum of the detector's losses.
    """

    split: Literal["val", "test"]
    labels: Tensor
    alone: Tensor
    with_views: Tensor | None
    loss: float


@torch.no_grad()
def evaluated_losses(model: Any, images: Tensor, labels: Tensor) -> Tensor:
    """Return (N,) the sum of the detector's losses of each evaluated image.

    Normalisation layers use their running statistics. Detectors divide their losses by the number of positive places,
    here by those of the image alone, so the mean over a split depends neither on the batch size nor on the number of
    processes. What two-stage detectors look at is drawn in the same way in every image, and no other random number
    changes.

    Args:
        model: The module, in evaluation mode.
        images: (N, C, R, R), uint8 or normalised float.
        labels: (N, M, 5).
    """
    if images.dtype == torch.uint8:
        images = normalise(images, model.spec.mean, model.spec.std)
    devices = [images.device] if images.device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        losses: Tensor = model.network.losses_of_each(images, labels, _SAMPLING_SEED)
    return losses


class BoxOutputs:
    """Boxes of the batches of this process; see `visionforge.training.split_outputs.SplitOutputs`."""

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
        """Keep boxes, truth and losses of a batch."""
        assert losses is not None, "Task.losses gives those of boxes"
        kept = [labels.float(), losses, criterion.probabilities(logits)]
        self._batches.append(kept if averaged is None else [*kept, averaged.float()])

    def gather(self, ranks: int) -> "GatheredBoxes":
        """Return those of all processes in the order of the split, and forget them."""
        labels, losses, *said = zip(*self._batches, strict=True)
        self._batches.clear()
        most = max(each.shape[1] for each in labels)
        most = int(gather_rows(torch.tensor([most]), ranks).max())  # other processes may have images with more boxes
        parts = [torch.cat([_filled(each, most) for each in labels]), torch.cat(losses), *map(torch.cat, said)]
        truth, each, alone, *views = (gather_rows(part, ranks) for part in parts)
        return GatheredBoxes(truth, each, alone, views[0] if views else None)


def _filled(labels: Tensor, rows: int) -> Tensor:
    """Return labels (N, rows, 5), of which the new rows have no box; loaders may pad their batches one by one."""
    if labels.shape[1] == rows:
        return labels
    out = labels.new_zeros(len(labels), rows, 5)
    out[..., 0] = -1
    out[:, : labels.shape[1]] = labels
    return out


@dataclass(frozen=True)
class GatheredBoxes:
    """Boxes of a whole split.

    Attributes:
        labels: (N, M, 5).
        losses: (N,) of each image.
        alone: (N, D, 6) of the images alone.
        with_views: (N, D, 6) of the test-time views together, or None.
    """

    labels: Tensor
    losses: Tensor
    alone: Tensor
    with_views: Tensor | None

    @property
    def finite(self) -> bool:
        """Return whether all outputs are finite; the losses are not, where boxes were left out because of that."""
        return bool(torch.isfinite(self.losses).all() and torch.isfinite(self.alone).all())

    def conclude(self, given: Pass) -> Concluded:
        """Return metrics and predictions."""
        loss = self.losses.mean()
        values = {f"{given.split}/loss": loss, **self._metrics(given, self.alone)}
        if self.with_views is not None:
            values |= {f"{name}_tta": value for name, value in self._metrics(given, self.with_views).items()}
        views = None if self.with_views is None else self.with_views.cpu()
        predictions = BoxPredictions(given.split, self.labels.cpu(), self.alone.cpu(), views, float(loss))
        return Concluded(values, predictions)

    def _metrics(self, given: Pass, said: Tensor) -> dict[str, Tensor]:
        cases = cases_of(self.labels, said, given.spec)
        weighted = WeightedBoxCases(cases, np.ones((len(self.labels), 1)))
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


def cases_of(labels: Tensor, said: Tensor, spec: TaskSpec) -> BoxCases:
    """Return boxes and their truth as metrics take them.

    Args:
        labels: (N, M, 5).
        said: (N, D, 6).
        spec: The task.
    """
    return BoxCases(labels.cpu().numpy(), said.float().cpu().numpy(), len(spec.classes))
