"""Turn folders of pictures, or a CSV that names them, into an archive and a catalog entry."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import yaml

from visionforge.config.schema import Task
from visionforge.data.archive import SplitArrays, md5_of
from visionforge.data.download import data_root
from visionforge.data.info import SPLITS, Archive, DatasetInfo, DomainFlags, Normalisation, Split, Splits
from visionforge.data.pictures import SUFFIXES, PictureError, read_picture
from visionforge.data.registry import catalog_folder, is_builtin
from visionforge.data.stratify import stratified_order
from visionforge.errors import DataError
from visionforge.runs.files import write_atomic

PATH_COLUMNS = ("path", "file", "filename", "image")
SEPARATORS = "|;"  # between the labels of one multi-label cell
GROUP_FOLDS = 10  # a group split is made of tenths


@dataclass(frozen=True)
class ImportSettings:
    """What to import, and how.

    Attributes:
        source: A folder of class folders, a folder of `train`, `val` and `test` with class folders, or a CSV file.
        name: Catalog name of the new data set.
        resolution: Height and width of the images, in pixels.
        task: Kind of labels; None is binary for two classes and multi-class for more.
        fractions: Shares of training, validation and test images, where the source gives no splits.
        seed: Seed of the split.
        label_column: Column of the labels; several labels in one cell are separated by ``|`` or ``;``.
        path_column: Column of the paths; None takes the first of path, file, filename, image.
        split_column: Column that names the split of each picture; used if it is there.
        group_column: Column whose values (a patient, a slide) must not be spread over splits.
        hflip: Left and right may be swapped.
        vflip: Top and bottom may be swapped.
        rotation: It may be turned: not, by a few degrees, freely.
        replace: Take the place of an entry of the same name.
        root: Folder for the archive; None is where archives lie by default.
    """

    source: Path
    name: str
    resolution: int = 28
    task: Task | None = None
    fractions: tuple[float, float, float] = (0.7, 0.1, 0.2)
    seed: int = 42
    label_column: str = "label"
    path_column: str | None = None
    split_column: str = "split"
    group_column: str | None = None
    hflip: bool = True
    vflip: bool = False
    rotation: Literal["none", "small", "any"] = "small"
    replace: bool = False
    root: str | None = None


@dataclass
class Listing:
    """The pictures of a source, before any is read.

    Attributes:
        paths: Picture files.
        labels: Label names of each picture; more than one for multi-label data.
        splits: Split of each picture, or None if the source does not say.
        groups: Group of each picture, or None.
    """

    paths: list[Path] = field(default_factory=list)
    labels: list[tuple[str, ...]] = field(default_factory=list)
    splits: list[Split] | None = None
    groups: list[str] | None = None


@dataclass(frozen=True)
class ImportReport:
    """What an import gave.

    Attributes:
        info: The new catalog entry.
        archive: The archive.
        entry: The file of the entry.
        broken: Pictures that could not be read, and why.
    """

    info: DatasetInfo
    archive: Path
    entry: Path
    broken: list[tuple[Path, str]]


def import_images(settings: ImportSettings) -> ImportReport:
    """Read all pictures of a source, and write an archive and a catalog entry.

    Pictures that cannot be read are listed in the report and left out.

    Raises:
        DataError: If the source or the name cannot be used, or a split would be empty.
    """
    entry = catalog_folder() / f"{settings.name}.yaml"
    if is_builtin(settings.name):
        raise DataError(f"--name: {settings.name!r} is a built-in data set; choose another name")
    if entry.exists() and not settings.replace:
        raise DataError(f"--name: {settings.name!r} exists already ({entry}); choose another name, or add --replace")
    listing = list_csv(settings) if settings.source.is_file() else list_folder(settings.source)
    images, kept, broken = _read_all(listing, settings)
    listing = _pick(listing, kept)
    task, classes, labels = _encode(listing, settings)
    split_of = _assign_splits(listing, labels, settings)
    arrays = {split: SplitArrays(images[split_of == split], labels[split_of == split]) for split in SPLITS}
    info = _describe(settings, task, classes, arrays)
    archive = data_root(settings.root) / info.archive_name(settings.resolution)
    _write_archive(archive, arrays)
    info = info.model_copy(update={"archives": {settings.resolution: Archive(url=None, md5=md5_of(archive))}})
    text = yaml.safe_dump(info.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=118)
    write_atomic(entry, text)  # last: an entry without its archive would be of no use
    return ImportReport(info, archive, entry, broken)


# --- listing


def list_folder(folder: Path) -> Listing:
    """List ``CLASS/picture`` or ``SPLIT/CLASS/picture`` below a folder.

    Raises:
        DataError: If there are no class folders with pictures.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder or CSV file")
    names = {path.name for path in folder.iterdir() if path.is_dir()}
    given = set(SPLITS) <= names
    listing = Listing(splits=[] if given else None)
    for split in SPLITS if given else (None,):
        base = folder / split if split else folder
        for class_folder in sorted(path for path in base.iterdir() if path.is_dir()):
            for path in sorted(class_folder.rglob("*")):
                if path.is_file() and path.suffix.lower() in SUFFIXES:
                    listing.paths.append(path)
                    listing.labels.append((class_folder.name,))
                    if listing.splits is not None and split is not None:
                        listing.splits.append(split)
    if not listing.paths:
        raise DataError(f"{folder}: holds no class folders with pictures ({', '.join(sorted(SUFFIXES))})")
    return listing


