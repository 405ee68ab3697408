"""What the epochs of a training are compared by; chosen before the training, so that it is defined in every epoch."""

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from visionforge.config.schema.metrics import PREFIX, higher_is_better, metrics
from visionforge.data.info import TaskSpec
from visionforge.scoring.cases import values_of


@dataclass(frozen=True)
class Monitor:
    """A logged value of the validation split.

    Attributes:
        name: As it is logged.
        higher: Whether higher values are better.
    """

    name: str
    higher: bool

    @property
    def mode(self) -> str:
        """Return the direction as Lightning names it."""
        return "max" if self.higher else "min"

    def better(self, value: float, best: float) -> bool:
        """Return whether a value is better than the best so far; an undefined one (NaN) is worse than every other."""
        if np.isnan(value):
            return False
        return bool(np.isnan(best) or (value > best if self.higher else value < best))


def monitor_named(name: str) -> Monitor:
    """Return what is logged under a name as something to compare epochs by."""
    return Monitor(name, higher_is_better(name))


def stored_monitor(name: object) -> Monitor:
    """Return what a checkpoint says that epochs were compared by; earlier ones say nothing, and mean the AUC."""
    return monitor_named(name) if isinstance(name, str) and re.fullmatch("val/[a-z0-9_]{1,60}", name) else AUC


AUC, LOSS = Monitor("val/auc", True), Monitor("val/loss", False)


def undefined_metric(name: str, labels: npt.NDArray[Any], spec: TaskSpec) -> str | None:
    """Return why a metric says nothing of a split, whatever is predicted; None if it does.

    Args:
        name: As it is logged.
        labels: Of the images that are validated, as the task keeps them.
        spec: The task.

    Raises:
        VisionForgeError: If somebody's own metric fails.
    """
    if name == LOSS.name or not len(labels):
        return None
    if name == spec.kind.monitor:
        return spec.kind.undefined_reason(labels, spec.classes)
    metric = metrics()[name.removeprefix(PREFIX)]
    found = values_of(metric, spec.kind.tried(labels, spec))
    known = found is not None and not np.isnan(found[0])
    if known or not metric.shared:  # somebody's own may depend on predictions
        return None
    return "its classes are too few"


def monitor_for(labels: npt.NDArray[Any], spec: TaskSpec) -> tuple[Monitor, str | None]:
    """Return what to compare epochs by on a validation split, and why it is not what the task names; None if it is.

    Args:
        labels: Of the images that are validated, as the task keeps them.
        spec: The task.
    """
    reason = spec.kind.undefined_reason(labels, spec.classes)
    return (monitor_named(spec.kind.monitor), None) if reason is None else (LOSS, reason)
