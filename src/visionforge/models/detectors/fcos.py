"""Detection without anchors."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from visionforge.config.schema.components import register
from visionforge.config.schema.model import Detector

if TYPE_CHECKING:
    from torch import nn


@register
class Fcos(Detector):
    """FCOS (Tian et al., 2019, arXiv:1904.01355): every place of a map says how far the sides of its object are."""

    position: ClassVar[int] = 1

    name: Literal["fcos"] = "fcos"
    depth: int = Field(default=2, ge=1, le=8, description="3×3 convolutions of each branch of the head of fcos.")

    def build(self, strides: Sequence[int], classes: int, resolution: int) -> "nn.Module":
        """Return the detector with random weights."""
        from visionforge.models.detector_heads import fcos_head

        return fcos_head(self, strides, classes, self.depth)
