"""A small convolutional network that trains in seconds on a CPU."""

from torch import nn

from visionforge.models.pooled import PooledClassifier

WIDTHS = (32, 64, 128)


class MiniCNN(PooledClassifier):
    """Three blocks of 3×3 convolution, batch normalisation and ReLU, pooled between; then a linear classifier.

    Args:
        in_channels: Channels of the images.
        num_classes: Number of logits K.
        dropout: Dropout probability in front of the classifier.
    """

    def __init__(self, in_channels: int, num_classes: int, dropout: float) -> None:
        layers: list[nn.Module] = []
        channels = in_channels
        for index, width in enumerate(WIDTHS):
            if index:
                layers.append(nn.MaxPool2d(2))
            layers += [
                nn.Conv2d(channels, width, kernel_size=3, padding=1, bias=False),
                nn.BatchNorm2d(width),
                nn.ReLU(inplace=True),
            ]
            channels = width
        super().__init__(nn.Sequential(*layers), channels, num_classes, dropout)


def build_mini_cnn(*, in_channels: int, num_classes: int, dropout: float, resolution: int, scale: int) -> MiniCNN:
    """Build a `MiniCNN`; its stem keeps the resolution at every size, so there is nothing to adapt."""
    return MiniCNN(in_channels, num_classes, dropout)
