"""Semantic segmentation: the class of every pixel."""

from typing import ClassVar

from visionforge.config.schema.tasks import register_task
from visionforge.tasks.masks import MaskTask


@register_task
class Segmentation(MaskTask):
    """Masks of classes that exclude each other."""

    name: ClassVar[str] = "segmentation"
    position: ClassVar[int] = 5
