"""The feature pyramid."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

from visionforge.config.schema.components import register
from visionforge.config.schema.model import Decoder, DecoderWidth

if TYPE_CHECKING:
    from torch import nn


@register
class Fpn(Decoder):
    """A feature pyramid (Lin et al., 2017, arXiv:1612.03144) whose levels are summed (Kirillov et al., 2019)."""

    position: ClassVar[int] = 2

    name: Literal["fpn"] = "fpn"
    width: DecoderWidth = 64

    def build(
        self, channels: Sequence[int], strides: Sequence[int], outputs: int, spatial_dims: int = 2
    ) -> "nn.Module":
        """Return the decoder with random weights."""
        from visionforge.models.fpn import FpnDecoder

        return FpnDecoder(channels, strides, outputs, self.width, self.dropout, spatial_dims)
