"""What the epochs of a training are compared by; chosen before the training, so that it is defined in every epoch."""

import re
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from visionforge.config.schema.metrics import PREFIX, higher_is_better, metrics
from visionforge.data.info import TaskSpec
from visionforge.scoring.cases import Cases, Weighted, values_of


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
RANKED = "val/auc"  # undefined where no class has both cases and others


def undefined_reason(labels: npt.NDArray[np.integer], classes: tuple[str, ...]) -> str | None:
    """Return why the AUC of a split is undefined, or None if it is defined.

    Args:
        labels: (N,) class numbers, or (N, L) 0/1 per label.
        classes: Their names.
    """
    if labels.ndim == 2:
        present = labels.sum(axis=0)
        rankable = (present > 0) & (present < len(labels))
        return None if rankable.any() else "no label is there in some of its images and absent from others"
    found = np.unique(labels)
    if len(found) > 1:
        return None
    return f"all of its images are of the class {classes[int(found[0])]}" if len(found) else "it has no images"


def undefined_metric(name: str, labels: npt.NDArray[np.integer], spec: TaskSpec) -> str | None:
    """Return why a metric says nothing of a split, whatever is predicted; None if it does.

    Args:
        name: As it is logged.
        labels: As in `undefined_reason`.
        spec: The task.

    Raises:
        VisionForgeError: If somebody's own metric fails.
    """
    if name == LOSS.name or not len(labels):
        return None
    if name == RANKED:
        return undefined_reason(labels, spec.classes)
    metric = metrics()[name.removeprefix(PREFIX)]
    count = len(spec.classes)
    import torch  # which light commands do without

    drawn = torch.from_numpy(np.random.default_rng(0).normal(size=(len(labels), count)).astype(np.float32))
    given = spec.kind.probabilities(drawn).numpy()
    cases = Cases(given, labels, spec.task, np.full(count, 0.5), spec.positive_index)
    found = values_of(metric, Weighted(cases, np.ones((len(labels), 1))))
    known = found is not None and not np.isnan(found[0])
    return None if known or not metric.shared else "its classes are too few"  # somebody's own may depend on predictions


def monitor_for(labels: npt.NDArray[np.integer], classes: tuple[str, ...]) -> tuple[Monitor, str | None]:
    """Return what to compare epochs by on a validation split, and why it is not the AUC, or None if it is.

    Args:
        labels: (N,) class numbers, or (N, L) 0/1 per label, of the images that are validated.
        classes: Their names.
    """
    reason = undefined_reason(labels, classes)
    return (AUC, None) if reason is None else (LOSS, reason)
