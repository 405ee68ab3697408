"""The usual loss of a task."""

from typing import ClassVar, Literal

from visionforge.config.schema.components import register
from visionforge.config.schema.model import Loss
from visionforge.config.schema.tasks import TaskName, task_named
from visionforge.errors import SettingsError


@register
class Auto(Loss):
    """cross_entropy for classes, bce for labels that may occur together, combined for masks, detector for boxes."""

    position: ClassVar[int] = 1
    tasks: ClassVar[tuple[str, ...]] = ("classes", "labels", "masks", "boxes")

    name: Literal["auto"] = "auto"

    def of_task(self, task: TaskName) -> Loss:
        """Return the usual loss of a task."""
        fields = {name: getattr(self, name) for name in Loss.model_fields if name != "name"}
        usual = task_named(task).default_loss
        if usual not in Loss.family.names:
            raise SettingsError(f"model.loss.name: the task {task} asks for the loss {usual}, which is not registered")
        return Loss(name=usual, **fields)
