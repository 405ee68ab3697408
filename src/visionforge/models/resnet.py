"""ResNets with a stem that fits small images."""

from collections.abc import Callable

from torch import nn
from torchvision.models import ResNet, resnet18, resnet34, resnet50

from visionforge.models.surgery import replace_convolution


def _build(
    constructor: Callable[..., ResNet], in_channels: int, num_classes: int, dropout: float, scale: int
) -> ResNet:
    """Build torchvision's network with random weights, dropout in front of the classifier, and the wanted stem.

    The standard stem (7×7 convolution with stride 2, then a max-pool with stride 2) leaves a quarter of the height and
    width. At scale 2 the pooling is left out; at scale 4 the convolution becomes 3×3 with stride 1 as well, and the
    first stage sees every pixel (He et al., 2016, section 4.2, for 32×32 images).

    Args:
        constructor: torchvision's function.
        in_channels: Channels of the images.
        num_classes: Number of logits K.
        dropout: Dropout probability in front of the classifier.
        scale: What the downsampling of 4 is divided by.

    Returns:
        A network from (N, in_channels, H, W) to (N, K).
    """
    network = constructor(weights=None)
    if scale == 4:
        network.conv1 = replace_convolution(network.conv1, in_channels, kernel=3, stride=1, padding=1)
    else:
        network.conv1 = replace_convolution(network.conv1, in_channels)
    if scale > 1:
        network.maxpool = nn.Identity()
    nn.init.kaiming_normal_(network.conv1.weight, mode="fan_out", nonlinearity="relu")
    network.fc = nn.Sequential(nn.Dropout(dropout), nn.Linear(network.fc.in_features, num_classes))
    return network


def build_resnet18(*, in_channels: int, num_classes: int, dropout: float, resolution: int, scale: int) -> ResNet:
    """Build ResNet-18; see `_build`."""
    return _build(resnet18, in_channels, num_classes, dropout, scale)


def build_resnet34(*, in_channels: int, num_classes: int, dropout: float, resolution: int, scale: int) -> ResNet:
    """Build ResNet-34; see `_build`."""
    return _build(resnet34, in_channels, num_classes, dropout, scale)


def build_resnet50(*, in_channels: int, num_classes: int, dropout: float, resolution: int, scale: int) -> ResNet:
    """Build ResNet-50; see `_build`."""
    return _build(resnet50, in_channels, num_classes, dropout, scale)
