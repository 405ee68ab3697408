"""Distillation: a network learns the probabilities that a trained one, the teacher, gives to the same images.

After Hinton et al. (2015, arXiv:1503.02531). The teacher is asked about the images as they are learnt, augmented and
mixed (Beyer et al., 2022, arXiv:2106.05237), so nothing of what it says can be kept from one epoch to the next.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import torch
from torch import Tensor

from visionforge.config.schema import Distillation
from visionforge.data.info import TaskSpec
from visionforge.errors import RunError, SettingsError
from visionforge.runs.paths import shown
from visionforge.runs.query import find_checkpoint
from visionforge.training.criterion import AnyCriterion
from visionforge.training.loading import load_classifier

if TYPE_CHECKING:
    from visionforge.training.classifier import ImageClassifier

SETTING = "model.distillation.teacher"
_SHARED = ("task", "classes", "channels", "spatial_dims", "resolution")  # by teacher and student


class Teacher:
    """A trained network that is only asked.

    It is no module, so that a network that holds one has none of its weights: neither in an optimiser nor in a
    checkpoint, nor in a copy of the network whose weights are averaged.

    Args:
        model: The network; its weights are frozen.
        settings: By how much its probabilities count, and how sure they are.
        spec: The task of the network that learns, by which the images are normalised.

    Attributes:
        weight: Share of its probabilities in the target, 0 to 1.
    """

    def __init__(self, model: "ImageClassifier", settings: Distillation, spec: TaskSpec) -> None:
        self._model = model.eval().requires_grad_(False)
        self._temperature = settings.temperature
        self.weight = settings.weight
        self._spec = spec

    @classmethod
    def of(cls, settings: Distillation, spec: TaskSpec) -> "Teacher":
        """Read the teacher that the settings name, on the CPU.

        Args:
            settings: They name one.
            spec: The task of the network that learns.

        Raises:
            RunError: If there is no such run or checkpoint, or it cannot be read.
            SettingsError: If it has learnt another task, or the task has no probabilities of whole images.
        """
        assert settings.teacher is not None, "there is no teacher"
        if not spec.kind.calibrates:
            raise SettingsError(f"{SETTING}: the labels are {spec.task}, of which no probabilities are learnt")
        checkpoint = find_checkpoint(settings.teacher, SETTING)
        try:
            model = load_classifier(checkpoint)
        except (RunError, SettingsError) as error:
            raise RunError([f"{SETTING}: {problem}" for problem in error.problems]) from error
        assert model.spec is not None
        problems = [
            f"{SETTING}: {shown(checkpoint)} has learnt {_told(model.spec, name)}, {spec.dataset} has "
            f"{_told(spec, name)} here; name a teacher of the same"
            for name in _SHARED
            if getattr(model.spec, name) != getattr(spec, name)
        ]
        if problems:
            raise SettingsError(problems)
        return cls(model, settings, spec)

    def to(self, device: torch.device) -> Self:
        """Move the network, and return the teacher."""
        self._model.to(device)
        return self

    @torch.no_grad()
    def probabilities(self, images: Tensor) -> Tensor:
        """Return (N, K) float32 probabilities of the classes, or of each label, softened by the temperature.

        Without test-time views, and without the temperature of a calibration.

        Args:
            images: (N, C, R, R) or (N, C, R, R, R) float, normalised for the network that learns.
        """
        criterion, kind = self._model.criterion, self._spec.kind
        assert criterion is not None, "a network comes with its loss"
        given = criterion.probabilities(self._model(self._renormalised(images)))
        if self._temperature == 1:
            return given
        return kind.probabilities(kind.logits(given) / self._temperature)

    def _renormalised(self, images: Tensor) -> Tensor:
        """Return images as the teacher has learnt them, which may have been normalised by other numbers."""
        mine, theirs = self._spec, self._model.spec
        assert theirs is not None
        if (mine.mean, mine.std) == (theirs.mean, theirs.std):
            return images
        shape = (1, -1, *(1,) * (images.ndim - 2))
        mean, std = (images.new_tensor(values).view(shape) for values in (mine.mean, mine.std))
        their_mean, their_std = (images.new_tensor(values).view(shape) for values in (theirs.mean, theirs.std))
        return (images * std + mean - their_mean) / their_std


def _told(spec: TaskSpec, name: str) -> str:
    value = getattr(spec, name)
    return f"{name} {', '.join(value) if isinstance(value, tuple) else value}"


@dataclass(frozen=True)
class Distilling:
    """A loss to targets of which a share is what a teacher says; what is counted as right goes by the labels alone.

    Attributes:
        criterion: The loss of target distributions.
        said: (N, K) probabilities of the teacher.
        weight: Their share in the target, 0 to 1.
        spec: The task.
    """

    criterion: AnyCriterion
    said: Tensor
    weight: float
    spec: TaskSpec

    @property
    def cumulative(self) -> bool:
        """Return whether the network's outputs are K-1 cumulative logits, and not K that are the task's."""
        return self.criterion.cumulative

    def probabilities(self, logits: Tensor) -> Tensor:
        """Return (N, K) float32 probabilities of the network's outputs."""
        return self.criterion.probabilities(logits)

    def plain(self) -> Self:
        """Return the loss itself: evaluations have no teacher."""
        return self

    def divisor(self, targets: Tensor) -> Tensor | None:
        """Return that of the loss, for the targets that it is given."""
        return self.criterion.divisor(blended(targets, self.said, self.weight, self.spec))

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the mean loss of a batch, a scalar.

        Args:
            logits: (N, K), or (N, K-1) cumulative.
            targets: Labels of the batch, or what mixing has made of them, (N, K).
        """
        return self.criterion(logits, blended(targets, self.said, self.weight, self.spec))


def blended(targets: Tensor, said: Tensor, weight: float, spec: TaskSpec) -> Tensor:
    """Return (N, K) targets, (1 - w)·labels + w·probabilities of the teacher.

    Args:
        targets: Integer labels of the batch, or (N, K) float shares.
        said: (N, K) probabilities of the teacher.
        weight: Share w of the teacher, 0 to 1.
        spec: The task.
    """
    own = targets if targets.is_floating_point() else spec.kind.targets(targets, len(spec.classes))
    return torch.lerp(own.to(said.dtype), said, weight)
