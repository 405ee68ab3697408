"""A network that finds boxes, and what it says."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from torch import Tensor

from visionforge.inference.predictor import ViewsPredictor, require_finite
from visionforge.training.task_network import TaskNetwork


@dataclass(frozen=True)
class BoxPrediction:
    """What is said of some images, in their order.

    Attributes:
        labels: (B, D, 6) rows [class, score, x1, y1, x2, y2] in pixels, by falling score; class -1 in rows without a
            box.
        averaged: Whether it is what test-time views say together.
    """

    labels: npt.NDArray[np.float32]
    averaged: bool = False

    @property
    def calibrated(self) -> npt.NDArray[np.float32]:
        """Return `labels`, in which the scores are."""
        return self.labels

    @classmethod
    def joined(cls, parts: Sequence["BoxPrediction"]) -> "BoxPrediction":
        """Return what one predictor said of several batches, as if it were one."""
        return cls(np.concatenate([part.labels for part in parts]), parts[0].averaged)


class BoxPredictor(ViewsPredictor):
    """A network that was trained on boxes.

    Args:
        model: The network.
        tta: Ask the test-time views; None takes the network's setting.

    Raises:
        RunError: If its weights are not finite: it would find nothing, as if there were nothing.
    """

    def __init__(self, model: TaskNetwork, tta: bool | None = None) -> None:
        super().__init__(model, tta)
        for values in model.state_dict().values():
            if values.is_floating_point():
                require_finite(values)

    def __call__(self, images: Tensor) -> BoxPrediction:
        """Return the boxes of images (B, C, R, R), uint8 or normalised float.

        Raises:
            RunError: If its outputs are not finite.
        """
        return BoxPrediction(self.outputs(images).cpu().numpy(), self.averages)
