"""The network with everything around it: pixels in, the probabilities that `predict` gives out."""

import copy

import torch
from torch import Tensor, nn

from visionforge.data.info import DomainFlags
from visionforge.errors import RunError
from visionforge.inference.contract import Contract
from visionforge.training.classifier import ImageClassifier
from visionforge.training.criterion import cumulative_probabilities
from visionforge.training.tta import View, named_views

_ALL = DomainFlags(hflip=True, vflip=True, dflip=True, rotation="any", texture_is_label=True, colour_is_label=True)


class ExportedClassifier(nn.Module):
    """From pixels (N, C, R, R) to calibrated probabilities (N, K), averaged over the views of the contract.

    Volumes are (N, C, R, R, R). Of pixels the probabilities are (N, K, R, R).
    The same as what `predict` gives, in operations that every format has; the weights are float32, whatever the
    precision of the training was.

    Args:
        model: The model; its modules are copied.
        contract: What the artifact takes and gives.

    Raises:
        RunError: If the contract names a view that there is not.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, model: ImageClassifier, contract: Contract) -> None:
        super().__init__()
        assert model.network is not None
        self.network = copy.deepcopy(model.network).cpu().float().to(memory_format=torch.contiguous_format)
        self.cumulative = None if model.cumulative is None else copy.deepcopy(model.cumulative).cpu().float()
        spec = contract.spec
        scale = 255.0 if contract.input == "uint8" else 1.0
        each = (1, -1, *(1,) * spec.spatial_dims)
        self.register_buffer("mean", torch.tensor(spec.mean).view(each) * scale)
        self.register_buffer("std", torch.tensor(spec.std).view(each) * scale)
        self._views, self._names, self._resolution = views_named(contract), contract.views, spec.resolution
        self._weight = contract.settings.tta_weight
        self._task = spec.kind
        self._temperature = contract.temperature
        self.eval()
        self.requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        """Return (N, K) probabilities."""
        inputs = (images.to(torch.float32) - self.mean) / self.std
        if len(self._views) == 1:
            return self._calibrated(self._probabilities(inputs))
        each = self._probabilities(torch.cat([view(inputs) for view in self._views]))
        views = each.reshape(len(self._views), -1, *each.shape[1:])
        return self._calibrated(self._task.merged(self._names, views, self._weight, self._resolution))

    def _probabilities(self, inputs: Tensor) -> Tensor:
        logits: Tensor = self.network(inputs)
        if self.cumulative is None:
            return self._task.probabilities(logits)
        return cumulative_probabilities(self.cumulative(logits))

    def _calibrated(self, given: Tensor) -> Tensor:
        """Divide the logits of probabilities by the temperature, as `training.calibration.scale` does."""
        if self._temperature is None:
            return given
        return self._task.probabilities(self._task.logits(given) / self._temperature)


def views_named(contract: Contract) -> list[View]:
    """Return the views that a contract names.

    Raises:
        RunError: If there is no such view, or one is named twice; contracts come with files of strangers.
    """
    known = named_views(contract.spec.model_copy(update={"flags": _ALL}), "full", contract.spec.resolution)
    names = contract.views
    if not names or names[0] != "identity" or len(set(names)) < len(names) or not set(names) <= set(known):
        raise RunError(f"the artifact's views are {', '.join(names) or 'none'}; allowed: {', '.join(known)}")
    return [known[name] for name in names]
