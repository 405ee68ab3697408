"""The layer of a network that gives its logits, and what may stand in its place."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from visionforge.errors import SettingsError, WeightsError
from visionforge.models.feature_heads import FeatureHead, StoredHead, head_from_file
from visionforge.training.ensemble import read_each

LastLayer = nn.Linear | FeatureHead


def last_layer_of(network: nn.Module, head: tuple[str, ...]) -> tuple[str, LastLayer] | None:
    """Return name and module of the layer of features (N, D) that gives the logits; None if there is none.

    Args:
        network: With a classifier.
        head: Prefixes of the classifier's parameters.
    """
    found = [
        (name, module)
        for name, module in network.named_modules()
        if isinstance(module, LastLayer) and f"{name}.".startswith(head)
    ]
    return found[-1] if found else None


def place_head(network: nn.Module, name: str, head: nn.Module) -> None:
    """Let a fitted classifier of features give the logits.

    Args:
        network: Whose last layer it becomes.
        name: Of that layer.
        head: A linear layer, whose weights the network's own takes, or a `FeatureHead`.

    Raises:
        SettingsError: If the network's layer has no intercepts to take.
    """
    layer = network.get_submodule(name)
    if isinstance(head, nn.Linear):
        if not isinstance(layer, nn.Linear) or layer.bias is None:
            raise SettingsError(
                f"model.backbone.name: its last layer ({name}) has no intercepts, which a classifier needs"
            )
        with torch.no_grad():
            layer.weight.copy_(head.weight)
            layer.bias.copy_(head.bias)
        return
    place = next(layer.parameters()).device
    network.set_submodule(name, head.to(place))


def restored_head(
    network: nn.Module, head: tuple[str, ...], stored: StoredHead, brought: Mapping[str, Tensor], outputs: int
) -> None:
    """Put the classifier of a file in the place of a network's last layer, before its tensors are loaded.

    Args:
        network: As it is built without it.
        head: Prefixes of the classifier's parameters.
        stored: What the file says of it.
        brought: The tensors of the file.
        outputs: Number of logits.

    Raises:
        WeightsError: If it is of another network.
    """
    found = last_layer_of(network, head)
    if found is None:
        raise WeightsError("it has a classifier of features, and its network has none that this could replace")
    name, layer = found
    kinds = (each for kind in FeatureHead.__subclasses__() for each in kind.buffers_of)
    buffers = dict.fromkeys(kinds)
    tensors = {
        buffer: tensor
        for key, tensor in brought.items()
        for buffer in buffers
        if f".{key}".endswith(f".{name}.{buffer}")
    }
    try:
        network.set_submodule(name, head_from_file(stored, tensors, layer.in_features, outputs))
    except ValueError as error:
        raise WeightsError(str(error)) from error


def read_heads(given: Any) -> tuple[StoredHead | None, ...]:
    """Return what a checkpoint of a stranger says of the classifiers of its networks; none of ordinary ones.

    Raises:
        WeightsError: If it cannot be used.
    """
    return read_each(given, StoredHead, "heads")
