"""Focal loss."""

from typing import ClassVar, Literal

from pydantic import Field

from visionforge.config.schema.components import register
from visionforge.config.schema.model import Loss


@register
class Focal(Loss):
    """The focal loss (Lin et al., 2017, arXiv:1708.02002), in which what is right already counts less."""

    position: ClassVar[int] = 4
    tasks: ClassVar[tuple[str, ...]] = ("classes", "labels", "masks")

    name: Literal["focal"] = "focal"
    focal_gamma: float = Field(
        default=2.0, ge=0.0, le=10.0, description="Focusing exponent of the focal loss; 0 is cross-entropy."
    )
