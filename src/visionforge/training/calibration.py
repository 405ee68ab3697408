"""Temperature scaling: one number, fitted on the validation split, that makes probabilities mean what they say.

Guo et al. (2017, arXiv:1706.04599). The temperature divides the logits; it changes how sure a network says it is, and
never what it says. Everything here works on probabilities, from which the logits follow up to a constant that cancels.
So grades are calibrated in the same way, and averages over test-time views, which have a temperature of their own.
"""

import logging
import math
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from visionforge.config.schema import TaskName
from visionforge.config.schema.tasks import task_named
from visionforge.errors import DataError
from visionforge.training.conformal import ConformalSets, fit_sets, least_images

log = logging.getLogger(__name__)

LOWEST, HIGHEST = 0.05, 20.0  # temperatures; a best value at either end means that the data does not fix it
_AT_THE_END = 0.05  # distance to an end, on the logarithmic scale, that counts as being there
_FLAT = 1e-9  # nats by which the best temperature has to be better than both ends
_SMALLEST = torch.finfo(torch.float32).tiny  # of the probabilities that a softmax in float32 gives


@dataclass(frozen=True)
class Calibration:
    """What the validation split says about how to read the probabilities of a network.

    Attributes:
        images: Number of validation images.
        temperature: Divides the logits of an image alone; None if the split does not fix it, as one without a mistake.
        temperature_tta: The same for the average over the test-time views; None also without views.
        thresholds_tta: (L,) per label, for the average over the views.
        sets: Which classes belong to the set of an image alone; None if nobody asked, or the images are too few.
        sets_tta: The same for the average over the views.
        asked: What the sets were to be, such as ``aps 0.9``; None in files of earlier versions.
        abstain_below: Probability below which the network abstains; None lets it go by the sets.
    """

    images: int
    temperature: float | None
    temperature_tta: float | None = None
    thresholds_tta: tuple[float, ...] | None = None
    sets: ConformalSets | None = None
    sets_tta: ConformalSets | None = None
    asked: str | None = None
    abstain_below: float | None = None

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Calibration":
        """Return what `dataclasses.asdict` has written."""
        thresholds = values.get("thresholds_tta")
        return cls(
            int(values["images"]),
            values.get("temperature"),
            values.get("temperature_tta"),
            None if thresholds is None else tuple(thresholds),
            _read_sets(values.get("sets")),
            _read_sets(values.get("sets_tta")),
            values.get("asked"),
            values.get("abstain_below"),
        )

    def columns(self, shown: Tensor, predicted: Tensor, tta: bool) -> dict[str, Tensor]:
        """Return what tables say beside the probabilities: `set` (N, K) and `abstain` (N,), as far as there are sets.

        Args:
            shown: (N, K) calibrated probabilities.
            predicted: (N,) predicted classes.
            tta: Whether the probabilities are averaged over the test-time views.
        """
        return abstention(self.sets_tta if tta else self.sets, self.abstain_below, shown, predicted)


def _read_sets(values: Any) -> ConformalSets | None:
    return None if values is None else ConformalSets.from_dict(values)


class Abstaining(Protocol):
    """The part of `evaluation` that says when a network abstains."""

    @property
    def conformal(self) -> str:
        """Return how sets are made."""

    @property
    def coverage(self) -> float:
        """Return which share of the images they cover."""

    @property
    def abstain_below(self) -> float | None:
        """Return the probability below which the network abstains."""


def sets_asked(settings: Abstaining, task: TaskName) -> tuple[str, str]:
    """Return the method that `auto` and the others stand for, and what `Calibration.asked` says of it."""
    method: str = settings.conformal
    if method == "auto":
        method = "aps" if task_named(task).abstains else "none"
    return method, "none" if method == "none" else f"{method} {settings.coverage:g}"


