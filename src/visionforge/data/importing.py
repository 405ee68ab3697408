"""Turn pictures or volumes with labels, masks or boxes into an archive and a catalog entry."""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from math import inf, prod
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from visionforge.config.schema import TaskName
from visionforge.config.schema.data import MAX_VOLUME_RESOLUTION
from visionforge.config.schema.tasks import task_named
from visionforge.data.archive import channels_of
from visionforge.data.box_listing import list_boxes
from visionforge.data.corrections import apply_corrections
from visionforge.data.csv_listing import list_csv
from visionforge.data.deep_pictures import intensity_of
from visionforge.data.dicom import is_dicom, pydicom_problem
from visionforge.data.dicom_groups import with_patients, with_series
from visionforge.data.download import data_root
from visionforge.data.import_boxes import BoxLabels, BoxReader
from visionforge.data.import_classes import ClassLabels, class_labels, positive_class
from visionforge.data.import_corrected import corrected_parts, is_data_set
from visionforge.data.import_files import check_free, entry_path, write_pair
from visionforge.data.import_masks import MaskLabels, MaskReader
from visionforge.data.import_notes import (
    absent_classes,
    alike_classes,
    divided_series,
    left_out,
    lost_classes,
    shared_pictures,
    with_notes,
)
from visionforge.data.import_npz import is_npz, read_npz
from visionforge.data.import_report import GONE, ImportReport
from visionforge.data.import_settings import ImportSettings
from visionforge.data.info import (
    MAX_RESOLUTION,
    MIN_RESOLUTION,
    SPLITS,
    DatasetInfo,
    DomainFlags,
    Normalisation,
    Split,
    Splits,
)
from visionforge.data.listing import Listing, list_folder
from visionforge.data.mask_listing import list_masks
from visionforge.data.nifti import nibabel_problem
from visionforge.data.pictures import PictureError, read_picture
from visionforge.data.placement import Fit
from visionforge.data.positive import Positive
from visionforge.data.registry import MAX_NAME, is_builtin
from visionforge.data.side_table import SideTable, side_members, well_formed
from visionforge.data.splitting import assign_splits
from visionforge.data.volume_files import is_volume, read_volume
from visionforge.errors import DataError, SettingsError

MASKS, BOXES = "masks", "boxes"  # forms of labels
Labels = ClassLabels | MaskLabels | BoxLabels
Reader = Callable[[int], npt.NDArray[np.uint8]]  # of the picture at a position of a listing
_OF_LABELS: dict[str, tuple[str, ...]] = {  # settings of some forms of labels only
    **dict.fromkeys(("masks", "mask_values", "ignore"), (MASKS,)),
    "boxes": (BOXES,),
    "classes": (MASKS, BOXES),
}
COUNTED_BYTES = 1 << 24  # of images whose values are counted together; counting takes eight times as much
__all__ = ["ImportReport", "ImportSettings", "channel_statistics", "import_images", "list_source"]


@dataclass(frozen=True)
class _Part:
    """One split: images (N, R, R[, 3]) or (N, R, R, R[, 3]), labels as an archive has them, images of each class."""

    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[Any]
    present: list[int]
    side: SideTable


def import_images(settings: ImportSettings) -> ImportReport:
    """Read all pictures of a source, and write an archive and a catalog entry.

    Pictures that cannot be read are listed in the report and left out.

    Raises:
        SettingsError: If a setting is out of its range.
        DataError: If the source or the name cannot be used, or a split would be empty.
    """
    _check_settings(settings)
    check_free(settings.name, settings.replace)
    if is_data_set(settings):
        return _import_corrected(settings)
    if is_npz(settings):
        return _import_npz(settings)
    source = _source(settings)
    listing, settings = source.listing, source.settings
    volumes = _are_volumes(settings, listing)
    if volumes and source.reader is not None:
        raise SettingsError("frames: volume is for classes and labels; masks and boxes are of pictures: leave it out")
    _check_kind(settings, listing, volumes)
    images, kept, broken = _read_all(listing, settings, source.reader or _reader(listing, settings, volumes), volumes)
    lost = lost_classes(listing, kept, settings)
    listing = listing.pick(kept)
    labels = class_labels(listing, settings) if source.reader is None else source.reader.labels()
    positive = positive_class(settings, labels.task, labels.classes)
    split_of, told = assign_splits(listing, labels.strata, settings)
    if settings.corrections is not None:
        if not isinstance(labels, ClassLabels):
            raise SettingsError(f"corrections: are for classes and labels, not for {labels.task}; leave it out")
        done = apply_corrections(settings.corrections, labels.strata, labels.classes, labels.task, listing.names, None)
        labels = replace(labels, strata=done.labels)
        split_of = np.where(done.removed, "", split_of)
        told = [*told, done.summary]
        if empty := [split for split in SPLITS if not (split_of == split).any()]:
            raise DataError(f"corrections: {settings.corrections} leaves no picture of {', '.join(empty)}")
    parts = {split: _part(listing, images, labels, np.flatnonzero(split_of == split)) for split in SPLITS}
    notes = [*listing.notes, *source.notes, *lost, *labels.notes, *alike_classes(labels.classes), *told]
    notes += divided_series(listing, settings)
    notes += absent_classes(labels.classes, {split: part.present for split, part in parts.items()})
    pictures = {split: part.images for split, part in parts.items()}
    notes += shared_pictures(pictures, {split: part.side.names or () for split, part in parts.items()})
    fit = settings.fit or ("pad" if BOXES in task_named(labels.task).forms else "crop")
    info = _describe(settings, labels.task, labels.classes, positive, parts, fit)
    if settings.corrections is not None:
        info = info.model_copy(update={"description": f"{info.description} {done.summary}."})
    content = _content(parts, notes)
    info = with_notes(info, [*left_out(broken), *notes])
    info, archive = write_pair(info, settings.resolution, content, data_root(settings.root), settings.replace)
    return ImportReport(info, archive, entry_path(settings.name), broken, notes, positive)


