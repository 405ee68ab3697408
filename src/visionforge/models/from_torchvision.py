"""Any classification model of torchvision as a backbone, unchanged but for input channels and classifier."""

from functools import cache

from torch import nn
from torchvision import models

from visionforge.models.entry import BackboneEntry
from visionforge.models.surgery import replace_convolution


@cache
def names() -> list[str]:
    """Return the names of torchvision's classification models."""
    found: list[str] = models.list_models(module=models)
    return found


def entry(model: str) -> BackboneEntry:
    """Return the registry entry of a model by its torchvision name."""

    def build(*, in_channels: int, num_classes: int, dropout: float, resolution: int, scale: int) -> nn.Module:
        return build_torchvision(model, in_channels, num_classes, dropout, resolution)

    return BackboneEntry(
        name=f"torchvision/{model}",
        builder=build,
        description=f"torchvision's {model}, its stem unchanged",
        stride=int(model.rpartition("_")[2]) if model.startswith("vit_") else 32,
        fixed_size=model.startswith(("vit_", "maxvit_")),
        patch=int(model.rpartition("_")[2]) if model.startswith("vit_") else 1,
        min_resolution=32,
        min_resolution_standard=32,
        weights=models.get_model_weights(model).__name__,
    )


def build_torchvision(model: str, in_channels: int, num_classes: int, dropout: float, resolution: int) -> nn.Module:
    """Build a torchvision model with random weights.

    Args:
        model: torchvision's name.
        in_channels: Channels of the images; other than 3 replaces the first convolution.
        num_classes: Number of logits K.
        dropout: Dropout probability in front of the last linear layer, on top of what the model has.
        resolution: Height and width in pixels, which vision transformers must know.

    Returns:
        A network from (N, in_channels, H, W) to (N, K).
    """
    extra: dict[str, object] = {}
    if model.startswith("vit_"):
        extra["image_size"] = resolution
    if model.startswith("maxvit_"):
        extra["input_size"] = (resolution, resolution)
    if model in ("googlenet", "inception_v3"):
        extra |= {"aux_logits": False, "init_weights": True}
    network: nn.Module = models.get_model(model, weights=None, num_classes=num_classes, **extra)
    if in_channels != 3:
        name, convolution = next((n, m) for n, m in network.named_modules() if isinstance(m, nn.Conv2d))
        network.set_submodule(name, replace_convolution(convolution, in_channels))
    if dropout > 0:
        name, last = _last_layer(network)
        network.set_submodule(name, nn.Sequential(nn.Dropout(dropout), last))
    return network


def _last_layer(network: nn.Module) -> tuple[str, nn.Module]:
    layers = [(n, m) for n, m in network.named_modules() if isinstance(m, (nn.Linear, nn.Conv2d))]
    return layers[-1]
