"""ConvNeXt with overlapping patches for small images."""

from torch import nn
from torchvision.models import ConvNeXt, convnext_tiny

from visionforge.models.surgery import replace_convolution


def build_convnext_tiny(*, in_channels: int, num_classes: int, dropout: float, resolution: int, scale: int) -> ConvNeXt:
    """Build torchvision's ConvNeXt-T with random weights, and a stem that fits the resolution.

    The standard stem cuts the image into patches of 4×4 pixels. At scale 2 the same kernel moves by 2 pixels, so that
    patches overlap; at scale 4 it becomes 3×3 with stride 1, and the first stage sees every pixel.

    Args:
        in_channels: Channels of the images.
        num_classes: Number of logits K.
        dropout: Dropout probability in front of the classifier.
        resolution: Height and width in pixels; every size goes.
        scale: What the downsampling of 4 is divided by.

    Returns:
        A network from (N, in_channels, H, W) to (N, K).
    """
    network = convnext_tiny(weights=None)
    stem = network.features[0]
    geometry = {1: {}, 2: {"stride": 2, "padding": 1}, 4: {"kernel": 3, "stride": 1, "padding": 1}}[scale]
    stem[0] = replace_convolution(stem[0], in_channels, **geometry)
    classifier = nn.Linear(network.classifier[2].in_features, num_classes)
    for layer in (stem[0], classifier):
        nn.init.trunc_normal_(layer.weight, std=0.02)
        assert layer.bias is not None
        nn.init.zeros_(layer.bias)
    network.classifier[2] = nn.Sequential(nn.Dropout(dropout), classifier)
    return network
