"""EfficientNet-Lite0: EfficientNet-B0 for devices without a GPU, made of torchvision's blocks."""

from functools import partial

from torch import nn
from torchvision.models import EfficientNet
from torchvision.models.efficientnet import MBConv, MBConvConfig

from visionforge.models.efficientnet import adapt
from visionforge.models.same_padding import pad_as_tensorflow

# Expansion, kernel, stride, input channels, output channels, blocks of each stage: those of EfficientNet-B0 (Tan and
# Le, 2019, table 1). Larger Lite networks keep its stem of 32 and its head of 1280 channels.
STAGES = (
    (1, 3, 1, 32, 16, 1),
    (6, 3, 2, 16, 24, 2),
    (6, 5, 2, 24, 40, 2),
    (6, 3, 2, 40, 80, 3),
    (6, 5, 1, 80, 112, 3),
    (6, 5, 2, 112, 192, 4),
    (6, 3, 1, 192, 320, 1),
)
HEAD_CHANNELS = 1280
EPSILON = 1e-3  # of TensorFlow's batch normalisation, which the published weights were trained with


def build_efficientnet_lite0(
    *, in_channels: int, num_classes: int, dropout: float, resolution: int, scale: int
) -> EfficientNet:
    """Build EfficientNet-Lite0 with random weights, and later downsampling for small images as `adapt` has it.

    It differs from B0 in three things (Liu, 2020, "Higher accuracy on vision models with EfficientNet-Lite"): ReLU6 in
    place of SiLU, no squeeze-and-excitation, and the padding of TensorFlow where a convolution has a stride.

    Args:
        in_channels: Channels of the images.
        num_classes: Number of logits K.
        dropout: Dropout probability in front of the classifier.
        resolution: Height and width in pixels; any will do.
        scale: What the downsampling of stem and second stage is divided by.

    Returns:
        A network from (N, in_channels, H, W) to (N, K).
    """
    block = partial(MBConv, se_layer=nn.Identity)  # an identity takes any arguments
    network = EfficientNet(
        [MBConvConfig(*stage, block=block) for stage in STAGES],
        dropout=dropout,
        last_channel=HEAD_CHANNELS,
        norm_layer=partial(nn.BatchNorm2d, eps=EPSILON),
    )
    for name, module in list(network.named_modules()):
        if isinstance(module, nn.SiLU):
            network.set_submodule(name, nn.ReLU6(inplace=True))
    pad_as_tensorflow(network)
    return adapt(network, in_channels, num_classes, dropout, scale)
