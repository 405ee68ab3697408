"""The network with everything around it: pixels in, the probabilities that `predict` gives out."""

import copy

import torch
from torch import Tensor, nn

from visionforge.data.info import DomainFlags
from visionforge.data.resizing import Resizing
from visionforge.errors import RunError
from visionforge.inference.contract import Contract
from visionforge.models.feature_heads import FeatureHead
from visionforge.training.conformal import ConformalSets
from visionforge.training.criterion import cumulative_probabilities
from visionforge.training.ensemble import Ensemble, disagreement
from visionforge.training.outliers import OF_FEATURES, scores
from visionforge.training.task_network import TaskNetwork
from visionforge.training.tta import View, named_views

_ALL = DomainFlags(hflip=True, vflip=True, dflip=True, rotation="any", texture_is_label=True, colour_is_label=True)


class _PassingOn(nn.Linear):
    """A linear layer whose outputs (N, K + D) are its logits, and behind them what it was given."""

    def forward(self, given: Tensor) -> Tensor:
        """Return logits and features."""
        return torch.cat([super().forward(given), given], dim=1)


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

    def __init__(self, model: TaskNetwork, contract: Contract) -> None:
        super().__init__()
        assert model.network is not None
        self.network = copy.deepcopy(model.network).cpu().float().to(memory_format=torch.contiguous_format)
        self.cumulative = None if model.cumulative is None else copy.deepcopy(model.cumulative).cpu().float()
        spec = contract.spec
        scale = 255.0 if contract.input == "uint8" else 1.0
        each = (1, -1, *(1,) * spec.spatial_dims)
        self.register_buffer("mean", torch.tensor(spec.mean).view(each) * scale)
        self.register_buffer("std", torch.tensor(spec.std).view(each) * scale)
        self.resizing = None if contract.inputs else Resizing.of(spec)  # or each network by itself
        self._views, self._names, self._resolution = views_named(contract), contract.views, spec.resolution
        self._weight = contract.settings.tta_weight
        self._task = spec.kind
        self._temperature = contract.temperature
        self._sets = None if contract.sets is None else ConformalSets(**contract.sets.model_dump())
        self._ood = None if contract.ood is None else contract.ood.method
        self._tensors = self._keep_outliers(model, contract)
        self.eval()
        self.requires_grad_(False)

    def _keep_outliers(self, model: TaskNetwork, contract: Contract) -> tuple[str, ...]:
        """Take the tensors of the score in; let the last layer pass on what it is given, behind its logits."""
        if contract.ood is None or contract.ood.method not in OF_FEATURES:
            return ()
        assert model.outliers is not None
        for name, each in model.outliers.tensors.items():
            self.register_buffer(f"ood_{name}", each.detach().cpu().clone())
        found = model.last_layer_name
        assert found is not None
        layer = self.network.get_submodule(found)
        assert isinstance(layer, nn.Linear | FeatureHead)
        if isinstance(layer, FeatureHead):
            layer.passes_on = True
        else:
            layer.__class__ = _PassingOn
        self._logits = layer.out_features
        return tuple(model.outliers.tensors)

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Return (N, K) probabilities; with what else the contract names behind them, as a tuple."""
        inputs = (images.to(torch.float32) - self.mean) / self.std
        several = len(self._views) > 1
        seen = torch.cat([view(inputs) for view in self._views]) if several else inputs
        if self.resizing is not None:
            seen = self.resizing(seen)
        members: Tensor | None = None
        if isinstance(self.network, Ensemble):
            members = self.network.probabilities(seen)
            outputs: Tensor = self._task.logits(members.mean(dim=0))
        else:
            outputs = self.network(seen)
        features: Tensor | None = None
        if self._tensors:
            features = self._first(outputs[:, self._logits :])
            outputs = outputs[:, : self._logits]
        given = self._probabilities(outputs)
        if several:
            views = given.reshape(len(self._views), -1, *given.shape[1:])
            given = self._task.merged(self._names, views, self._weight, self._resolution)
        stated = self._calibrated(given)
        found = [stated]
        if self._sets is not None:
            found.append(self._sets.members(stated))
        if self._ood is not None:
            tensors = {name: getattr(self, f"ood_{name}") for name in self._tensors}
            found.append(scores(self._ood, tensors, self._first(outputs), features))
        if members is not None and self._task.calibrates:
            each = members.reshape(len(members), len(self._views), -1, members.shape[-1])[:, 0]
            found.append(disagreement(each, self._task.several))
        return stated if len(found) == 1 else tuple(found)

    def _first(self, outputs: Tensor) -> Tensor:
        """Return what belongs to the images themselves, which come first of their views."""
        if len(self._views) == 1:
            return outputs
        return outputs.reshape(len(self._views), -1, outputs.shape[1])[0]

    def _probabilities(self, logits: Tensor) -> Tensor:
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
