"""What a network is trained by whose outputs are of pixels."""

from dataclasses import dataclass, replace
from typing import Self

from torch import Tensor

from visionforge.config.schema import Loss, Task, TaskName
from visionforge.config.schema.task import IGNORED
from visionforge.config.schema.tasks import fits, task_named
from visionforge.errors import SettingsError
from visionforge.training.mask_losses import pixel_cross_entropy, pixel_focal
from visionforge.training.mask_targets import smoothed_masks


@dataclass(frozen=True)
class MaskCriterion:
    """The configured loss of masks.

    Attributes:
        loss: Its settings.
        task: Kind of labels.
        classes: Number of classes K.
        weights: (K,) weight per class, or None.
    """

    loss: Loss
    task: TaskName
    classes: int
    weights: Tensor | None = None

    @classmethod
    def of(cls, settings: Loss, task: TaskName, classes: int, weights: Tensor | None = None) -> Self:
        """Return the loss that the settings mean for a task.

        Raises:
            SettingsError: If it does not fit.
        """
        loss = settings.of_task(task)
        if not fits(loss.tasks, task):
            raise SettingsError(f"model.loss.name: {loss.name} does not fit labels that are {task}")
        return cls(loss, task, classes, weights)

    @property
    def kind(self) -> Task:
        """Return the task."""
        return task_named(self.task)

    @property
    def cumulative(self) -> bool:
        """Return False: the outputs are K logits of each pixel."""
        return False

    def probabilities(self, logits: Tensor) -> Tensor:
        """Return (N, K, H, W) float32 probabilities."""
        return self.kind.probabilities(logits.float())

    def plain(self) -> Self:
        """Return the cross-entropy of the pixels, by which runs are compared."""
        return replace(self, loss=Loss(name="cross_entropy"), weights=None)

    def divisor(self, targets: Tensor) -> Tensor | None:
        """Return the weight of the pixels that count; None for losses of whole masks, such as their overlap."""
        if type(self.loss).loss is not Loss.loss:
            return None
        shares = targets if targets.ndim != 3 else self.kind.targets(targets, self.classes)
        if self.weights is None:
            return shares.sum()
        return (shares.movedim(1, -1) * self.weights.to(shares)).sum()

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the mean loss of a batch.

        Args:
            logits: (N, K, H, W).
            targets: (N, H, W) int64, 255 does not count; or shares (N, K, H, W), of which a pixel without any does not.
        """
        weights = None if self.weights is None else self.weights.to(logits.device)
        smoothing = self.loss.label_smoothing
        own = type(self.loss).loss is not Loss.loss
        if not own and targets.ndim == 3:
            return self._of_pixels(logits, targets, weights, smoothing, IGNORED)
        shares = self.kind.targets(targets, self.classes) if targets.ndim == 3 else targets
        if not own:
            return self._of_pixels(logits, shares, weights, smoothing, None)
        given = shares if self.loss.smooths else smoothed_masks(shares, smoothing)
        return self.loss.loss(logits.float(), given, weights)

    def _of_pixels(
        self, logits: Tensor, targets: Tensor, weights: Tensor | None, smoothing: float, ignore: int | None
    ) -> Tensor:
        gamma = float(getattr(self.loss, "focal_gamma", 0.0))
        if gamma > 0:
            return pixel_focal(logits, targets, gamma=gamma, label_smoothing=smoothing, weights=weights, ignore=ignore)
        return pixel_cross_entropy(logits, targets, label_smoothing=smoothing, weights=weights, ignore=ignore)
