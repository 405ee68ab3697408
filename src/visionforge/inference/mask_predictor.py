"""A network that gives the class of every pixel, and what it says."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from visionforge.inference.predictor import ViewsPredictor
from visionforge.training.task_network import TaskNetwork


@dataclass(frozen=True)
class MaskPrediction:
    """What is said of some images, in their order.

    Attributes:
        labels: (B, H, W) uint8, the class of each pixel.
        sure: (B,) mean probability of the predicted class over the pixels of each.
        calibrated: (B, K, H, W) probabilities; None where they are not kept.
        averaged: Whether test-time views were averaged.
    """

    labels: npt.NDArray[np.uint8]
    sure: npt.NDArray[np.float32]
    calibrated: npt.NDArray[np.float32] | None = None
    averaged: bool = False

    @classmethod
    def joined(cls, parts: Sequence["MaskPrediction"]) -> "MaskPrediction":
        """Return what one predictor said of several batches, as if it were one."""
        kept = [part.calibrated for part in parts if part.calibrated is not None]
        return cls(
            np.concatenate([part.labels for part in parts]),
            np.concatenate([part.sure for part in parts]),
            np.concatenate(kept) if kept else None,
            parts[0].averaged,
        )

    @classmethod
    def of_probabilities(cls, probabilities: Tensor, keep: bool = False, averaged: bool = False) -> "MaskPrediction":
        """Return the most probable classes of probabilities (B, K, H, W).

        Args:
            probabilities: Those of the pixels.
            keep: Keep them, too.
            averaged: Whether they are means over test-time views.
        """
        highest, labels = probabilities.max(dim=1)
        sure = highest.float().flatten(1).mean(dim=1).cpu().numpy()
        kept = probabilities.float().cpu().numpy() if keep else None
        return cls(labels.to(torch.uint8).cpu().numpy(), sure, kept, averaged)


class MaskPredictor(ViewsPredictor):
    """A network that was trained on masks.

    Args:
        model: The network.
        tta: Average over the test-time views; None takes the network's setting.
        keep: Keep the probabilities of the pixels.
    """

    def __init__(self, model: TaskNetwork, tta: bool | None = None, keep: bool = False) -> None:
        super().__init__(model, tta)
        self._keep = keep

    def __call__(self, images: Tensor) -> MaskPrediction:
        """Return the masks of images (B, C, R, R), uint8 or normalised float.

        Raises:
            RunError: If its outputs are not finite.
        """
        return MaskPrediction.of_probabilities(self.outputs(images), self._keep, self.averages)
