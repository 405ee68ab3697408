"""U-Net's way up."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

from visionforge.config.schema.components import register
from visionforge.config.schema.model import Decoder, DecoderWidth

if TYPE_CHECKING:
    from torch import nn


@register
class UNet(Decoder):
    """U-Net (Ronneberger et al., 2015, arXiv:1505.04597): every map joined to the one below, then two convolutions."""

    position: ClassVar[int] = 1

    name: Literal["unet"] = "unet"
    width: DecoderWidth = 32

    def build(
        self, channels: Sequence[int], strides: Sequence[int], outputs: int, spatial_dims: int = 2
    ) -> "nn.Module":
        """Return the decoder with random weights."""
        from visionforge.models.unet import UNetDecoder

        return UNetDecoder(channels, strides, outputs, self.width, self.dropout, spatial_dims)
