"""Binary cross-entropy per label."""

from typing import ClassVar, Literal

from visionforge.config.schema.components import register
from visionforge.config.schema.model import Loss


@register
class BinaryCrossEntropy(Loss):
    """Binary cross-entropy of each label, where labels do not exclude each other."""

    position: ClassVar[int] = 3
    tasks: ClassVar[tuple[str, ...]] = ("labels",)

    name: Literal["bce"] = "bce"
