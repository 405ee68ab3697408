"""The classes of pictures that an import names one by one, and which of two is to be found."""

import re
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from visionforge.config.schema import TaskName
from visionforge.config.schema.tasks import task_named, tasks, usual_task
from visionforge.data.import_settings import ImportSettings
from visionforge.data.info import MAX_CLASSES
from visionforge.data.listing import Listing
from visionforge.data.positive import Positive, choose_positive
from visionforge.errors import DataError, SettingsError


@dataclass(frozen=True)
class ClassLabels:
    """The labels of all pictures.

    Attributes:
        task: Kind of labels.
        classes: Names of the classes, in label order.
        strata: (N,) or (N, L), their labels, by which they can be divided.
        notes: What there is to say, a line each.
    """

    task: TaskName
    classes: tuple[str, ...]
    strata: npt.NDArray[np.integer]
    notes: list[str] = field(default_factory=list)

    def at(self, chosen: npt.NDArray[np.int64]) -> npt.NDArray[np.integer]:
        """Return the labels of some pictures as an archive has them: (N, 1) or (N, L)."""
        labels = self.strata[chosen]
        labels = labels.astype(np.uint8 if labels.max() < 256 else np.int64)
        return labels if labels.ndim == 2 else labels[:, None]

    def present(self, chosen: npt.NDArray[np.int64]) -> list[int]:
        """Return how many of the pictures are of each class."""
        return [int(count) for count in task_named(self.task).counts(self.strata[chosen], len(self.classes))]


def class_labels(listing: Listing, settings: ImportSettings) -> ClassLabels:
    """Return the labels of pictures that have names of classes.

    Raises:
        DataError: If there are too few or too many classes, or they do not fit the task.
    """
    names = {label for labels in listing.labels for label in labels}
    numeric = all(re.fullmatch("-?[0-9]+", name) for name in names)
    classes = tuple(sorted(sorted(names), key=int) if numeric else sorted(names))
    several = any(len(labels) != 1 for labels in listing.labels)
    task = settings.task or usual_task(several, len(classes))
    kind = task_named(task)
    if len(classes) < 2:
        raise DataError(f"{settings.source}: has only the class {', '.join(classes) or 'none'}; at least 2 are needed")
    if len(classes) > MAX_CLASSES:
        raise DataError(
            f"{settings.source}: has {len(classes):,} classes, more than {MAX_CLASSES:,}; is it the column?"
        )
    if several and not kind.several:
        raise DataError(f"{settings.source}: some pictures have no label or several, which {task} does not allow")
    if kind.class_count not in (None, len(classes)):
        raise DataError(f"task: {task} needs {kind.class_count} classes, {settings.source} has {len(classes)}")
    return ClassLabels(task, classes, kind.encoded(listing.labels, classes))


def positive_class(settings: ImportSettings, task: TaskName, classes: tuple[str, ...]) -> Positive | None:
    """Return which of two classes is to be found: as asked, or as the names tell; None if the task has no such.

    Raises:
        SettingsError: If the asked one is no class, or the task has no such.
    """
    has_positive = task_named(task).has_positive
    if settings.positive is None:
        return choose_positive((classes[0], classes[1])) if has_positive else None
    if not has_positive:
        fitting = " or ".join(name for name, kind in tasks().items() if kind.has_positive)
        raise SettingsError(f"positive: is for {fitting} data, this is {task} ({len(classes)} classes)")
    if settings.positive not in classes:
        raise SettingsError(f"positive: {settings.positive!r} is not allowed; allowed: {', '.join(classes)}")
    return Positive(settings.positive, "as asked", True)
