"""A network for small images on small machines: most of what it computes are 3×3 convolutions of small maps."""

from torch import Tensor, nn

from visionforge.models.pooled import PooledClassifier

WIDTHS = (32, 64, 128, 256)
RESIDUAL = (64, 256)  # widths of the stages that end in a residual block


def _layers(in_channels: int, width: int, *, pooled: bool = False) -> list[nn.Module]:
    """Return convolution, pooling, batch normalisation and ReLU; pooled first, the last two have a quarter to do."""
    pooling = [nn.MaxPool2d(2)] if pooled else []
    convolution = nn.Conv2d(in_channels, width, kernel_size=3, padding=1, bias=False)
    return [convolution, *pooling, nn.BatchNorm2d(width), nn.ReLU(inplace=True)]


class Residual(nn.Module):
    """Two 3×3 convolutions whose result is added to what they were given.

    Args:
        width: Channels, of the maps that come in and of those that go out.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(*_layers(width, width), *_layers(width, width))

    def forward(self, maps: Tensor) -> Tensor:
        """Map (N, width, H, W) to the same shape."""
        changed: Tensor = maps + self.layers(maps)
        return changed


class FastNet(PooledClassifier):
    """Four stages of 32 to 256 channels, the maps pooled to half the side from each to the next, two residual blocks.

    The shape is that of the small residual networks with which CIFAR-10 is learnt in the shortest time (Page, 2019;
    Jordan, 2024, arXiv:2404.00498), with a third of their channels.

    Args:
        in_channels: Channels of the images.
        num_classes: Number of logits K.
        dropout: Dropout probability in front of the classifier.
    """

    def __init__(self, in_channels: int, num_classes: int, dropout: float) -> None:
        stages: list[nn.Module] = []
        channels = in_channels
        for index, width in enumerate(WIDTHS):
            layers = _layers(channels, width, pooled=index > 0)
            stages.append(nn.Sequential(*layers, *([Residual(width)] if width in RESIDUAL else [])))
            channels = width
        super().__init__(nn.Sequential(*stages), channels, num_classes, dropout)


def build_fastnet(*, in_channels: int, num_classes: int, dropout: float, resolution: int, scale: int) -> FastNet:
    """Build a `FastNet`; its stem keeps the resolution at every size, so there is nothing to adapt."""
    return FastNet(in_channels, num_classes, dropout)
