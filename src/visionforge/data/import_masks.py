"""Pictures with masks, read together, and which classes the values of the masks are."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from visionforge.config.schema.tasks import task_of_form
from visionforge.data.import_settings import ImportSettings
from visionforge.data.listing import MAX_PROBLEMS, Listing, first_of, some
from visionforge.data.mask_files import HIGHEST, read_mask
from visionforge.data.pictures import PictureError, read_annotated, resize_mask
from visionforge.errors import DataError, SettingsError

IGNORED = HIGHEST  # what pixels that count for nothing are in an archive
MOST_CLASSES = IGNORED  # 0 to 254
MOST_UNNAMED = 32  # values that are taken for classes without names; more are rather the numbers of objects
LEAST_NUMBERED = 4  # different numbers of objects, which make masks look as if they were numbered
FOREGROUND = ("background", "foreground")


@dataclass(frozen=True)
class MaskLabels:
    """The masks of all pictures.

    Attributes:
        classes: Name of each value, from 0.
        masks: (N, R, R) uint8.
        notes: What there is to say, a line each.
        task: Kind of labels.
    """

    classes: tuple[str, ...]
    masks: npt.NDArray[np.uint8]
    notes: list[str]
    task: str
    strata: None = None

    def at(self, chosen: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
        """Return the masks of some pictures as an archive has them: (N, R, R) uint8."""
        return self.masks[chosen]

    def present(self, chosen: npt.NDArray[np.int64]) -> list[int]:
        """Return how many of the pictures have each class."""
        return [int(count) for count in mask_presence(self.masks[chosen], len(self.classes)).sum(axis=0)]


def mask_presence(masks: npt.NDArray[np.integer[Any]], classes: int) -> npt.NDArray[np.bool_]:
    """Return (N, K), whether a mask (H, W) has a pixel of a class."""
    return mask_pixels(masks, classes) > 0


def mask_pixels(masks: npt.NDArray[np.integer[Any]], classes: int) -> npt.NDArray[np.int64]:
    """Return (N, K) pixels of each class in masks (N, H, W); those of other values, which are ignored, are in none."""
    pixels = np.zeros((len(masks), classes), dtype=np.int64)
    for row, mask in enumerate(masks):
        pixels[row] = np.bincount(mask.reshape(-1), minlength=HIGHEST + 1)[:classes]
    return pixels


class MaskReader:
    """Reads pictures with their masks, one after the other, and remembers what is wrong.

    Args:
        listing: The pictures.
        settings: What to import.

    Raises:
        SettingsError: If a setting of masks is out of its range.
    """

    def __init__(self, listing: Listing, settings: ImportSettings) -> None:
        self._listing, self._settings = listing, settings
        self._fit = settings.fit or "crop"
        self._foreground = settings.mask_values == "foreground"
        self._names = settings.class_names or (FOREGROUND if self._foreground else ())
        self._masks: list[npt.NDArray[np.uint8]] = []
        self._values: list[npt.NDArray[np.int64]] = []  # of the whole masks, those of ignored pixels left out
        self._problems: list[str] = []
        if settings.ignore is not None and not 1 <= settings.ignore <= HIGHEST:
            raise SettingsError(f"ignore: {settings.ignore} is not allowed; allowed: 1 to {HIGHEST}")
        if settings.classes is not None and not 2 <= len(self._names) <= MOST_CLASSES:
            raise SettingsError(
                f"classes: {len(self._names)} names are not allowed for masks; allowed: 2 to {MOST_CLASSES}, of which "
                "the first is of the value 0, the background"
            )
        if self._foreground and len(self._names) != 2:
            raise SettingsError(
                f"classes: {len(self._names)} names are not allowed; foreground has 2: outside and inside"
            )

    def __call__(self, position: int) -> npt.NDArray[np.uint8]:
        """Return a picture, and keep its mask.

        Raises:
            PictureError: If the picture cannot be read.
            DataError: If too many masks have problems.
        """
        assert self._listing.masks is not None
        path = self._listing.masks[position]
        picture, size = read_annotated(
            self._listing.paths[position], self._settings.resolution, self._fit, self._settings.intensity
        )
        try:
            mask = self._encoded(read_mask(path), size)
        except PictureError as error:
            self._problems.append(f"{path}: {error}")
            if len(self._problems) > MAX_PROBLEMS:
                self._require_sound()
            mask = np.zeros((1, 1), dtype=np.uint8)
        fill = 0 if self._settings.ignore is None else IGNORED
        self._masks.append(resize_mask(mask, self._settings.resolution, self._fit, fill))
        return picture

    def _encoded(self, values: npt.NDArray[np.uint16], size: tuple[int, int]) -> npt.NDArray[np.uint8]:
        """Return the mask of a picture as an archive has its values.

        Raises:
            PictureError: If it has another size, or a value that is no class.
        """
        height, width = values.shape
        if (width, height) != size:
            raise PictureError(
                f"has {width}×{height} pixels, its picture {size[0]}×{size[1]}; both have to be of one size"
            )
        ignore = self._settings.ignore
        ignored = None if ignore is None else values == ignore
        found = np.unique(values).astype(np.int64)
        found = found[found != ignore]
        self._values.append(found)
        if self._foreground:
            mask = (values > 0).astype(np.uint8)
        else:
            highest = (len(self._names) or MOST_CLASSES) - 1
            if len(found) and found[-1] > highest:
                raise PictureError(self._outside(int(found[-1]), highest))
            mask = values.astype(np.uint8)
        if ignored is not None:
            mask[ignored] = IGNORED
        return mask

    def _outside(self, value: int, highest: int) -> str:
        hint = "`mask_values` foreground if everything above 0 is one class"
        if self._settings.ignore is None and value <= HIGHEST:
            hint = f"`ignore` {value} if it stands for pixels that count for nothing, or {hint}"
        allowed = f"0 to {highest}" + (f" ({some(self._names)})" if self._names else "")
        return f"has the value {value:,}; allowed: {allowed}; add {hint}"

    def _require_sound(self) -> None:
        if self._problems:
            raise DataError(first_of(self._problems))

    def labels(self) -> MaskLabels:
        """Return the masks of all pictures that could be read.

        Raises:
            DataError: If a mask cannot be read, all are empty, or their values are rather no classes.
        """
        self._require_sound()
        classes = self._names or self._unnamed()
        masks = np.stack(self._masks)
        source, notes = self._settings.source, []
        if not self._names:
            notes.append(
                f"the classes are called {some(classes)}; `classes` names them. One that is called {FOREGROUND[0]} is "
                "in no mean over the classes"
            )
        empty = sum(1 for values in self._values if not (values > 0).any())
        if empty == len(masks):
            raise DataError(f"{source}: all of its {empty:,} masks are empty; there is nothing to learn")
        if empty:
            notes.append(f"{empty:,} of {len(masks):,} masks are empty: nothing but {classes[0]}")
        lost = len(masks) - empty - int(mask_presence(masks, len(classes))[:, 1:].any(axis=1).sum())
        if lost > 0:
            notes.append(f"{lost:,} masks became empty at {self._settings.resolution} pixels: all is small or cut off")
        return MaskLabels(classes, masks, notes, self._settings.task or task_of_form("masks"))

    def _unnamed(self) -> tuple[str, ...]:
        """Return the classes that the values are, if they look like such."""
        source = self._settings.source
        present = sorted({int(value) for values in self._values for value in values} | {0})
        count = present[-1] + 1
        hint = "add `mask_values` foreground if everything above 0 is one class, or name all with `classes`"
        if count > MOST_UNNAMED or self._are_numbered(count):
            raise DataError(
                f"{source}: its masks have {len(present):,} values from 0 to {present[-1]:,}, which look like the "
                f"numbers of objects; {hint}"
            )
        if len(present) < count:
            missing = some(sorted(set(range(count)) - set(present)))
            raise DataError(f"{source}: its masks have the values {some(present)}, but never {missing}; {hint}")
        return (FOREGROUND[0], *map(str, range(1, max(2, count))))

    def _are_numbered(self, count: int) -> bool:
        """Return whether each mask has all values up to its largest, which differs much: objects, counted in each."""
        tops = [int(values[-1]) if len(values) else 0 for values in self._values]
        whole = all(
            set(values.tolist()) >= set(range(1, top + 1)) for values, top in zip(self._values, tops, strict=True)
        )
        return whole and count > LEAST_NUMBERED and len(set(tops)) >= LEAST_NUMBERED
