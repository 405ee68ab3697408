"""Binary cross-entropy per label."""

from typing import ClassVar, Literal

from visionforge.config.schema.base import Task
from visionforge.config.schema.components import register
from visionforge.config.schema.model import Loss


@register
class BinaryCrossEntropy(Loss):
    """Binary cross-entropy of each label of multi-label data."""

    position: ClassVar[int] = 3
    tasks: ClassVar[tuple[Task, ...]] = ("multi-label",)

    name: Literal["bce"] = "bce"
