"""The losses that a detector brings itself."""

from typing import ClassVar, Literal

from visionforge.config.schema.components import register
from visionforge.config.schema.model import Loss


@register
class DetectorLosses(Loss):
    """The sum of the detector's own losses, of classes and of boxes; it has no class weights and no label smoothing."""

    position: ClassVar[int] = 15
    tasks: ClassVar[tuple[str, ...]] = ("boxes",)
    weighs: ClassVar[bool] = False

    name: Literal["detector"] = "detector"
