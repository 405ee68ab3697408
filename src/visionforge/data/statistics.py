"""How many images of each class a data set has, and mean and standard deviation of its training images."""

from dataclasses import dataclass
from typing import Any

from visionforge.data.importing import channel_statistics
from visionforge.data.info import SPLITS, DatasetInfo, Split
from visionforge.data.inspect import class_counts
from visionforge.data.label_statistics import BoxStatistics, MaskStatistics, as_plain, label_statistics
from visionforge.data.source import load_split, local_archive, offered_resolution


@dataclass(frozen=True)
class Statistics:
    """The numbers of a data set.

    Attributes:
        info: The data set.
        resolution: Height and width in pixels.
        images: Split → number of images.
        counts: Split → number of images of each class, or with each label.
        mean: Per channel of the training images, of values scaled to [0, 1].
        std: Standard deviations of the same.
        details: The numbers of masks or boxes; None if images have classes.
    """

    info: DatasetInfo
    resolution: int
    images: dict[Split, int]
    counts: dict[Split, list[int]]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    details: MaskStatistics | BoxStatistics | None = None

    @property
    def imbalance(self) -> float | None:
        """The largest class of the training images over the smallest; None if a class has no image."""
        largest, smallest = max(self.counts["train"]), min(self.counts["train"])
        return largest / smallest if smallest else None

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain values, with the counts of each class."""
        names = self.info.classes
        per_class = {name: {split: self.counts[split][k] for split in SPLITS} for k, name in enumerate(names)}
        numbers = {"classes": per_class, "mean": self.mean, "std": self.std}
        return {"name": self.info.name, "resolution": self.resolution, **numbers, **as_plain(self.details)}


def dataset_statistics(info: DatasetInfo, resolution: int | None = None, root: str | None = None) -> Statistics:
    """Count the classes of a data set, and compute mean and standard deviation.

    Args:
        info: The data set.
        resolution: Height and width in pixels; None is the smallest.
        root: Folder of the archives; None is where they lie by default.

    Raises:
        SettingsError: If the data set does not offer the resolution.
        DataError: If the archive is missing or damaged.
    """
    resolution = offered_resolution(info, resolution)
    if info.archives:
        local_archive(info, resolution, root)
    parts = {split: load_split(info, resolution, root, split) for split in SPLITS}
    counts = {split: class_counts(part.labels, info) for split, part in parts.items()}
    mean, std = channel_statistics(parts["train"].images)
    images = {split: len(part.images) for split, part in parts.items()}
    details = label_statistics(info, {split: part.labels for split, part in parts.items()})
    return Statistics(info, resolution, images, counts, mean, std, details)
