"""Cross-entropy of classes that exclude each other."""

from typing import ClassVar, Literal

from visionforge.config.schema.components import register
from visionforge.config.schema.model import Loss


@register
class CrossEntropy(Loss):
    """Cross-entropy of classes that exclude each other."""

    position: ClassVar[int] = 2
    tasks: ClassVar[tuple[str, ...]] = ("classes",)

    name: Literal["cross_entropy"] = "cross_entropy"
