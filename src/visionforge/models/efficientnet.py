"""EfficientNets that downsample later on small images."""

import re
from collections.abc import Mapping

from torch import Tensor, nn
from torchvision.models import EfficientNet, efficientnet_b0, efficientnet_v2_s

from visionforge.models.surgery import remove_stride, replace_convolution


def adapt(network: EfficientNet, in_channels: int, num_classes: int, dropout: float, scale: int) -> EfficientNet:
    """Give an EfficientNet with random weights later downsampling for small images, and a classifier, in place.

    The stem and the second stage each halve the height and width. At scale 2 the stem keeps them, at scale 4 the second
    stage does so too. No kernel changes its size, so pretrained ones fit as they are.

    Args:
        network: torchvision's network.
        in_channels: Channels of the images.
        num_classes: Number of logits K.
        dropout: Dropout probability in front of the classifier.
        scale: What the downsampling of stem and second stage is divided by.

    Returns:
        The network, from (N, in_channels, H, W) to (N, K).
    """
    stem = network.features[0]
    stem[0] = replace_convolution(stem[0], in_channels, stride=1 if scale > 1 else None)
    nn.init.kaiming_normal_(stem[0].weight, mode="fan_out")
    if scale == 4:
        remove_stride(network.features[2])
    classifier = nn.Linear(network.classifier[1].in_features, num_classes)
    nn.init.zeros_(classifier.bias)
    network.classifier = nn.Sequential(nn.Dropout(dropout), classifier)
    return network


def build_efficientnet_b0(
    *, in_channels: int, num_classes: int, dropout: float, resolution: int, scale: int
) -> EfficientNet:
    """Build EfficientNet-B0; see `adapt`."""
    return adapt(efficientnet_b0(weights=None), in_channels, num_classes, dropout, scale)


def build_efficientnet_v2_s(
    *, in_channels: int, num_classes: int, dropout: float, resolution: int, scale: int
) -> EfficientNet:
    """Build EfficientNetV2-S; see `adapt`."""
    return adapt(efficientnet_v2_s(weights=None), in_channels, num_classes, dropout, scale)


# timm's names of the parts of a block with an expansion, in the order of torchvision's; the first stage has none
_TIMM_PARTS = ("conv_pw", "bn1", "conv_dw", "bn2", "se", "conv_pwl", "bn3")
_TIMM_PARTS_FIRST = ("conv_dw", "bn1", "se", "conv_pw", "bn2")
_TIMM_OTHERS = {
    "conv_stem": "features.0.0",
    "bn1": "features.0.1",
    "conv_head": "features.8.0",
    "bn2": "features.8.1",
    "classifier": "classifier.1",
}
_TIMM_BLOCK = re.compile(r"blocks\.(\d+)\.(\d+)\.(\w+)\.(.+)")


def rename_timm(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the state dict of timm's EfficientNet-B0 or Lite0 under torchvision's names; other names stay."""
    return {_torchvision_name(name): value for name, value in state.items()}


def _torchvision_name(name: str) -> str:
    block = _TIMM_BLOCK.fullmatch(name)
    if block is None:
        part, _, rest = name.partition(".")
        return f"{_TIMM_OTHERS[part]}.{rest}" if part in _TIMM_OTHERS and not rest.startswith("1.") else name
    stage, number, part, rest = block.groups()
    parts = _TIMM_PARTS_FIRST if stage == "0" else _TIMM_PARTS
    if part not in parts:
        return name
    before = parts[: parts.index(part)]
    place = sum(each.startswith(("conv", "se")) for each in before)
    if part.startswith("bn"):  # beside its convolution
        where = f"{place - 1}.1"
    elif part == "se":
        where = str(place)
        rest = rest.replace("conv_reduce", "fc1").replace("conv_expand", "fc2")
    else:
        where = f"{place}.0"
    return f"features.{int(stage) + 1}.{number}.block.{where}.{rest}"