def _import_npz(settings: ImportSettings) -> ImportReport:
    """Make a data set of an NPZ file, whose arrays stay as they are."""
    found = read_npz(settings)
    task, parts = task_named(found.task), dict[Split, _Part]()
    for split, labels in found.labels.items():
        flat = labels if "labels" in task.forms else labels[:, 0]
        present = [int(count) for count in task.counts(flat, len(found.classes))]
        parts[split] = _Part(found.images[split], labels, present, SideTable())
    positive = positive_class(settings, found.task, found.classes)
    notes = absent_classes(found.classes, {split: part.present for split, part in parts.items()})
    places = {split: [f"{split} {number}" for number in range(len(part.images))] for split, part in parts.items()}
    notes += shared_pictures({split: part.images for split, part in parts.items()}, places)
    info = _describe(settings, found.task, found.classes, positive, parts, "crop")
    content = _content(parts, notes)
    info = with_notes(info, notes)
    info, archive = write_pair(info, found.resolution, content, data_root(settings.root), settings.replace)
    return ImportReport(info, archive, entry_path(settings.name), [], notes, positive)


def _import_corrected(settings: ImportSettings) -> ImportReport:
    """Make a data set from another one with corrected labels."""
    info, found, summary = corrected_parts(settings)
    task = task_named(info.task)
    parts: dict[Split, _Part] = {}
    for split, (arrays, side) in found.items():
        labels = arrays.labels.astype(np.uint8 if arrays.labels.max(initial=0) < 256 else np.int64)
        present = [int(count) for count in task.counts(arrays.labels, len(info.classes))]
        parts[split] = _Part(np.asarray(arrays.images), labels if labels.ndim == 2 else labels[:, None], present, side)
    notes = [summary, *absent_classes(info.classes, {split: part.present for split, part in parts.items()})]
    content = _content(parts, notes)
    info = with_notes(info, [*info.notes, *notes])
    info, archive = write_pair(info, settings.resolution, content, data_root(settings.root), settings.replace)
    return ImportReport(info, archive, entry_path(settings.name), [], notes)


@dataclass(frozen=True)
class _Source:
    """The pictures of a source, what reads them if they have masks or boxes, and how they are to be read."""

    listing: Listing
    settings: ImportSettings
    reader: MaskReader | BoxReader | None
    notes: list[str]


def _source(settings: ImportSettings) -> _Source:
    """List what the source holds: masks, boxes or classes, whichever is asked for or found."""
    listing, reader = _listed(settings)
    if (problem := pydicom_problem(listing.paths)) is not None:
        raise DataError(problem)
    patients = with_patients(listing, settings)
    shared, notes = (None, list[str]()) if _are_volumes(settings, listing) else intensity_of(listing.paths, settings)
    settings = replace(settings, intensity=settings.intensity or shared)
    return _Source(listing, settings, None if reader is None else reader(settings), [*patients, *notes])


def _are_volumes(settings: ImportSettings, listing: Listing) -> bool:
    """Return whether a source is of volumes: by the names, or by what is asked for DICOM files.

    Raises:
        SettingsError: If frames are asked for of files that have none.
    """
    if settings.frames == "volume" and not all(map(is_dicom, listing.paths)):
        raise SettingsError(f"frames: volume is for DICOM files; {settings.source} holds others, too")
    return bool(listing.paths) and (settings.frames == "volume" or all(map(is_volume, listing.paths)))


