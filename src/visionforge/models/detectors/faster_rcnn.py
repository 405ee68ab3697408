"""Detection with anchors, in two stages."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from visionforge.config.schema.components import register
from visionforge.config.schema.model import AnchorScale, Detector

if TYPE_CHECKING:
    from torch import nn


@register
class FasterRcnn(Detector):
    """Faster R-CNN (Ren et al., 2015, arXiv:1506.01497): regions are proposed, cut out of the maps and classified."""

    position: ClassVar[int] = 3

    name: Literal["faster_rcnn"] = "faster_rcnn"
    anchor_scale: AnchorScale = 4.0
    representation: int = Field(
        default=256, ge=32, le=2048, description="Units of the two layers by which faster_rcnn looks at a region."
    )

    def build(self, strides: Sequence[int], classes: int, resolution: int) -> "nn.Module":
        """Return the detector with random weights."""
        from visionforge.models.detector_heads import faster_rcnn_head

        return faster_rcnn_head(self, strides, classes, self.anchor_scale, self.representation)
