"""An artifact in the place of a network, for `predict --model`."""

import torch
from torch import Tensor

from visionforge.data.info import TaskSpec
from visionforge.evaluation.picture_table import BatchPrediction
from visionforge.exporting.formats import Runtime
from visionforge.training.calibration import scale


class ArtifactPredictor:
    """What an artifact says of pictures; its probabilities are calibrated already.

    Thresholds of labels belong to probabilities before calibration, so they are moved in the same way.

    Args:
        runtime: The loaded artifact.
    """

    def __init__(self, runtime: Runtime) -> None:
        self.spec: TaskSpec = runtime.contract.spec
        self._runtime = runtime
        thresholds = runtime.contract.thresholds
        if thresholds is None:
            self._thresholds = None
        else:
            given = torch.tensor([thresholds], dtype=torch.float64)
            self._thresholds = scale(given, runtime.contract.temperature, self.spec.task)[0].float()

    def __call__(self, images: Tensor) -> BatchPrediction:
        """Return what it says of uint8 images (B, C, R, R)."""
        given = torch.from_numpy(self._runtime.run(images.numpy()))
        return BatchPrediction(given, given, self._thresholds)
