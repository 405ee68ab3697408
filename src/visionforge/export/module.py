"""The network with everything around it: pixels in, calibrated probabilities out."""

import copy

import torch
from torch import Tensor, nn

from visionforge.export.contract import Contract
from visionforge.training.classifier import ImageClassifier
from visionforge.training.losses import probabilities

_SMALLEST = 1.1754944e-38  # as in training.calibration: the smallest normal float32


class ExportedClassifier(nn.Module):
    """From pixels (N, C, R, R) to calibrated probabilities (N, K).

    The same as ``model.calibrated(model.predict_probabilities(images, tta=False)[0], tta=False)``, in operations that
    every format has.

    Args:
        model: The model; its modules are copied.
        contract: What the artifact takes and gives.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, model: ImageClassifier, contract: Contract) -> None:
        super().__init__()
        assert model.network is not None
        self.network = copy.deepcopy(model.network).cpu().to(memory_format=torch.contiguous_format)
        self.cumulative = copy.deepcopy(model.cumulative)
        spec = contract.spec
        scale = 255.0 if contract.input == "uint8" else 1.0
        self.register_buffer("mean", torch.tensor(spec.mean).view(1, -1, 1, 1) * scale)
        self.register_buffer("std", torch.tensor(spec.std).view(1, -1, 1, 1) * scale)
        self._of_labels = spec.task == "multi-label"
        self._temperature = contract.temperature
        self.eval()
        self.requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        """Return (N, K) probabilities."""
        logits = self.network((images.to(torch.float32) - self.mean) / self.std)
        if self.cumulative is not None:
            given = probabilities(self.cumulative(logits), "cumulative")
            if self._temperature is None:
                return given
            return torch.softmax(given.clamp(min=_SMALLEST).log() / self._temperature, dim=1)
        scaled = logits if self._temperature is None else logits / self._temperature
        return torch.sigmoid(scaled) if self._of_labels else torch.softmax(scaled, dim=1)


def reference(model: ImageClassifier, images: Tensor) -> Tensor:
    """Return (N, K) calibrated probabilities of uint8 images as the model itself gives them."""
    with torch.inference_mode():
        plain, _ = model.predict_probabilities(images.to(model.device), tta=False)
        return model.calibrated(plain, tta=False).cpu()
