"""Two classes, of which one is to be found, such as a finding against none."""

from typing import ClassVar

from visionforge.config.schema.tasks import register_task
from visionforge.tasks.classes import ClassTask


@register_task
class Binary(ClassTask):
    """Two classes that exclude each other; AUC, sensitivity and specificity are those of the positive one."""

    name: ClassVar[str] = "binary"
    position: ClassVar[int] = 1
    class_count: ClassVar[int | None] = 2
    has_positive: ClassVar[bool] = True
    headlines: ClassVar[tuple[str, ...]] = ("auc", "accuracy", "sensitivity", "specificity")

    def is_usual(self, several: bool, classes: int) -> bool:
        """Return whether there are two classes."""
        return not several and classes == 2
