"""What a network says of pictures, as the rows of a table: prediction, probabilities and uncertainty."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from visionforge.data.info import TaskSpec
from visionforge.data.stream import Batch
from visionforge.errors import RunError
from visionforge.evaluation.class_names import label_text, probability_columns, unique_names
from visionforge.evaluation.scores import predicted_labels
from visionforge.evaluation.selection import entropy
from visionforge.evaluation.table_writers import Cell, Column
from visionforge.training.classifier import ImageClassifier


def columns_of(spec: TaskSpec) -> list[Column]:
    """Return the columns of a table of predictions."""
    probabilities = [Column(name, "number") for name in probability_columns(spec)]
    return [Column("path"), Column("prediction"), *probabilities, Column("uncertainty", "number")]


class Predictor(Protocol):
    """What says something of pictures: a network, or an artifact that was exported from one."""

    @property
    def spec(self) -> TaskSpec:
        """Return the task."""

    def __call__(self, images: Tensor) -> "BatchPrediction":
        """Return what is said of uint8 images (B, C, R, R)."""


@dataclass(frozen=True)
class BatchPrediction:
    """What is said of a batch.

    Attributes:
        given: (B, K) probabilities by which labels are chosen.
        calibrated: (B, K) probabilities that are shown.
        thresholds: (K,) of multi-label data; None is 0.5.
    """

    given: Tensor
    calibrated: Tensor
    thresholds: Tensor | None


class NetworkPredictor:
    """A network with its temperature and thresholds.

    Args:
        model: The network, in evaluation mode.
        tta: Average over the test-time views; None takes the network's setting.
    """

    def __init__(self, model: ImageClassifier, tta: bool | None) -> None:
        assert model.spec is not None
        self.spec = model.spec
        self._model = model
        self._tta = tta

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> BatchPrediction:
        """Return what the network says of uint8 images (B, C, R, R).

        Raises:
            RunError: If its outputs are not finite.
        """
        model = self._model
        alone, averaged = model.predict_probabilities(images.to(next(model.parameters()).device), self._tta)
        given = (alone if averaged is None else averaged).float().cpu()
        if not bool(torch.isfinite(given).all()):
            raise RunError(
                "the network's outputs are not finite, so its training has diverged; take another checkpoint"
            )
        tta = averaged is not None
        return BatchPrediction(given, model.calibrated(given, tta=tta), thresholds_of(model, tta))


def thresholds_of(model: ImageClassifier, tta: bool) -> Tensor | None:
    """Return (K,) the thresholds of multi-label data, of probabilities before calibration; None is 0.5.

    Args:
        model: The network.
        tta: Whether the probabilities are averaged over the test-time views.
    """
    if tta and model.calibration is not None and model.calibration.thresholds_tta is not None:
        return torch.tensor(model.calibration.thresholds_tta)
    return model.thresholds


def chosen_labels(said: BatchPrediction, spec: TaskSpec) -> npt.NDArray[np.int64]:
    """Return the predictions, (B,) classes or (B, K) labels.

    Labels are chosen before the probabilities are calibrated, as `test` does: thresholds are chosen without the
    temperature, which never changes the most probable class.
    """
    thresholds = None if said.thresholds is None else said.thresholds.numpy()
    return predicted_labels(said.given.numpy(), spec.task, thresholds)


def table_rows(predictor: Predictor, batch: Batch) -> list[list[Cell]]:
    """Return a row per image of a batch, with a cell per column of `columns_of`.

    The uncertainty is the entropy of the calibrated probabilities as a share of the highest possible; for multi-label
    data, the mean over the labels.

    Args:
        predictor: The network or artifact.
        batch: The images.
    """
    spec = predictor.spec
    said = predictor(batch.images)
    uncertainty = entropy(said.calibrated.double().numpy(), spec.task == "multi-label").tolist()
    names, chosen = unique_names(spec), chosen_labels(said, spec)
    rows = zip(batch.names, chosen, said.calibrated.tolist(), uncertainty, strict=True)
    return [[name, label_text(label, names), *shown, share] for name, label, shown, share in rows]