def list_source(settings: ImportSettings) -> Listing:
    """Return the pictures that a source holds, of which none is read.

    Raises:
        SettingsError: If a setting is for other labels than there are.
        DataError: If the source cannot be used.
    """
    return _listed(settings)[0]


def _listed(settings: ImportSettings) -> tuple[Listing, Callable[[ImportSettings], MaskReader | BoxReader] | None]:
    """Return the pictures, and what makes a reader of those with masks or boxes."""
    forms = (MASKS, BOXES) if settings.task is None else task_named(settings.task).forms
    if MASKS in forms and settings.boxes is None and (listing := list_masks(settings)) is not None:
        _refuse(settings, MASKS)
        return listing, partial(MaskReader, listing)
    if BOXES in forms and settings.masks is None and (found := list_boxes(settings)) is not None:
        _refuse(settings, BOXES)
        return found[0], partial(BoxReader, *found)
    _refuse(settings, None if settings.task is None else forms[0])
    if settings.task is not None and (MASKS in forms or BOXES in forms):
        wanted = "`masks`, a folder of masks" if MASKS in forms else "`boxes`, files of Pascal VOC or COCO"
        raise DataError(f"{settings.source}: {settings.task} needs {wanted}; none are in their usual places")
    listing = list_csv(settings) if settings.source.is_file() else list_folder(settings.source)
    return with_series(listing, settings), None


def _refuse(settings: ImportSettings, form: str | None) -> None:
    """Raise SettingsError for a setting that is for other labels than there are."""
    for name, of in _OF_LABELS.items():
        if getattr(settings, name) is not None and form not in of:
            there = form or f"{settings.source}, which has classes only"
            raise SettingsError(f"{name}: is for {' or '.join(of)}, not for {there}; leave it out")


def _check_settings(settings: ImportSettings) -> None:
    name, fractions = settings.name, settings.fractions
    if not re.fullmatch(rf"[a-z0-9_]{{1,{MAX_NAME}}}", name):
        raise SettingsError(
            f"name: {name!r} is not allowed; allowed: small letters a to z, digits and _, at most {MAX_NAME}"
        )
    if is_builtin(name):
        raise DataError(f"name: {name!r} is a built-in data set; choose another name")
    if not all(share > 0 for share in fractions) or not abs(sum(fractions) - 1) <= 1e-6:  # written so that nan fails
        raise SettingsError(f"fractions: {fractions} is not allowed; three shares above 0 whose sum is 1")
    if not MIN_RESOLUTION <= settings.resolution <= MAX_RESOLUTION:
        raise SettingsError(
            f"resolution: {settings.resolution} is not allowed; allowed: {MIN_RESOLUTION} to {MAX_RESOLUTION}"
        )
    if not 0 <= settings.seed < 1 << 32:
        raise SettingsError(f"seed: {settings.seed} is not allowed; allowed: 0 to {(1 << 32) - 1}")
    if settings.intensity is not None and not -inf < settings.intensity[0] < settings.intensity[1] < inf:
        low, high = settings.intensity
        raise SettingsError(
            f"intensity: {low:g} {high:g} is not allowed; allowed: two numbers, the second above the first"
        )
    if settings.group_column is not None and settings.no_groups:
        raise SettingsError("no_groups: is not allowed beside `group_column`; leave one of them out")
    if settings.group_column is not None and settings.source.is_dir():
        raise SettingsError("group_column: a folder has no columns; list the pictures in a table (.csv, .xlsx)")
    if settings.columns is not None and settings.source.is_dir():
        raise SettingsError("columns: a folder has no columns; list the pictures in a table (.csv, .xlsx)")


def _check_kind(settings: ImportSettings, listing: Listing, volumes: bool) -> None:
    """Check what is for volumes only, and what they need.

    Raises:
        SettingsError: If a setting does not fit.
        DataError: If a package is missing.
    """
    if volumes and settings.resolution > MAX_VOLUME_RESOLUTION:
        raise SettingsError(
            f"resolution: {settings.resolution} is not allowed for volumes; allowed: {MIN_RESOLUTION} to "
            f"{MAX_VOLUME_RESOLUTION}"
        )
    if volumes and settings.fit is not None:
        raise SettingsError("fit: is for pictures; volumes are cut to their middle cube: leave it out")
    if settings.dflip and not volumes:
        raise SettingsError(f"dflip: is for volumes, {settings.source} holds pictures; leave it out")
    if (problem := nibabel_problem(listing.paths)) is not None:
        raise DataError(problem)


# --- reading


