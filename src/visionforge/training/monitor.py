"""What the epochs of a training are compared by; chosen before the training, so that it is defined in every epoch."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


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


def monitor_for(labels: npt.NDArray[np.integer], classes: tuple[str, ...]) -> tuple[Monitor, str | None]:
    """Return what to compare epochs by on a validation split, and why it is not the AUC, or None if it is.

    Args:
        labels: (N,) class numbers, or (N, L) 0/1 per label, of the images that are validated.
        classes: Their names.
    """
    reason = undefined_reason(labels, classes)
    return (AUC, None) if reason is None else (LOSS, reason)
