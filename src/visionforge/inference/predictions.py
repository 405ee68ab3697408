"""What is said of some images, whoever says it; nothing of it needs torch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from visionforge.data.info import TaskSpec

if TYPE_CHECKING:
    from torch import Tensor

DISAGREEMENT = "disagreement"  # column of an ensemble
OOD_SCORE, UNLIKE = "ood_score", "unlike_training"  # columns of how far an image is out, and whether it is too far
Floats = npt.NDArray[np.float32]
Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class BatchPrediction:
    """What is said of some images, in their order.

    Attributes:
        calibrated: (B, K) the probabilities that are stated: over the test-time views if they are on, and calibrated.
        labels: (B,) the predicted classes, or (B, K) labels 0/1. They are chosen before the calibration, as thresholds
            are; a temperature never changes the most probable class.
        raw: (B, K) of the images alone, before calibration; None where they are not known, as of an artifact.
        raw_tta: (B, K) means over the views, before calibration; None without views, or where they are not known.
        columns: What else is said, by the name of its column in tables: (B,) numbers or truth values, or (B, K) truth
            values, which are sets of classes.
    """

    calibrated: Floats
    labels: npt.NDArray[np.int64]
    raw: Floats | None = None
    raw_tta: Floats | None = None
    columns: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict)

    @classmethod
    def joined(cls, parts: Sequence["BatchPrediction"]) -> "BatchPrediction":
        """Return what one predictor said of several batches, as if it were one."""
        joined: dict[str, Any] = {}
        for each in fields(cls):
            given = [getattr(part, each.name) for part in parts]
            if isinstance(given[0], Mapping):
                joined[each.name] = {name: np.concatenate([columns[name] for columns in given]) for name in given[0]}
            else:
                joined[each.name] = None if given[0] is None else np.concatenate(given)
        return cls(**joined)


def distance_columns(scores: npt.NDArray[Any], threshold: float | None) -> dict[str, npt.NDArray[Any]]:
    """Return the columns of how far images are from those of the training, and which are unlike them.

    Args:
        scores: (B,) `ood_score`.
        threshold: That which 95 % of the validation images do not exceed; None where there were none.
    """
    return {OOD_SCORE: scores} if threshold is None else {OOD_SCORE: scores, UNLIKE: scores > threshold}


class Predictor(Protocol):
    """What says something of images."""

    @property
    def spec(self) -> TaskSpec:
        """Return the task."""

    def __call__(self, images: "Pixels | Tensor") -> Any:
        """Return what is said of uint8 images (B, C, R, R), as `Task.predictor` says it."""
