"""A network that finds boxes, and what it says."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from visionforge.errors import RunError
from visionforge.training.classifier import ImageClassifier
from visionforge.training.tta import named_views


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

    @classmethod
    def joined(cls, parts: Sequence["BoxPrediction"]) -> "BoxPrediction":
        """Return what one predictor said of several batches, as if it were one."""
        return cls(np.concatenate([part.labels for part in parts]), parts[0].averaged)


class BoxPredictor:
    """A network that was trained on boxes.

    Args:
        model: The network.
        tta: Ask the test-time views; None takes the network's setting.
    """

    def __init__(self, model: ImageClassifier, tta: bool | None = None) -> None:
        assert model.spec is not None
        self.spec = model.spec
        self._model = model
        self._tta = tta

    def __call__(self, images: Tensor) -> BoxPrediction:
        """Return the boxes of images (B, C, R, R), uint8 or normalised float.

        Raises:
            RunError: If its outputs are not finite.
        """
        return BoxPrediction(self.outputs(images).cpu().numpy(), self.averages)

    @property
    def averages(self) -> bool:
        """Return whether test-time views are asked."""
        views = named_views(self.spec, self._model.settings.tta, self.spec.resolution)
        return self._tta is not False and len(views) > 1

    @torch.inference_mode()
    def outputs(self, images: Tensor) -> Tensor:
        """Return (B, D, 6) float32 rows [class, score, x1, y1, x2, y2].

        Raises:
            RunError: If its outputs are not finite.
        """
        device = next(self._model.parameters()).device
        raw, averaged = self._model.predict_probabilities(images.to(device), self._tta)
        given = raw if averaged is None else averaged
        if not bool(torch.isfinite(given).all()):
            raise RunError(
                "the network's outputs are not finite, so its training has diverged; take another checkpoint"
            )
        return given.float()
