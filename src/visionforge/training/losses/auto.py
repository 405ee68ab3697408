"""The usual loss of a task."""

from typing import ClassVar, Literal

from visionforge.config.schema.base import TASKS, Task
from visionforge.config.schema.components import register
from visionforge.config.schema.model import Loss


@register
class Auto(Loss):
    """bce for multi-label data, cross_entropy for all other."""

    position: ClassVar[int] = 1
    tasks: ClassVar[tuple[Task, ...]] = TASKS

    name: Literal["auto"] = "auto"

    def of_task(self, task: Task) -> Loss:
        """Return the loss that is meant for this kind of labels."""
        fields = {name: getattr(self, name) for name in Loss.model_fields if name != "name"}
        return Loss(name="bce" if task == "multi-label" else "cross_entropy", **fields)
