"""Any number of classes that exclude each other."""

from typing import ClassVar

from visionforge.config.schema.tasks import register_task
from visionforge.tasks.classes import ClassTask


@register_task
class MultiClass(ClassTask):
    """Classes that exclude each other and have no order."""

    name: ClassVar[str] = "multi-class"
    position: ClassVar[int] = 2

    def is_usual(self, several: bool, classes: int) -> bool:
        """Return whether every image has one class."""
        return not several
