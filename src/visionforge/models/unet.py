"""U-Net's decoder (Ronneberger et al., 2015, arXiv:1505.04597) over the feature maps of any backbone."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from visionforge.models.decoder_layers import batch_norm, classifier, convolution, he_normal, resize

WIDEST = 256  # channels of a level


class UNetDecoder(nn.Module):
    """Enlarges the coarsest map level by level, each time joined with the encoder's map of that size.

    A level interpolates what comes from below to the size of its own map, concatenates the two, and has two blocks of
    3×3 convolution, batch normalisation and ReLU. Where the finest map is coarser than the image, one more level
    without a map brings the image's size.

    Args:
        channels: Of each feature map, from the finest to the coarsest; at least two.
        strides: Input pixels per pixel of each map.
        outputs: Number of logits K.
        width: Channels at the finest level; they double at each one below, up to 256.
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
        joined = list(channels[:-1]) if strides[0] == 1 else [0, *channels[:-1]]
        below, levels = channels[-1], []
        for level, own in reversed(list(enumerate(joined))):
            wide = min(width * 2**level, WIDEST)
            levels.append(_two_convolutions(spatial_dims, own + below, wide))
            below = wide
        self.levels = nn.ModuleList(levels)  # from the coarsest to the finest
        self.classifier = classifier(spatial_dims, below, outputs, dropout)
        he_normal(self)

    def forward(self, maps: list[Tensor], sides: Sequence[int]) -> Tensor:
        """Map feature maps, from the finest to the coarsest, to logits (N, K, *sides)."""
        found, joined = maps[-1], maps[-2::-1]
        for position, level in enumerate(self.levels):
            if position < len(joined):
                own = joined[position]
                found = torch.cat([own, resize(found, own.shape[2:])], dim=1)
            else:
                found = resize(found, sides)
            found = level(found)
        return resize(self.classifier(found), sides)


def _two_convolutions(spatial_dims: int, inputs: int, outputs: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for given in (inputs, outputs):
        layers += [
            convolution(spatial_dims, given, outputs, kernel=3, bias=False),
            batch_norm(spatial_dims, outputs),
            nn.ReLU(inplace=True),
        ]
    return nn.Sequential(*layers)
