"""Object detection: a box around every object, and its class."""

from typing import ClassVar

from visionforge.config.schema.tasks import register_task
from visionforge.tasks.boxes import BoxTask


@register_task
class Detection(BoxTask):
    """Boxes of classes; an image may have none."""

    name: ClassVar[str] = "detection"
    position: ClassVar[int] = 6
