"""Turn folders of pictures or volumes, or a CSV that names them, into an archive and a catalog entry."""

import re
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from visionforge.config.schema import TaskName
from visionforge.config.schema.data import MAX_VOLUME_RESOLUTION
from visionforge.config.schema.tasks import task_named, tasks, usual_task
from visionforge.data.archive import channels_of
from visionforge.data.csv_listing import list_csv
from visionforge.data.download import data_root
from visionforge.data.import_files import check_free, entry_path, write_pair
from visionforge.data.import_report import ImportReport
from visionforge.data.import_settings import ImportSettings
from visionforge.data.info import (
    MAX_CLASSES,
    MAX_RESOLUTION,
    MIN_RESOLUTION,
    SPLITS,
    DatasetInfo,
    DomainFlags,
    Normalisation,
    Split,
    Splits,
)
from visionforge.data.inspect import equal_images
from visionforge.data.listing import Listing, list_folder, some
from visionforge.data.nifti import nibabel_problem
from visionforge.data.pictures import PictureError, read_picture
from visionforge.data.positive import Positive, choose_positive
from visionforge.data.registry import is_builtin
from visionforge.data.side_table import MAX_BYTES, MAX_CHARACTERS, SideTable, well_formed
from visionforge.data.splitting import assign_splits
from visionforge.data.volume_files import is_volume, read_volume
from visionforge.errors import DataError, SettingsError

COUNTED_BYTES = 1 << 24  # of images whose values are counted together; counting takes eight times as much
MAX_NAME = 60  # characters of a catalog name; it stands in names of folders and files
__all__ = ["ImportReport", "ImportSettings", "channel_statistics", "import_images"]


@dataclass(frozen=True)
class _Part:
    """The images of one split, (N, R, R[, 3]) or (N, R, R, R[, 3]), their labels, and what is known of each."""

    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.integer]
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
    listing = list_csv(settings) if settings.source.is_file() else list_folder(settings.source)
    volumes = bool(listing.paths) and all(map(is_volume, listing.paths))
    _check_kind(settings, listing, volumes)
    images, kept, broken = _read_all(listing, settings, volumes)
    lost = _lost(listing, kept, settings)
    listing = listing.pick(kept)
    task, classes, labels = _encode(listing, settings)
    positive = _positive(settings, task, classes)
    split_of, told = assign_splits(listing, labels, settings)
    parts = {split: _part(listing, images, labels, np.flatnonzero(split_of == split)) for split in SPLITS}
    notes = [*listing.notes, *lost, *_alike(classes), *told, *_absent(task, classes, parts), *_shared(parts)]
    info = _describe(settings, task, classes, positive, parts)
    content = _content(parts, notes)
    info, archive = write_pair(info, settings.resolution, content, data_root(settings.root), settings.replace)
    return ImportReport(info, archive, entry_path(settings.name), broken, notes, positive)


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
    if settings.group_column is not None and settings.no_groups:
        raise SettingsError("no_groups: is not allowed beside `group_column`; leave one of them out")
    if settings.group_column is not None and settings.source.is_dir():
        raise SettingsError("group_column: a folder has no columns; list the pictures in a CSV file")


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
    if settings.dflip and not volumes:
        raise SettingsError(f"dflip: is for volumes, {settings.source} holds pictures; leave it out")
    if (problem := nibabel_problem(listing.paths)) is not None:
        raise DataError(problem)


# --- reading


def _read_all(
    listing: Listing, settings: ImportSettings, volumes: bool
) -> tuple[npt.NDArray[np.uint8], list[int], list[tuple[Path, str]]]:
    """Return the images (N, R, R[, 3]) or volumes, the positions that could be read, and what could not."""
    read = read_volume if volumes else read_picture
    pictures: list[npt.NDArray[np.uint8]] = []
    kept: list[int] = []
    broken: list[tuple[Path, str]] = []
    for position, path in enumerate(listing.paths):
        try:
            pictures.append(read(path, settings.resolution))
            kept.append(position)
        except PictureError as error:
            broken.append((path, str(error)))
    if not pictures:
        why = f" (the first: {broken[0][0]} {broken[0][1]})" if broken else ""
        raise DataError(f"{settings.source}: none of its {len(listing.paths)} pictures can be read{why}")
    sides = 3 if volumes else 2
    if any(picture.ndim > sides for picture in pictures):
        pictures = [p if p.ndim > sides else np.repeat(p[..., None], 3, axis=-1) for p in pictures]
    return np.stack(pictures), kept, broken


def _lost(listing: Listing, kept: list[int], settings: ImportSettings) -> list[str]:
    """Tell of classes of which no picture can be read.

    Raises:
        DataError: If that befalls a split; another one made in its place would not be the source's.
    """
    readable = set(kept)
    for split in SPLITS:
        members = [k for k, of in enumerate(listing.splits or ()) if of == split]
        if members and not readable.intersection(members):
            raise DataError(f"{settings.source}: none of the {len(members):,} pictures of {split} can be read")
    before = {label for labels in listing.labels for label in labels}
    missing = sorted(before - {label for k in kept for label in listing.labels[k]})
    return [f"no picture of {some(missing)} can be read; left out"] if missing else []


