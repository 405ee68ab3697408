"""Cross-entropy of classes that exclude each other."""

from typing import ClassVar, Literal

from visionforge.config.schema.components import register
from visionforge.config.schema.model import Loss


@register
class CrossEntropy(Loss):
    """Cross-entropy of classes that exclude each other, of images or of their pixels."""

    position: ClassVar[int] = 2
    tasks: ClassVar[tuple[str, ...]] = ("classes", "masks")

    name: Literal["cross_entropy"] = "cross_entropy"