def list_csv(settings: ImportSettings) -> Listing:
    """List the pictures that a CSV file names, by paths relative to it.

    Raises:
        DataError: If a column is missing, a split is unknown, or a path leads out of the file's folder.
    """
    source = settings.source
    try:
        with source.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{source}: cannot be read as CSV ({error})") from error
    if not rows:
        raise DataError(f"{source}: has no rows")
    columns = list(rows[0])
    path_column = settings.path_column or next((name for name in PATH_COLUMNS if name in columns), "path")
    wanted = [path_column, settings.label_column, *([settings.group_column] if settings.group_column else [])]
    missing = [name for name in wanted if name not in columns]
    if missing:
        raise DataError(f"{source}: has no column {', '.join(missing)}; it has: {', '.join(columns)}")
    has_splits = settings.split_column in columns
    listing = Listing(splits=[] if has_splits else None, groups=[] if settings.group_column else None)
    base = source.parent.resolve()
    problems = []
    for number, row in enumerate(rows, start=2):
        path = (base / str(row[path_column])).resolve()
        if not path.is_relative_to(base):
            problems.append(f"{source}, line {number}: {row[path_column]} lies outside the folder of the file")
            continue
        listing.paths.append(path)
        listing.labels.append(_labels_of(str(row[settings.label_column] or "")))
        if listing.splits is not None:
            split = str(row[settings.split_column]).strip().lower()
            if split not in SPLITS:
                problems.append(f"{source}, line {number}: split {split!r} is unknown; allowed: {', '.join(SPLITS)}")
            listing.splits.append(split)  # type: ignore[arg-type]  # a problem stops the import
        if listing.groups is not None and settings.group_column:
            listing.groups.append(str(row[settings.group_column]))
    if problems:
        raise DataError(problems[:20])
    return listing


def _labels_of(cell: str) -> tuple[str, ...]:
    for separator in SEPARATORS[1:]:
        cell = cell.replace(separator, SEPARATORS[0])
    return tuple(part.strip() for part in cell.split(SEPARATORS[0]) if part.strip())


# --- reading


def _read_all(
    listing: Listing, settings: ImportSettings
) -> tuple[npt.NDArray[np.uint8], list[int], list[tuple[Path, str]]]:
    """Return the images (N, R, R[, 3]), the positions that could be read, and what could not."""
    pictures: list[npt.NDArray[np.uint8]] = []
    kept: list[int] = []
    broken: list[tuple[Path, str]] = []
    for position, path in enumerate(listing.paths):
        try:
            pictures.append(read_picture(path, settings.resolution))
            kept.append(position)
        except PictureError as error:
            broken.append((path, str(error)))
    if not pictures:
        raise DataError(f"{settings.source}: none of its {len(listing.paths)} pictures can be read")
    if any(picture.ndim == 3 for picture in pictures):
        pictures = [p if p.ndim == 3 else np.repeat(p[:, :, None], 3, axis=2) for p in pictures]
    return np.stack(pictures), kept, broken


def _pick(listing: Listing, kept: Sequence[int]) -> Listing:
    return Listing(
        [listing.paths[k] for k in kept],
        [listing.labels[k] for k in kept],
        None if listing.splits is None else [listing.splits[k] for k in kept],
        None if listing.groups is None else [listing.groups[k] for k in kept],
    )


def _encode(listing: Listing, settings: ImportSettings) -> tuple[Task, tuple[str, ...], npt.NDArray[np.integer]]:
    """Return the task, the class names and the labels, (N,) or (N, L)."""
    names = {label for labels in listing.labels for label in labels}
    numeric = all(name.lstrip("-").isdigit() for name in names)
    classes = tuple(sorted(names, key=int) if numeric else sorted(names))
    several = any(len(labels) != 1 for labels in listing.labels)
    task: Task = settings.task or ("multi-label" if several else "binary" if len(classes) == 2 else "multi-class")
    if len(classes) < 2:
        raise DataError(f"{settings.source}: has only the class {', '.join(classes) or 'none'}; at least 2 are needed")
    if several and task != "multi-label":
        raise DataError(f"{settings.source}: some pictures have no label or several, which {task} does not allow")
    if task == "binary" and len(classes) != 2:
        raise DataError(f"--task: binary needs 2 classes, {settings.source} has {len(classes)}")
    index = {name: k for k, name in enumerate(classes)}
    if task == "multi-label":
        matrix = np.zeros((len(listing.labels), len(classes)), dtype=np.uint8)
        for row, labels in enumerate(listing.labels):
            matrix[row, [index[name] for name in labels]] = 1
        return task, classes, matrix
    return task, classes, np.array([index[labels[0]] for labels in listing.labels], dtype=np.int64)


