"""A data set of an NPZ file in MedMNIST's layout: the images and labels of three splits, which stay as they are."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import psutil

from visionforge.config.schema.tasks import task_named, usual_task
from visionforge.data.import_settings import ImportSettings
from visionforge.data.info import MAX_RESOLUTION, MIN_RESOLUTION, SPLITS, Split
from visionforge.data.npy import read_array
from visionforge.data.picture_sources import ArchiveImages, open_images
from visionforge.data.zipped import READ_ERRORS, open_zip
from visionforge.errors import DataError, SettingsError
from visionforge.printable import printable

SUFFIX = ".npz"
MOST_CLASSES = 10_000
_LABEL_BYTES = 1 << 30  # of one split
_READ = {"source", "name", "task", "positive", "classes", "hflip", "vflip", "dflip", "rotation", "replace", "root"}
_MEMORY = 0.5  # of what is available, for all images together


@dataclass(frozen=True)
class NpzParts:
    """What a file holds.

    Attributes:
        task: Kind of labels.
        classes: Their names, which are their numbers unless somebody has given names.
        images: By split, (N, R, R[, 3]) or (N, R, R, R[, 3]) uint8.
        labels: By split, (N, 1) class numbers or (N, L) zeros and ones, uint8 or int64.
        resolution: R.
    """

    task: str
    classes: tuple[str, ...]
    images: dict[Split, npt.NDArray[np.uint8]]
    labels: dict[Split, npt.NDArray[Any]]
    resolution: int


def is_npz(settings: ImportSettings) -> bool:
    """Return whether a source is one NPZ file."""
    return settings.source.suffix.lower() == SUFFIX and settings.source.is_file()


def read_npz(settings: ImportSettings) -> NpzParts:
    """Read the file; nothing is unpickled, and sizes are looked at before memory is taken.

    Raises:
        SettingsError: If a setting is for pictures.
        DataError: If the file is damaged, lacks an array, has images that are not square or not alike, more than the
            memory takes, or labels that are none.
    """
    path = settings.source
    _refuse(settings)
    found = {split: open_images(path, split, "source") for split in SPLITS}
    shapes = {images.shape[1:] for images in found.values()}
    if len(shapes) > 1:
        raise DataError(f"{path}: its splits have images of different shapes: {', '.join(map(str, sorted(shapes)))}")
    (shape,) = shapes
    side = shape[0]
    if shape[1] != side or not MIN_RESOLUTION <= side <= MAX_RESOLUTION:
        raise DataError(
            f"{path}: has images of {shape[1]}×{side} pixels; allowed: squares of {MIN_RESOLUTION} to {MAX_RESOLUTION}"
        )
    if settings.resolution not in (_DEFAULTS["resolution"], side):
        raise SettingsError(f"resolution: the images of {path} have {side} pixels and stay so; leave it out")
    wanted = sum(int(np.prod(each.shape)) for each in found.values())
    if wanted > _MEMORY * psutil.virtual_memory().available:
        raise DataError(f"{path}: its images take {wanted / 1e9:,.1f} GB; half of the memory that is left holds fewer")
    images = {split: _images(path, each) for split, each in found.items()}
    labels = {split: _array(path, f"{split}_labels", _LABEL_BYTES) for split in SPLITS}
    task, classes, stored = _labels(settings, labels, {split: len(each) for split, each in images.items()})
    return NpzParts(task, classes, images, stored, side)


_DEFAULTS = {each.name: each.default for each in fields(ImportSettings)}


def _refuse(settings: ImportSettings) -> None:
    for each in fields(ImportSettings):
        if each.name not in (*_READ, "resolution") and getattr(settings, each.name) != each.default:
            raise SettingsError(f"{each.name}: is for pictures, and {settings.source} is an NPZ file; leave it out")


def _images(path: Path, found: ArchiveImages) -> npt.NDArray[np.uint8]:
    array = _array(path, found.member, int(np.prod(found.shape)))
    grey = array.shape[-1] == 1 and array.ndim > 3
    return array[..., 0] if grey else array


def _array(path: Path, member: str, most: int) -> npt.NDArray[Any]:
    try:
        with open_zip(path) as archive:
            if f"{member}.npy" not in archive.namelist():
                raise DataError(
                    f"{path}: has no array {member}; {', '.join(f'{s}_images, {s}_labels' for s in SPLITS)}"
                )
            entry = archive.getinfo(f"{member}.npy")
            with archive.open(entry) as file:
                return read_array(file, entry.file_size, most)
    except READ_ERRORS as error:
        raise DataError(f"{path}: {member} {printable(str(error))}") from error


def _labels(
    settings: ImportSettings, labels: dict[Split, npt.NDArray[Any]], counts: dict[Split, int]
) -> tuple[str, tuple[str, ...], dict[Split, npt.NDArray[Any]]]:
    """Return task, classes and labels as an archive has them."""
    path = settings.source
    stored = {split: _numbers(path, split, array, counts[split]) for split, array in labels.items()}
    widths = {array.shape[1] for array in stored.values()}
    if len(widths) > 1:
        raise DataError(f"{path}: its splits have labels of different widths: {', '.join(map(str, sorted(widths)))}")
    (width,) = widths
    most, several = max(int(array.max()) for array in stored.values()), width > 1
    if several and most > 1:
        raise DataError(f"{path}: labels of which an image may have several are 0 and 1, these go to {most}")
    number = width if several else most + 1
    given = [name.strip() for name in settings.classes.split(",")] if settings.classes else map(str, range(number))
    names = tuple(given)
    if len(names) != number or len(set(names)) < number or number < 2:
        raise DataError(f"classes: {path} has {number} of them, at least 2 are needed; give each a name of its own")
    usual = usual_task(several, number)
    task = settings.task or usual
    forms = {*task_named(task).forms}
    if ("labels" in forms) != several or {"masks", "boxes"} & forms:
        raise SettingsError(f"task: {task} does not fit the labels of {path}, which are {usual}")
    kind = np.uint8 if most < 256 else np.int64
    return task, names, {split: array.astype(kind) for split, array in stored.items()}


def _numbers(path: Path, split: Split, array: npt.NDArray[Any], count: int) -> npt.NDArray[np.int64]:
    """Return labels (N, 1) or (N, L) that are numbers of classes, or zeros and ones."""
    if array.dtype.kind not in "iub" or array.ndim not in (1, 2) or len(array) != count or not array.size:
        raise DataError(
            f"{path}: {split}_labels has the shape {array.shape} of {array.dtype}; expected integers, a row for each "
            f"of {count:,} images"
        )
    found = array.astype(np.int64)
    low, high = int(found.min()), int(found.max())
    if low < 0 or high >= MOST_CLASSES:
        raise DataError(f"{path}: {split}_labels go from {low} to {high}; allowed: 0 to {MOST_CLASSES - 1:,}")
    return found.reshape(len(found), -1)
