"""What a detector is trained by: the losses that it brings itself."""

from dataclasses import dataclass
from typing import Self

from torch import Tensor

from visionforge.config.schema import Loss, TaskName
from visionforge.config.schema.tasks import fits
from visionforge.errors import SettingsError


@dataclass(frozen=True)
class BoxCriterion:
    """Says what loss a detector has; the detector computes it, see `Task.learn`.

    Attributes:
        loss: Its settings.
        task: Kind of labels.
    """

    loss: Loss
    task: TaskName

    @classmethod
    def of(cls, settings: Loss, task: TaskName, weights: Tensor | None = None) -> Self:
        """Return the loss that the settings mean for a task.

        Raises:
            SettingsError: If it does not fit, or asks for what a detector's losses do not have.
        """
        loss = settings.of_task(task)
        if not fits(loss.tasks, task):
            raise SettingsError(f"model.loss.name: {loss.name} does not fit labels that are {task}")
        if type(loss).loss is not Loss.loss:
            raise SettingsError(f"model.loss.name: {loss.name} is not asked: a detector brings its losses; take auto")
        for name in ("label_smoothing", "class_weights"):
            if (value := getattr(loss, name)) != type(loss).model_fields[name].default or weights is not None:
                raise SettingsError(f"model.loss.{name}: {value} would be ignored by a detector's own losses")
        return cls(loss, task)

    @property
    def cumulative(self) -> bool:
        """Return False: the outputs are boxes."""
        return False

    def probabilities(self, logits: Tensor) -> Tensor:
        """Return (N, D, 6) float32, the boxes as they are: their scores are probabilities already."""
        return logits.float()

    def plain(self) -> Self:
        """Return the same: nothing in it is for the training only."""
        return self

    def divisor(self, targets: Tensor) -> None:
        """Return None: a detector divides by what it finds."""

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Refuse: of boxes that were chosen already there is no loss.

        Raises:
            NotImplementedError: In any case.
        """
        raise NotImplementedError("a detector computes its losses itself; see Task.learn and Task.losses")
