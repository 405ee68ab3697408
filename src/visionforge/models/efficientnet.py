"""EfficientNets that downsample later on small images."""

from collections.abc import Callable

from torch import nn
from torchvision.models import EfficientNet, efficientnet_b0, efficientnet_v2_s

from visionforge.models.surgery import remove_stride, replace_convolution


def _build(
    constructor: Callable[..., EfficientNet], in_channels: int, num_classes: int, dropout: float, scale: int
) -> EfficientNet:
    """Build torchvision's network with random weights, and later downsampling for small images.

    The stem and the second stage each halve the height and width. At scale 2 the stem keeps them, at scale 4 the second
    stage does so too. No kernel changes its size, so pretrained ones fit as they are.

    Args:
        constructor: torchvision's function.
        in_channels: Channels of the images.
        num_classes: Number of logits K.
        dropout: Dropout probability in front of the classifier.
        scale: What the downsampling of stem and second stage is divided by.

    Returns:
        A network from (N, in_channels, H, W) to (N, K).
    """
    network = constructor(weights=None)
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
    """Build EfficientNet-B0; see `_build`."""
    return _build(efficientnet_b0, in_channels, num_classes, dropout, scale)


def build_efficientnet_v2_s(
    *, in_channels: int, num_classes: int, dropout: float, resolution: int, scale: int
) -> EfficientNet:
    """Build EfficientNetV2-S; see `_build`."""
    return _build(efficientnet_v2_s, in_channels, num_classes, dropout, scale)
