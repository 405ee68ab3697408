"""The record of one pass over a split."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from visionforge.training.calibration import Calibration


@dataclass(frozen=True)
class Predictions:
    """What one pass over a split gave, in the order of the split.

    Attributes:
        split: Which one. Where not all of it was looked at, it is its first images.
        probabilities: (N, K) float32 on the CPU.
        probabilities_tta: The same averaged over the views of test-time augmentation; None if it is off.
        labels: (N,) int64, or (N, K) 0/1.
        loss: Mean loss without smoothing.
        thresholds: (L,) per label, chosen on the validation split; None for other tasks.
        calibration: What the validation split says about the probabilities; None if it was not asked.
        columns: What else is said of each image (N,), by the name of its column in tables.
        ood: How `ood_score` was made, and its threshold; None without a score.
        folds: (N,) int64 which of several networks predicted an image; None: all by the same.
    """

    split: str
    probabilities: Tensor
    probabilities_tta: Tensor | None
    labels: Tensor
    loss: float
    thresholds: Tensor | None = None
    calibration: Calibration | None = None
    columns: Mapping[str, Tensor] = field(default_factory=dict)
    ood: Mapping[str, Any] | None = None
    folds: Tensor | None = None
