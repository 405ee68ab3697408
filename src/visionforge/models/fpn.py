"""A feature pyramid (Lin et al., 2017, arXiv:1612.03144) with a branch for masks (Kirillov et al., 2019)."""

import math
from collections.abc import Sequence

from torch import Tensor, nn

from visionforge.models.decoder_layers import classifier, convolution, he_normal, resize

GROUP = 8  # channels that are normalised together, as with the 32 groups of 256 channels of Wu and He (2018)


class FpnDecoder(nn.Module):
    """Brings every map to the same width, adds the coarser ones to the finer ones, and sums all at the finest size.

    Each level has a 1×1 convolution of the encoder's map; to it is added what the level below has, enlarged, and a 3×3
    convolution follows. The branch for masks (Kirillov et al., arXiv:1901.02446, section 3) then takes each level to
    the finest size in steps of two, each a 3×3 convolution, group normalisation, ReLU and an enlargement; the finest
    level has one such step without it. Their sum is classified and interpolated to the size of the images.

    Args:
        channels: Of each feature map, from the finest to the coarsest.
        strides: Input pixels per pixel of each map, powers of two.
        outputs: Number of logits K.
        width: Channels of every level.
        dropout: Dropout probability of the channels in front of the classifier.
        spatial_dims: 2 for images, 3 for volumes.
    """

    def __init__(
        self,
        channels: Sequence[int],
        strides: Sequence[int],
        outputs: int,
        width: int,
        dropout: float,
        spatial_dims: int = 2,
    ) -> None:
        super().__init__()
        steps = [max(1, round(math.log2(stride / strides[0]))) for stride in strides]
        self.lateral = nn.ModuleList(convolution(spatial_dims, given, width, kernel=1) for given in channels)
        self.smooth = nn.ModuleList(convolution(spatial_dims, width, width, kernel=3) for _ in channels)
        self.branches = nn.ModuleList(
            nn.ModuleList(_convolution_and_norm(spatial_dims, width) for _ in range(count)) for count in steps
        )
        self.classifier = classifier(spatial_dims, width, outputs, dropout)
        he_normal(self)

    def forward(self, maps: list[Tensor], sides: Sequence[int]) -> Tensor:
        """Map feature maps, from the finest to the coarsest, to logits (N, K, *sides)."""
        levels = [lateral(given) for lateral, given in zip(self.lateral, maps, strict=True)]
        for position in reversed(range(len(levels) - 1)):
            below = resize(levels[position + 1], levels[position].shape[2:])
            levels[position] = levels[position] + below
        finest = levels[0].shape[2:]
        total = None
        for level, smooth, branch in zip(levels, self.smooth, self.branches, strict=True):
            found = smooth(level)
            assert isinstance(branch, nn.ModuleList)
            for left, step in reversed(list(enumerate(branch))):
                # twice as large each time, and in the end exactly as large as the finest
                twice = [min(2 * int(side), int(most)) for side, most in zip(found.shape[2:], finest, strict=True)]
                found = resize(step(found), twice if left else finest)
            total = found if total is None else total + found
        return resize(self.classifier(total), sides)


def _convolution_and_norm(spatial_dims: int, width: int) -> nn.Sequential:
    return nn.Sequential(
        convolution(spatial_dims, width, width, kernel=3, bias=False),
        nn.GroupNorm(math.gcd(width, width // GROUP), width),  # groups are a little larger where 8 does not divide it
        nn.ReLU(inplace=True),
    )