def _reader(listing: Listing, settings: ImportSettings, volumes: bool) -> Reader:
    """Return what reads the picture or volume at a position."""
    if volumes:
        return lambda position: read_volume(listing.paths[position], settings.resolution, settings.intensity)
    fit = settings.fit or "crop"
    return lambda position: read_picture(listing.paths[position], settings.resolution, fit, settings.intensity)


def _read_all(
    listing: Listing, settings: ImportSettings, read: Reader, volumes: bool
) -> tuple[npt.NDArray[np.uint8], list[int], list[tuple[Path, str]]]:
    """Return the images (N, R, R[, 3]) or volumes, the positions that could be read, and what could not."""
    pictures: list[npt.NDArray[np.uint8]] = []
    kept: list[int] = []
    broken: list[tuple[Path, str]] = []
    for position, path in enumerate(listing.paths):
        try:
            pictures.append(read(position))
            kept.append(position)
        except PictureError as error:
            broken.append((path, str(error) if path.exists() else GONE))
    if not pictures:
        where = "; the paths of a table begin in its folder" if broken and broken[0][1] == GONE else ""
        why = f" (the first: {broken[0][0]} {broken[0][1]}){where}" if broken else ""
        raise DataError(f"{settings.source}: none of its {len(listing.paths)} pictures can be read{why}")
    sides = 3 if volumes else 2
    if any(picture.ndim > sides for picture in pictures):
        pictures = [p if p.ndim > sides else np.repeat(p[..., None], 3, axis=-1) for p in pictures]
    return np.stack(pictures), kept, broken


def _part(listing: Listing, images: npt.NDArray[np.uint8], labels: Labels, chosen: npt.NDArray[np.int64]) -> _Part:
    columns = {heading: tuple(texts) for heading, texts in listing.columns.items()}
    side = SideTable(tuple(listing.names), None if listing.groups is None else tuple(listing.groups), columns)
    return _Part(images[chosen], labels.at(chosen), labels.present(chosen), side.at(chosen))


# --- writing


def _describe(
    settings: ImportSettings,
    task: TaskName,
    classes: tuple[str, ...],
    positive: Positive | None,
    parts: dict[Split, _Part],
    fit: Fit,
) -> DatasetInfo:
    """Return the catalog entry, without its archive."""
    train = parts["train"].images
    channels: Literal[1, 3] = 3 if channels_of(train.shape) == 3 else 1
    mean, std = channel_statistics(train)
    return DatasetInfo(
        name=settings.name,
        title=settings.name,
        description=f"Imported from {well_formed(settings.source.name)}.",
        made_from=well_formed(str(settings.source.resolve())),
        task=task,
        classes=classes,
        positive=None if positive is None else positive.name,
        channels=channels,
        spatial_dims=3 if train.ndim - (channels == 3) == 4 else 2,
        fit=fit,
        intensity=settings.intensity,
        splits=Splits(**{split: len(part.images) for split, part in parts.items()}),
        columns=tuple(parts["train"].side.columns),
        normalisation=Normalisation(mean=mean, std=std, source="computed"),
        flags=DomainFlags(
            hflip=settings.hflip,
            vflip=settings.vflip,
            dflip=settings.dflip,
            rotation=settings.rotation,
            texture_is_label=True,
            colour_is_label=channels == 3,
        ),
        licence="as the source",
        citation="as the source",
    )


def channel_statistics(images: npt.NDArray[np.uint8]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation per channel of (N[, D], H, W[, 3]) uint8 images, of values scaled to [0, 1].

    Exact: the 256 possible values are counted, so that no rounding adds up, a part of the images at a time.
    """
    channels = channels_of(images.shape)
    counts = np.zeros((channels, 256), dtype=np.int64)
    size = max(1, COUNTED_BYTES // max(1, prod(images.shape[1:])))
    for start in range(0, len(images), size):
        part = images[start : start + size].reshape(-1, channels)
        for channel in range(channels):
            counts[channel] += np.bincount(part[:, channel], minlength=256)
    values = np.arange(256) / 255
    share = counts / counts.sum(axis=1, keepdims=True)
    mean = share @ values
    std = np.sqrt(np.maximum((share * (values[None] - mean[:, None]) ** 2).sum(axis=1), 1e-12))
    return tuple(round(float(v), 6) for v in mean), tuple(round(float(v), 6) for v in std)


def _content(parts: dict[Split, _Part], notes: list[str]) -> dict[str, npt.NDArray[Any]]:
    """Return the arrays of the archive by name; texts that would take too much room are left out, which is noted."""
    content: dict[str, npt.NDArray[Any]] = {}
    for split, part in parts.items():
        content[f"{split}_images"] = part.images
        content[f"{split}_labels"] = part.labels
        content |= side_members(part.side, split, notes)
    return content
