"""Networks and weight files for the tests of backbones."""

from pathlib import Path

import torch
import torchvision
from torch import nn

from visionforge.config.schema import Backbone
from visionforge.models.build import build_network


def build(
    name: str = "resnet18", channels: int = 3, classes: int = 10, resolution: int = 28, **changes: object
) -> nn.Module:
    """Return a backbone, without pretrained weights unless `weights` names some."""
    settings = Backbone.model_validate({"name": name, "pretrained": "weights" in changes, **changes})
    return build_network(settings, channels, classes, resolution)[0]


def trained(network: nn.Module, side: int = 64) -> nn.Module:
    """Give batch normalisation statistics that are not trivial, as after a training; returns it in eval mode."""
    network.train()
    with torch.no_grad():
        network(torch.randn(8, 3, side, side))
    return network.eval()


def published(name: str) -> nn.Module:
    """Return torchvision's network with random weights that differ from their initial pattern, in eval mode."""
    torch.manual_seed(1)
    network = torchvision.models.get_model(name, weights=None).eval()
    with torch.no_grad():
        for tensor in network.state_dict().values():
            if tensor.ndim == 1 and tensor.is_floating_point():
                tensor += 0.1 * torch.rand_like(tensor)
    return network


def saved(network: nn.Module, path: Path) -> str:
    """Write a network's state dict to a file and return its path."""
    torch.save(network.state_dict(), path)
    return str(path)


def last_linear(network: nn.Module) -> nn.Linear:
    """Return the classifier."""
    return [module for module in network.modules() if isinstance(module, nn.Linear)][-1]


def copy_classifier(source: nn.Module, target: nn.Module) -> None:
    """Give `target` the classifier of `source`."""
    last_linear(target).load_state_dict(last_linear(source).state_dict())
