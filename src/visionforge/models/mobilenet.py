"""MobileNetV3 that downsamples later on small images."""

from functools import partial

from torch import nn
from torchvision.models import MobileNetV3, mobilenet_v3_small

from visionforge.models.surgery import remove_stride, replace_convolution

# torchvision's momentum of 0.01 needs some 500 steps until the running statistics are those of the images: more than
# many a training on a small data set has. 0.1 is what the other backbones have; the epsilon is torchvision's.
EPSILON, MOMENTUM = 1e-3, 0.1


def build_mobilenet_v3_small(
    *, in_channels: int, num_classes: int, dropout: float, resolution: int, scale: int
) -> MobileNetV3:
    """Build MobileNetV3-Small with random weights, and later downsampling for small images.

    The stem and the first block each halve the height and width. At scale 2 the stem keeps them, at scale 4 the first
    block does so too. No kernel changes its size, so pretrained ones fit as they are.

    Args:
        in_channels: Channels of the images.
        num_classes: Number of logits K.
        dropout: Dropout probability in front of the last linear layer; the one before it is part of the backbone.
        resolution: Height and width in pixels; any will do.
        scale: What the downsampling of stem and first block is divided by.

    Returns:
        A network from (N, in_channels, H, W) to (N, K).
    """
    network: MobileNetV3 = mobilenet_v3_small(
        weights=None, norm_layer=partial(nn.BatchNorm2d, eps=EPSILON, momentum=MOMENTUM)
    )
    stem = network.features[0]
    stem[0] = replace_convolution(stem[0], in_channels, stride=1 if scale > 1 else None)
    nn.init.kaiming_normal_(stem[0].weight, mode="fan_out")
    if scale == 4:
        remove_stride(network.features[1])
    classifier = nn.Linear(network.classifier[3].in_features, num_classes)
    nn.init.zeros_(classifier.bias)
    network.classifier[2], network.classifier[3] = nn.Dropout(dropout), classifier
    return network
