"""Black and white again, for masks whose edges the resampling has made grey."""

from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from visionforge.config.schema.components import register
from visionforge.config.schema.data import AugmentationOperation

if TYPE_CHECKING:
    from torch import Tensor

    from visionforge.data.draws import Draws


@register
class Threshold(AugmentationOperation):
    """Every value becomes black or white: masks keep the sharp edges that they have in validation and test."""

    position: ClassVar[int] = 3
    by_image: ClassVar[bool] = True

    name: Literal["threshold"] = "threshold"
    level: float = Field(
        default=0.5, gt=0.0, lt=1.0, description="Value from which on it becomes white, where black is 0 and white 1."
    )

    def build(self) -> "Callable[[Tensor, Draws], Tensor]":
        """Return the function that thresholds a batch; it draws nothing."""

        def threshold(images: "Tensor", draws: "Draws") -> "Tensor":
            return (images >= self.level).to(images.dtype)

        return threshold