def abstention(sets: ConformalSets | None, below: float | None, shown: Tensor, predicted: Tensor) -> dict[str, Tensor]:
    """Return the sets (N, K) of images, and whether the network abstains (N,).

    It abstains where the set holds anything but the predicted class alone; with a limit of the probability where that
    of the predicted class is below it, whatever the set.

    Args:
        sets: Which classes belong to a set; None without sets.
        below: The limit; None goes by the sets.
        shown: (N, K) calibrated probabilities.
        predicted: (N,) predicted classes.
    """
    found: dict[str, Tensor] = {}
    if sets is not None:
        found["set"] = sets.members(shown.double())
        found["abstain"] = (found["set"].sum(dim=1) != 1) | ~found["set"].gather(1, predicted[:, None])[:, 0]
    if below is not None and shown.ndim == 2 and predicted.ndim == 1:
        found["abstain"] = shown.gather(1, predicted[:, None])[:, 0] < below
    return found


def fit_calibration(
    shown: Tensor,
    averaged: Tensor | None,
    labels: Tensor,
    task: TaskName,
    settings: Abstaining,
    thresholds_tta: tuple[float, ...] | None = None,
    kept: Calibration | None = None,
) -> Calibration:
    """Return what a validation split says: temperatures, and the sets of classes for the probabilities with them.

    Args:
        shown: (N, K) probabilities of the images alone.
        averaged: (N, K) mean over the test-time views; None without views.
        labels: (N,) int64, or (N, K) 0/1.
        task: Kind of labels.
        settings: When the network is to abstain.
        thresholds_tta: (L,) per label, for the average over the views.
        kept: What has been found before, whose temperatures stay; None fits them.
    """
    if kept is not None:
        thresholds_tta = kept.thresholds_tta
    method, asked = sets_asked(settings, task)
    temperatures: list[float | None] = []
    sets: list[ConformalSets | None] = []
    before = (None, None) if kept is None else (kept.temperature, kept.temperature_tta)
    for given, found in zip((shown, averaged), before, strict=True):
        fits = kept is None and given is not None
        temperatures.append(fit_temperature(given, labels, task) if fits and given is not None else found)
        stated = None if given is None or method == "none" else scale(given, temperatures[-1], task)
        sets.append(None if stated is None else fit_sets(stated, labels, method, settings.coverage))
    if method != "none":
        _tell_too_few(sets[0], labels, method, settings.coverage)
    below = settings.abstain_below if task_named(task).abstains else None
    return Calibration(len(labels), temperatures[0], temperatures[1], thresholds_tta, sets[0], sets[1], asked, below)


def _tell_too_few(sets: ConformalSets | None, labels: Tensor, method: str, coverage: float) -> None:
    least = least_images(coverage)
    needs = f"evaluation.coverage: {coverage:g} needs {least:,} validation images"
    if method == "class" and sets is not None:
        if few := [k for k, each in enumerate(sets.thresholds) if each is None]:
            numbers = ", ".join(map(str, few))
            log.warning("%s of every class; those of number %s have fewer, and are in every set", needs, numbers)
    elif sets is None:
        of_class = " of a class" if method == "class" else ""
        log.warning("%s%s, there are %s in all; there are no sets of classes", needs, of_class, f"{len(labels):,}")


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
    from scipy.optimize import minimize_scalar  # for those who only predict, half a second

    kind = task_named(task)
    logits = kind.logits(given.double())

    def loss(log_temperature: float) -> float:
        return negative_log_likelihood(kind.probabilities(logits / math.exp(log_temperature)), labels)

    low, high = math.log(LOWEST), math.log(HIGHEST)
    best = float(minimize_scalar(loss, bounds=(low, high), method="bounded", options={"xatol": 1e-5}).x)
    inside = low + _AT_THE_END < best < high - _AT_THE_END
    fixed = inside and min(loss(low), loss(high)) > loss(best) + _FLAT  # where all is right, it ends where that is flat
    return math.exp(best) if fixed else None


def uncalibrated(task: TaskName) -> DataError:
    """Return the refusal to calibrate a task that has no temperatures."""
    return DataError(f"calibration: a {task} has no temperatures")
