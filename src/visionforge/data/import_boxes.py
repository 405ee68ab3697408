"""Pictures with boxes, read together: boxes compared with their pictures, and brought to the square of the network."""

from collections import Counter
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from visionforge.config.schema.tasks import task_named, task_of_form
from visionforge.data.boxes import COLUMNS, PictureBoxes
from visionforge.data.import_settings import ImportSettings
from visionforge.data.info import MAX_CLASSES
from visionforge.data.listing import MAX_PROBLEMS, Listing, first_of, some
from visionforge.data.pictures import read_annotated
from visionforge.data.placement import areas, place_boxes, placement, within
from visionforge.errors import DataError

TOLERANCE = 1.0  # pixels that a box may reach beyond its picture; many programs are off by one
LEAST_SIDE = 1.0  # pixels of the square; a smaller box shows nothing
LEAST_SHARE = 0.3  # of a box that a crop has to leave


@dataclass(frozen=True)
class BoxLabels:
    """The boxes of all pictures.

    Attributes:
        classes: Names of the classes.
        rows: For each picture (M, 5): class, x1, y1, x2, y2 in pixels of the square.
        notes: What there is to say, a line each.
        task: Kind of labels.
    """

    classes: tuple[str, ...]
    rows: list[npt.NDArray[np.float64]]
    notes: list[str]
    task: str
    strata: None = None

    def at(self, chosen: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """Return the boxes of some pictures as an archive has them.

        Returns:
            (M, 6) rows of the picture's index among the chosen ones, class, x1, y1, x2, y2; sorted by the first.
        """
        rows = [np.insert(self.rows[k], 0, index, axis=1) for index, k in enumerate(chosen.tolist())]
        return np.concatenate([np.zeros((0, COLUMNS)), *rows])

    def present(self, chosen: npt.NDArray[np.int64]) -> list[int]:
        """Return how many of the pictures have a box of each class."""
        counts = Counter(int(each) for k in chosen.tolist() for each in set(self.rows[k][:, 0]))
        return [counts[k] for k in range(len(self.classes))]


class BoxReader:
    """Reads pictures, one after the other, and fits their boxes to them.

    Args:
        listing: The pictures.
        classes: The names that their boxes have, in order.
        settings: What to import.

    Raises:
        DataError: If a box has a class that is not among the asked ones, or there are too many classes.
    """

    def __init__(self, listing: Listing, classes: tuple[str, ...], settings: ImportSettings) -> None:
        self._listing, self._settings = listing, settings
        self._fit = settings.fit or "pad"
        self._classes = settings.class_names or classes
        self._rows: list[npt.NDArray[np.float64]] = []
        self._problems: list[str] = []
        self._clipped = self._small = self._cut = 0
        if other := sorted(set(classes) - set(self._classes)):
            raise DataError(f"classes: {some(other)} is a class of boxes, but not among {some(self._classes)}; add it")
        least = task_named(settings.task or task_of_form("boxes")).least_classes
        if len(self._classes) < least:
            raise DataError(
                f"{settings.source}: has only the class {self._classes[0]}; at least {least} are needed: name one that "
                f"no box has, too, with `classes` {self._classes[0]},other"
            )
        if len(self._classes) > MAX_CLASSES:
            raise DataError(f"{settings.source}: has {len(self._classes):,} classes, more than {MAX_CLASSES:,}")

    def __call__(self, position: int) -> npt.NDArray[np.uint8]:
        """Return a picture, and keep its boxes.

        Raises:
            PictureError: If the picture cannot be read.
            DataError: If too many pictures have problems.
        """
        assert self._listing.boxes is not None
        found = self._listing.boxes[position]
        picture, size = read_annotated(
            self._listing.paths[position], self._settings.resolution, self._fit, self._settings.intensity
        )
        problems = _problems(found, size)
        self._problems += problems
        if len(self._problems) > MAX_PROBLEMS:
            self._require_sound()
        self._rows.append(np.zeros((0, COLUMNS - 1)) if problems else self._placed(found, size))
        return picture

    def _placed(self, found: PictureBoxes, size: tuple[int, int]) -> npt.NDArray[np.float64]:
        """Return (M, 5) class, x1, y1, x2, y2 in pixels of the square, of the boxes that are left there."""
        whole = within(found.boxes, *size)
        self._clipped += int((whole != found.boxes).any(axis=1).sum())
        resolution = self._settings.resolution
        placed = place_boxes(whole, placement(size, resolution, self._fit))
        left = within(placed, resolution, resolution)
        cut = areas(left) < LEAST_SHARE * areas(placed)
        small = ~cut & ((left[:, 2:] - left[:, :2]) < LEAST_SIDE).any(axis=1)
        self._cut += int(cut.sum())
        self._small += int(small.sum())
        numbers = np.array([self._classes.index(name) for name in found.names], dtype=np.float64)
        return np.column_stack([numbers, left])[~(cut | small)]

    def _require_sound(self) -> None:
        if self._problems:
            raise DataError(first_of(self._problems))

    def labels(self) -> BoxLabels:
        """Return the boxes of all pictures that could be read.

        Raises:
            DataError: If a box does not fit its picture, or none is left.
        """
        self._require_sound()
        source, resolution = self._settings.source, self._settings.resolution
        bare = sum(1 for rows in self._rows if not len(rows))
        if bare == len(self._rows):
            raise DataError(f"{source}: no box is left at {resolution} pixels; choose a larger `resolution`")
        notes = [
            (self._clipped, f"reached up to {TOLERANCE:g} pixel beyond their pictures; cut off there"),
            (self._cut, f"lie outside of the middle square with more than {1 - LEAST_SHARE:.0%}; left out (see `fit`)"),
            (self._small, f"are smaller than {LEAST_SIDE:g} pixel at {resolution} pixels; left out"),
        ]
        told = [f"{count:,} boxes {text}" for count, text in notes if count]
        told += [f"{bare:,} of {len(self._rows):,} pictures have no box"] if bare else []
        return BoxLabels(self._classes, self._rows, told, self._settings.task or task_of_form("boxes"))


def _problems(found: PictureBoxes, size: tuple[int, int]) -> list[str]:
    """Return what is wrong with the boxes of a picture of this width and height."""
    width, height = size
    if found.size not in (None, size):
        stated = f"{found.size[0]}×{found.size[1]}" if found.size else ""
        return [f"{found.where}: states {stated} pixels, its picture has {width}×{height}; mend one of them"]
    beyond = np.concatenate([-found.boxes[:, :2], found.boxes[:, 2:] - np.array([width, height])], axis=1).max(axis=1)
    whole = within(found.boxes, width, height)
    outside = (beyond > TOLERANCE) | (whole[:, 2:] <= whole[:, :2]).any(axis=1) if len(beyond) else []
    return [
        f"{found.where}: box {k + 1} ({found.names[k]}) reaches from ({box[0]:g}, {box[1]:g}) to ({box[2]:g}, "
        f"{box[3]:g}), counted from 0; allowed: within the {width}×{height} pixels of its picture"
        for k, box in enumerate(found.boxes.tolist())
        if outside[k]
    ]