def _encode(listing: Listing, settings: ImportSettings) -> tuple[TaskName, tuple[str, ...], npt.NDArray[np.integer]]:
    """Return the task, the class names and the labels, (N,) or (N, L)."""
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
    return task, classes, kind.encoded(listing.labels, classes)


def _positive(settings: ImportSettings, task: TaskName, classes: tuple[str, ...]) -> Positive | None:
    """Return which of two classes is to be found: as asked, or as the names tell."""
    has_positive = task_named(task).has_positive
    if settings.positive is None:
        return choose_positive((classes[0], classes[1])) if has_positive else None
    if not has_positive:
        fitting = " or ".join(name for name, kind in tasks().items() if kind.has_positive)
        raise SettingsError(f"positive: is for {fitting} data, this is {task} ({len(classes)} classes)")
    if settings.positive not in classes:
        raise SettingsError(f"positive: {settings.positive!r} is not allowed; allowed: {', '.join(classes)}")
    return Positive(settings.positive, "as asked", True)


def _part(
    listing: Listing, images: npt.NDArray[np.uint8], labels: npt.NDArray[np.integer], chosen: npt.NDArray[np.int64]
) -> _Part:
    side = SideTable(tuple(listing.names), None if listing.groups is None else tuple(listing.groups))
    return _Part(images[chosen], labels[chosen], side.at(chosen))


# --- what there is to say


def _alike(classes: tuple[str, ...]) -> list[str]:
    """Tell of classes whose names differ in case only."""
    by_case: dict[str, list[str]] = {}
    for name in classes:
        by_case.setdefault(name.casefold(), []).append(name)
    return [
        f"the classes {' and '.join(names)} differ in case only; are they one?"
        for names in by_case.values()
        if len(names) > 1
    ]


def _absent(task: TaskName, classes: tuple[str, ...], parts: dict[Split, _Part]) -> list[str]:
    """Tell of classes that a split has no picture of."""
    notes = []
    kind, count = task_named(task), len(classes)
    present = {split: kind.counts(part.labels, count).tolist() for split, part in parts.items()}
    for split in SPLITS:
        missing = [name for name, there in zip(classes, present[split], strict=True) if not there]
        if missing and split == "train":
            notes.append(
                f"train has no pictures of {some(missing)}: nothing can be learnt of what is only in the others"
            )
        elif missing:
            notes.append(f"{split} has no pictures of {some(missing)}")
    return notes


def _shared(parts: dict[Split, _Part]) -> list[str]:
    """Tell of pictures that lie in two splits, by equal pixels at the imported size."""
    notes = []
    for leak in equal_images({split: part.images for split, part in parts.items()}):
        if leak.exact:
            one, two = parts[leak.first].side.names, parts[leak.second].side.names
            assert one is not None
            assert two is not None
            pairs = some(f"{one[a]} = {two[b]}" for a, b in leak.exact)
            count = f"{len(leak.exact):,} picture{'s' if len(leak.exact) > 1 else ''}"
            notes.append(
                f"{leak.first} and {leak.second} share {count} with equal pixels ({pairs}), which makes results look "
                "better than they are"
            )
    return notes


# --- writing


def _describe(
    settings: ImportSettings,
    task: TaskName,
    classes: tuple[str, ...],
    positive: Positive | None,
    parts: dict[Split, _Part],
) -> DatasetInfo:
    """Return the catalog entry, without its archive."""
    train = parts["train"].images
    channels: Literal[1, 3] = 3 if channels_of(train.shape) == 3 else 1
    mean, std = channel_statistics(train)
    return DatasetInfo(
        name=settings.name,
        title=settings.name,
        description=f"Imported from {well_formed(settings.source.name)}.",
        task=task,
        classes=classes,
        positive=None if positive is None else positive.name,
        channels=channels,
        spatial_dims=3 if train.ndim - (channels == 3) == 4 else 2,
        splits=Splits(**{split: len(part.labels) for split, part in parts.items()}),
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
        labels = part.labels.astype(np.uint8 if part.labels.max() < 256 else np.int64)
        content[f"{split}_labels"] = labels if labels.ndim == 2 else labels[:, None]
        for kind, texts in (("names", part.side.names), ("groups", part.side.groups)):
            if texts is None:
                continue
            longest = max(map(len, texts))
            if longest > MAX_CHARACTERS or 4 * longest * len(texts) > MAX_BYTES:
                notes.append(f"the {kind} of {split} are not kept: texts of {longest:,} characters take too much room")
            else:
                content[f"{split}_{kind}"] = np.array(texts, dtype=f"<U{max(1, longest)}")
    return content
