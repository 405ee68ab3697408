"""Somebody's module: a task, a metric and one part of each family; tests import it, `mypy --strict` checks it."""

from collections.abc import Callable
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
import torch
from lightning.pytorch.callbacks import Callback
from pydantic import Field
from torch import Tensor

import visionforge as vf
from visionforge.tasks.binary import Binary
from visionforge.training.averaged_weights import AveragedWeights


@vf.register_optimizer
class Nadam(vf.Optimizer):
    """Adam with Nesterov's momentum."""

    name: Literal["own_nadam"] = "own_nadam"
    psi: float = Field(default=4e-3, gt=0.0, description="Decay of the momentum.")

    def build(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        return torch.optim.NAdam(groups, lr=self.learning_rate, momentum_decay=self.psi)


@vf.register_schedule
class Linear(vf.Schedule):
    """A straight line down."""

    name: Literal["own_linear"] = "own_linear"
    last_share: float = Field(default=0.1, ge=0.0, le=1.0, description="Share of the rate that is left at the end.")

    def rate(self, step: float, steps: float, high: float, steps_per_epoch: float, warmup_steps: float) -> float:
        return high * (1 - (1 - self.last_share) * step / steps)


@vf.register_loss
class Brier(vf.Loss):
    """The squared distance of the probabilities to the target."""

    tasks: ClassVar[tuple[str, ...]] = ("classes",)
    name: Literal["own_brier"] = "own_brier"
    factor: float = Field(default=1.0, gt=0.0, description="Factor of the loss.")

    def loss(self, logits: Tensor, targets: Tensor, weights: Tensor | None) -> Tensor:
        return self.factor * (logits.softmax(dim=1) - targets).square().sum(dim=1).mean()


@vf.register_averaging
class Half(vf.Averaging):
    """An exponential average with a short memory."""

    name: Literal["own_half"] = "own_half"
    memory: float = Field(default=0.5, gt=0.0, lt=1.0, description="Share of the old average in every step.")

    def build(self) -> Callback:
        return AveragedWeights(decay=self.memory)


@vf.register_mixing
class Dim(vf.Mixing):
    """The mean with the next image of a random order, by a share drawn for every image."""

    name: Literal["own_dim"] = "own_dim"
    most: float = Field(default=0.5, ge=0.0, le=1.0, description="Largest share of the other image.")

    def mix(self, images: Tensor, targets: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        partner = torch.from_numpy(rng.permutation(len(images))).to(images.device)
        share = torch.from_numpy(rng.uniform(0, self.most, len(images)).astype(np.float32)).to(images.device)
        mixed = torch.lerp(images, images[partner], share[:, None, None, None])
        return mixed, torch.lerp(targets, targets[partner], share[:, None])


@vf.register_sampler
class ClassByClass(vf.Sampler):
    """All images of one class before those of the next; which class is first is drawn."""

    name: Literal["own_class_by_class"] = "own_class_by_class"
    shuffled: bool = Field(default=True, description="Shuffle the images of a class.")

    def indices(
        self, labels: npt.NDArray[np.integer[Any]], rng: np.random.Generator, draws: int
    ) -> npt.NDArray[np.integer[Any]]:
        order = rng.permutation(len(labels)) if self.shuffled else np.arange(len(labels))
        rank = rng.permutation(int(labels.max()) + 1)
        return order[np.argsort(rank[labels[order]], kind="stable")][:draws]


@vf.register_augmentation
class Invert(vf.AugmentationOperation):
    """Some images as negatives."""

    name: Literal["own_invert"] = "own_invert"
    probability: float = Field(default=0.5, ge=0.0, le=1.0, description="Share of the images.")

    def build(self) -> Callable[[Tensor, torch.Generator], Tensor]:
        def invert(images: Tensor, generator: torch.Generator) -> Tensor:
            chosen = torch.rand(len(images), generator=generator, device=images.device) < self.probability
            return torch.where(chosen[:, None, None, None], 1 - images, images)

        return invert


@vf.register_task
class Screening(Binary):
    """Two classes, of which the second is reported from a probability of 0.2 on."""

    name: ClassVar[str] = "own-screening"
    headlines: ClassVar[tuple[str, ...]] = ("own_reported", "sensitivity")

    def is_usual(self, several: bool, classes: int) -> bool:
        return False

    def decide(self, probabilities: Any, thresholds: Any = None) -> Any:
        return (probabilities[:, 1] >= 0.2) * 1


@vf.register_metric(label="share that is reported", tasks=("own-screening",))
def own_reported(
    truth: npt.NDArray[Any], probabilities: npt.NDArray[Any], predicted: npt.NDArray[Any], weights: npt.NDArray[Any]
) -> float:
    return float(np.average(predicted, weights=weights))
