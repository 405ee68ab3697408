"""Detection with anchors, in one stage."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

from visionforge.config.schema.components import register
from visionforge.config.schema.model import AnchorScale, Detector

if TYPE_CHECKING:
    from torch import nn


@register
class RetinaNet(Detector):
    """RetinaNet (Lin et al., 2017, arXiv:1708.02002): nine anchors at every place, and the focal loss."""

    position: ClassVar[int] = 2

    name: Literal["retinanet"] = "retinanet"
    anchor_scale: AnchorScale = 4.0

    def build(self, strides: Sequence[int], classes: int, resolution: int) -> "nn.Module":
        """Return the detector with random weights."""
        from visionforge.models.detector_heads import retinanet_head

        return retinanet_head(self, strides, classes, self.anchor_scale)
