"""ResNet-18 with a stem that fits small images."""

from torch import nn
from torchvision.models import ResNet, resnet18


def build_resnet18(*, in_channels: int, num_classes: int, dropout: float, small: bool) -> ResNet:
    """Build torchvision's ResNet-18 with random weights, dropout in front of the classifier, and the wanted stem.

    The standard stem (7×7 convolution with stride 2, then a max-pool with stride 2) leaves a quarter of the height and
    width. The small stem (3×3, stride 1, padding 1, no pooling) keeps them (He et al., 2016, section 4.2, for 32×32
    images).

    Args:
        in_channels: Channels of the images.
        num_classes: Number of logits K.
        dropout: Dropout probability in front of the classifier.
        small: Use the small stem.

    Returns:
        A network from (N, in_channels, H, W) to (N, K).
    """
    network = resnet18(weights=None)
    if small:
        network.conv1 = nn.Conv2d(in_channels, 64, kernel_size=3, stride=1, padding=1, bias=False)
        network.maxpool = nn.Identity()
    elif in_channels != 3:
        network.conv1 = nn.Conv2d(in_channels, 64, kernel_size=7, stride=2, padding=3, bias=False)
    nn.init.kaiming_normal_(network.conv1.weight, mode="fan_out", nonlinearity="relu")
    network.fc = nn.Sequential(nn.Dropout(dropout), nn.Linear(network.fc.in_features, num_classes))
    return network