# --- splitting


def _assign_splits(listing: Listing, labels: npt.NDArray[np.integer], settings: ImportSettings) -> npt.NDArray[np.str_]:
    """Return the split of each picture: as given, by whole groups, or stratified by class."""
    if listing.splits is not None:
        assigned = np.array(listing.splits)
    elif listing.groups is not None:
        assigned = _split_groups(labels, np.array(listing.groups), settings)
    else:
        order = stratified_order(labels, np.random.default_rng(settings.seed).permutation(len(labels)))
        bounds = np.rint(np.cumsum(settings.fractions) * len(labels)).astype(np.int64)
        assigned = np.empty(len(labels), dtype="<U5")
        for split, start, end in zip(SPLITS, [0, *bounds[:-1]], bounds, strict=True):
            assigned[order[start:end]] = split
    empty = [split for split in SPLITS if not (assigned == split).any()]
    if empty:
        raise DataError(f"{settings.source}: no pictures for {', '.join(empty)}; more pictures or groups are needed")
    return assigned


def _split_groups(
    labels: npt.NDArray[np.integer], groups: npt.NDArray[np.str_], settings: ImportSettings
) -> npt.NDArray[np.str_]:
    """Give whole groups to the splits, keeping the classes' shares as well as that allows."""
    from sklearn.model_selection import StratifiedGroupKFold

    count = len(np.unique(groups))
    if count < len(SPLITS):
        raise DataError(f"{settings.source}: {count} groups cannot be spread over 3 splits")
    folds = min(GROUP_FOLDS, count)
    strata = labels if labels.ndim == 1 else labels.argmax(axis=1)
    smallest = int(np.bincount(strata).min())
    if smallest < folds:  # too few cases of a class to stratify
        strata = np.zeros(len(groups), dtype=np.int64)
    maker = StratifiedGroupKFold(folds, shuffle=True, random_state=settings.seed)
    fold_of = np.empty(len(groups), dtype=np.int64)
    for fold, (_, members) in enumerate(maker.split(np.zeros(len(groups)), strata, groups)):
        fold_of[members] = fold
    val = max(1, round(settings.fractions[1] * folds))
    test = max(1, round(settings.fractions[2] * folds))
    return np.where(fold_of < test, "test", np.where(fold_of < test + val, "val", "train"))


# --- writing


def _describe(
    settings: ImportSettings, task: Task, classes: tuple[str, ...], arrays: dict[Split, SplitArrays]
) -> DatasetInfo:
    train = arrays["train"].images
    channels: Literal[1, 3] = 3 if train.ndim == 4 else 1
    mean, std = channel_statistics(train)
    return DatasetInfo(
        name=settings.name,
        title=settings.name,
        description=f"Imported from {settings.source.name}.",
        task=task,
        classes=classes,
        channels=channels,
        splits=Splits(**{split: len(part.labels) for split, part in arrays.items()}),
        archives={settings.resolution: Archive(url=None, md5=None)},  # the MD5 is known once it is written
        normalisation=Normalisation(mean=mean, std=std, source="computed"),
        flags=DomainFlags(
            hflip=settings.hflip,
            vflip=settings.vflip,
            rotation=settings.rotation,
            texture_is_label=True,
            colour_is_label=channels == 3,
        ),
        licence="as the source",
        citation="as the source",
    )


def channel_statistics(images: npt.NDArray[np.uint8]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation per channel of (N, H, W[, C]) uint8 images, of values scaled to [0, 1].

    Exact: the 256 possible values are counted, so that no rounding adds up, a part of the images at a time.
    """
    channels = images.shape[3] if images.ndim == 4 else 1
    counts = np.zeros((channels, 256), dtype=np.int64)
    for start in range(0, len(images), 4096):
        part = images[start : start + 4096].reshape(-1, channels)
        for channel in range(channels):
            counts[channel] += np.bincount(part[:, channel], minlength=256)
    values = np.arange(256) / 255
    share = counts / counts.sum(axis=1, keepdims=True)
    mean = share @ values
    std = np.sqrt(np.maximum((share * (values[None] - mean[:, None]) ** 2).sum(axis=1), 1e-12))
    return tuple(round(float(v), 6) for v in mean), tuple(round(float(v), 6) for v in std)


def _write_archive(path: Path, arrays: dict[Split, SplitArrays]) -> None:
    """Write an uncompressed NPZ, which is later mapped in place; it appears whole."""
    content: dict[str, Any] = {}
    for split, part in arrays.items():
        content[f"{split}_images"] = part.images
        labels = part.labels.astype(np.uint8 if part.labels.max() < 256 else np.int64)
        content[f"{split}_labels"] = labels if labels.ndim == 2 else labels[:, None]
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.writing.npz")
    try:
        np.savez(temporary, **content)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
