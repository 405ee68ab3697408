"""Features with their labels, and the scale that classifiers of them work in."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from visionforge.config.schema.tasks import task_named
from visionforge.errors import RunError

Array = npt.NDArray[Any]
FLAT = 1e-6  # a feature that varies less than this share of its mean says nothing but rounding
LEAST = 0.01  # share of the usual deviation that a feature is at least taken to have


@dataclass(frozen=True, eq=False)
class Labelled:
    """What a classifier is fitted to.

    Attributes:
        values: (N, D) float64 features.
        labels: (N,) int64 classes, or (N, L) 0/1 where an image may have several.
        classes: Number of classes or labels K.
        task: Kind of labels.
        balanced: Every class counts alike, not every image.
        seed: Of what is random in a fit.
    """

    values: Array
    labels: Array
    classes: int
    task: str
    balanced: bool
    seed: int

    @classmethod
    def of(cls, values: Array, labels: Array, classes: int, task: str, balanced: bool, seed: int) -> "Labelled":
        """Return features in double precision.

        Raises:
            RunError: If there is none, or one is not finite.
        """
        values = np.asarray(values, dtype=np.float64)
        if not values.size:
            raise RunError("probe: there are no features to fit a classifier to")
        if not np.isfinite(values).all():
            raise RunError("probe: the network's features are not finite; name another network")
        return cls(values, np.asarray(labels, dtype=np.int64), classes, task, balanced, seed)

    @property
    def several(self) -> bool:
        """Return whether an image may have several labels."""
        return task_named(self.task).several

    @property
    def class_weight(self) -> str | None:
        """Return how scikit-learn is told that classes count alike."""
        return "balanced" if self.balanced else None

    def with_more(self, other: "Labelled") -> "Labelled":
        """Return both together."""
        values = np.concatenate([self.values, other.values])
        labels = np.concatenate([self.labels, other.labels])
        return Labelled(values, labels, self.classes, self.task, self.balanced, self.seed)


@dataclass(frozen=True, eq=False)
class Scale:
    """Standardisation: (x - mean) · factor, in which features that do not vary are 0.

    A feature that is almost always the same, such as one behind a rectifier that few images pass, would weigh those few
    by its tiny deviation; so none is taken to vary less than a hundredth of what all do.

    Attributes:
        mean: (D,) of the features.
        factor: (D,) the inverse of their standard deviations.
    """

    mean: Array
    factor: Array

    @classmethod
    def of(cls, values: Array) -> "Scale":
        """Return that of features (N, D)."""
        mean, deviation = values.mean(axis=0), values.std(axis=0)
        varies = deviation > FLAT * np.abs(mean) + np.finfo(np.float32).tiny
        least = LEAST * np.sqrt(np.mean(deviation**2))
        return cls(mean, np.where(varies, 1 / np.where(varies, np.maximum(deviation, least), 1.0), 0.0))

    def __call__(self, values: Array) -> Array:
        """Return (N, D) standardised features."""
        return np.asarray((values - self.mean) * self.factor)


def single(values: Array) -> Tensor:
    """Return an array as float32."""
    return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))
