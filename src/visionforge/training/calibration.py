"""Temperature scaling: one number, fitted on the validation split, that makes probabilities mean what they say.

Guo et al. (2017, arXiv:1706.04599). The temperature divides the logits; it changes how sure a network says it is, and
never what it says. Everything here works on probabilities, from which the logits follow up to a constant that cancels.
So grades are calibrated in the same way, and averages over test-time views, which have a temperature of their own.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from scipy.optimize import minimize_scalar
from torch import Tensor

from visionforge.config.schema import TaskName
from visionforge.config.schema.tasks import task_named
from visionforge.errors import DataError

LOWEST, HIGHEST = 0.05, 20.0  # temperatures; a best value at either end means that the data does not fix it
_AT_THE_END = 0.05  # distance to an end, on the logarithmic scale, that counts as being there
_SMALLEST = torch.finfo(torch.float32).tiny  # of the probabilities that a softmax in float32 gives


@dataclass(frozen=True)
class Calibration:
    """What the validation split says about how to read the probabilities of a network.

    Attributes:
        images: Number of validation images.
        temperature: Divides the logits of an image alone; None if the split does not fix it, as one without a mistake.
        temperature_tta: The same for the average over the test-time views; None also without views.
        thresholds_tta: (L,) per label, for the average over the views.
    """

    images: int
    temperature: float | None
    temperature_tta: float | None = None
    thresholds_tta: tuple[float, ...] | None = None

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Calibration":
        """Return what `dataclasses.asdict` has written."""
        thresholds = values.get("thresholds_tta")
        return cls(
            int(values["images"]),
            values.get("temperature"),
            values.get("temperature_tta"),
            None if thresholds is None else tuple(thresholds),
        )


def scale(given: Tensor, temperature: float | None, task: TaskName) -> Tensor:
    """Return probabilities whose logits are divided by a temperature.

    Args:
        given: (N, K) probabilities of the classes, or of each label.
        temperature: Above 1 makes them less sure; None leaves them as they are.
        task: Kind of labels.

    Returns:
        (N, K) in the precision of `given`.
    """
    if temperature is None:
        return given
    kind = task_named(task)
    return kind.probabilities(kind.logits(given.double()) / temperature).to(given.dtype)


def negative_log_likelihood(given: Tensor, labels: Tensor) -> float:
    """Return the mean of -log of the probability that was given to what is true, in nats.

    Args:
        given: (N, K) probabilities.
        labels: (N,) int64, or (N, K) 0/1 where an image may have several, which are then averaged.
    """
    given = given.double()
    chosen = torch.where(labels.bool(), given, 1 - given) if labels.ndim == 2 else given.gather(1, labels[:, None])
    return float(-chosen.clamp(min=_SMALLEST).log().mean())


def fit_temperature(given: Tensor, labels: Tensor, task: TaskName) -> float | None:
    """Return the temperature under which the labels are most probable, between 0.05 and 20.

    Args:
        given: (N, K) probabilities.
        labels: (N,) int64, or (N, K) 0/1.
        task: Kind of labels.

    Returns:
        The temperature, or None if the best one lies at an end of the range: then the labels do not fix it, as where
        every prediction is right and a lower temperature is always better.
    """
    if not len(labels):
        return None
    kind = task_named(task)
    logits = kind.logits(given.double())

    def loss(log_temperature: float) -> float:
        return negative_log_likelihood(kind.probabilities(logits / math.exp(log_temperature)), labels)

    low, high = math.log(LOWEST), math.log(HIGHEST)
    best = float(minimize_scalar(loss, bounds=(low, high), method="bounded", options={"xatol": 1e-5}).x)
    return math.exp(best) if low + _AT_THE_END < best < high - _AT_THE_END else None


def uncalibrated(task: TaskName) -> DataError:
    """Return the refusal to calibrate a task that has no temperatures."""
    return DataError(f"calibration: a {task} has no temperatures")
