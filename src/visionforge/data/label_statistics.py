"""What masks and boxes of a data set are like: pixels of each class, boxes of each class and their sizes."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from visionforge.config.schema.tasks import task_named
from visionforge.data.import_masks import mask_pixels
from visionforge.data.info import SPLITS, DatasetInfo, Split

Labels = Mapping[Split, npt.NDArray[Any]]


@dataclass(frozen=True)
class MaskStatistics:
    """The numbers of masks.

    Attributes:
        pixels: Split → pixels of each class.
        ignored: Split → pixels that count for nothing.
        empty: Split → masks in which nothing but class 0, the background, counts.
    """

    pixels: dict[Split, list[int]]
    ignored: dict[Split, int]
    empty: dict[Split, int]

    def columns(self) -> dict[str, list[str]]:
        """Return heading → a cell for each class: its share of the training pixels that count."""
        total = max(1, sum(self.pixels["train"]))
        return {"train pixels": [f"{count / total:.2%}" for count in self.pixels["train"]]}

    def lines(self) -> list[str]:
        """Return what a terminal shows beside the table."""
        lines = [f"empty masks: {_each(self.empty)}"]
        return [*lines, f"pixels that are ignored: {_each(self.ignored)}"] if any(self.ignored.values()) else lines


@dataclass(frozen=True)
class BoxStatistics:
    """The numbers of boxes.

    Attributes:
        boxes: Split → boxes of each class.
        bare: Split → images without a box.
        sides: For each class the least, median and greatest width or height of training boxes, in pixels; None without.
    """

    boxes: dict[Split, list[int]]
    bare: dict[Split, int]
    sides: list[tuple[float, float, float] | None]

    def columns(self) -> dict[str, list[str]]:
        """Return heading → a cell for each class: its training boxes, and least, median and greatest side of them."""
        sides = ["-" if found is None else " / ".join(f"{side:.1f}" for side in found) for found in self.sides]
        return {"train boxes": [f"{count:,}" for count in self.boxes["train"]], "sides": sides}

    def lines(self) -> list[str]:
        """Return what a terminal shows beside the table."""
        every = _each({split: sum(counts) for split, counts in self.boxes.items()})
        return [f"boxes: {every}; images without: {_each(self.bare)}; sides: least / median / greatest, in pixels"]


def _each(counts: Mapping[Split, int]) -> str:
    return ", ".join(f"{counts[split]:,} {split}" for split in SPLITS)


def label_statistics(info: DatasetInfo, labels: Labels) -> MaskStatistics | BoxStatistics | None:
    """Return the numbers of masks or boxes; None if images have classes.

    Args:
        info: The data set.
        labels: Split → labels as their task keeps them: masks (N, R, R), or boxes (N, M, 5), see `Task`.
    """
    forms, count = task_named(info.task).forms, len(info.classes)
    if "masks" in forms:
        pixels = {split: mask_pixels(masks, count) for split, masks in labels.items()}
        total = {split: counts.sum(axis=0).tolist() for split, counts in pixels.items()}
        ignored = {split: int(labels[split].size) - sum(counts) for split, counts in total.items()}
        empty = {split: int((counts[:, 1:].sum(axis=1) == 0).sum()) for split, counts in pixels.items()}
        return MaskStatistics(total, ignored, empty)
    if "boxes" in forms:
        present = {split: boxes[..., 0] >= 0 for split, boxes in labels.items()}  # others only fill up
        kinds = {split: boxes[..., 0][present[split]].astype(np.int64) for split, boxes in labels.items()}
        return BoxStatistics(
            {split: np.bincount(found, minlength=count).tolist() for split, found in kinds.items()},
            {split: int((~there.any(axis=1)).sum()) for split, there in present.items()},
            _sides(labels["train"][present["train"]], count),
        )
    return None


def _sides(rows: npt.NDArray[Any], classes: int) -> list[tuple[float, float, float] | None]:
    """Return least, median and greatest side for each class of rows (M, 5)."""
    found: list[tuple[float, float, float] | None] = []
    for kind in range(classes):
        of_kind = rows[rows[:, 0] == kind]
        sides = (of_kind[:, 3:] - of_kind[:, 1:3]).astype(np.float64)
        numbers = (sides.min(), np.median(sides), sides.max()) if sides.size else None
        found.append(None if numbers is None else (float(numbers[0]), float(numbers[1]), float(numbers[2])))
    return found


def labels_text(info: DatasetInfo, labels: npt.NDArray[Any]) -> str:
    """Return in a few words what labels a split has, as their task keeps them."""
    forms = task_named(info.task).forms
    if "boxes" in forms:
        return f"{int((labels[..., 0] >= 0).sum()):,} boxes"
    kind = "values" if "masks" in forms else "labels"
    return f"{kind} {int(labels.min())} to {int(labels.max())}"


def as_plain(details: MaskStatistics | BoxStatistics | None) -> dict[str, Any]:
    """Return the numbers as plain values, none without."""
    return {} if details is None else asdict(details)
