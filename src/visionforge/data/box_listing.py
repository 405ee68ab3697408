"""Which pictures a source holds, and the boxes of each: from files of Pascal VOC or COCO; no picture is read here."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from visionforge.data.boxes import PictureBoxes
from visionforge.data.coco import read_coco
from visionforge.data.csv_listing import list_csv
from visionforge.data.import_settings import ImportSettings
from visionforge.data.info import Split
from visionforge.data.listing import Listing, first_of, some, splits_by_folder
from visionforge.data.picture_sources import is_picture, walk_files
from visionforge.data.side_table import well_formed
from visionforge.data.split_names import split_of
from visionforge.data.voc import read_splits, read_voc
from visionforge.errors import DataError
from visionforge.reading import UnreadableError

VOC_FOLDERS = ("JPEGImages", "Annotations", "ImageSets/Main")
COCO_FOLDER, COCO_FILE, COCO_PREFIX = "annotations", "_annotations.coco.json", "instances_"


@dataclass
class _Found:
    """What annotation files say, before anybody looks whether the pictures fit."""

    paths: list[Path] = field(default_factory=list)
    boxes: list[PictureBoxes] = field(default_factory=list)
    splits: list[Split | None] = field(default_factory=list)
    order: list[str] = field(default_factory=list)  # classes as COCO numbers them
    notes: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def list_boxes(settings: ImportSettings) -> tuple[Listing, tuple[str, ...]] | None:
    """List pictures and their boxes, and the classes; None if nobody names boxes, and the source has no files of such.

    Raises:
        DataError: If an annotation file cannot be read or names no picture of the source, or there is no box.
    """
    source = settings.source
    try:
        found = _found(settings)
        if found is None:
            return None
        if found.problems:
            raise DataError(first_of(found.problems))
        listing = _of_table(list_csv(settings), found) if source.is_file() else _of_folder(source, found)
    except OSError as error:
        raise DataError(f"{error.filename or source}: {(error.strerror or str(error)).lower()}") from error
    assert listing.boxes is not None
    used = {name for boxes in listing.boxes for name in boxes.names}
    if not used:
        raise DataError(f"{source}: none of its {len(listing.paths):,} pictures has a box")
    if unused := [name for name in dict.fromkeys(found.order) if name not in used]:
        listing.notes.append(f"the categories {some(unused)} have no box; left out")
    known = [name for name in dict.fromkeys(found.order) if name in used]
    return listing, tuple(known or sorted(used))


def _found(settings: ImportSettings) -> _Found | None:
    """Return what the annotation files say; None if there are none."""
    source, boxes = settings.source, settings.boxes
    base = source.parent if source.is_file() else source
    if boxes is not None:
        if not boxes.exists():
            raise DataError(f"boxes: {boxes} does not exist")
        files = [boxes] if boxes.is_file() else [Path(path) for path in walk_files(boxes)]
        json = [path for path in files if path.suffix.lower() == ".json"]
        xml = [path for path in files if path.suffix.lower() == ".xml"]
        if bool(json) == bool(xml) or (xml and boxes.is_file()):
            raise DataError(
                f"boxes: {boxes} holds {len(xml):,} .xml and {len(json):,} .json files; give a folder of XML files of "
                "Pascal VOC, or a JSON file of COCO or a folder of such"
            )
        if xml:
            return _voc(xml, boxes, base / VOC_FOLDERS[0] if (base / VOC_FOLDERS[0]).is_dir() else base, base)
        return _coco(json, base)
    if not source.is_dir():
        return None
    pictures, annotations = source / VOC_FOLDERS[0], source / VOC_FOLDERS[1]
    if pictures.is_dir() and annotations.is_dir():
        xml = [Path(path) for path in walk_files(annotations) if path.lower().endswith(".xml")]
        return _voc(xml, annotations, pictures, source)
    json = sorted((source / COCO_FOLDER).glob("*.json"))
    json = [path for path in json if path.name.startswith(COCO_PREFIX)] or json
    json = json or sorted(source.glob(f"*/{COCO_FILE}")) or sorted(source.glob(COCO_FILE))
    return _coco(json, source) if json else None


# --- Pascal VOC


def _voc(files: Sequence[Path], annotations: Path, pictures: Path, source: Path) -> _Found:
    found = _Found()
    splits = read_splits(source / VOC_FOLDERS[2])
    names = [path.relative_to(pictures) for path in _all_pictures(pictures)]
    by_stem = {name.with_suffix("").as_posix(): name.as_posix() for name in names}
    unlisted = 0
    for path in files:
        stem = path.relative_to(annotations).with_suffix("").as_posix()
        split = None if splits is None else splits.pop(stem, None)
        if splits is not None and split is None:
            unlisted += 1
            continue
        try:
            read = read_voc(path)
            picture = _inside(pictures, by_stem.get(stem, read.picture))
        except (OSError, UnreadableError) as error:
            found.problems.append(f"{path}: {_reason(error)}")
            continue
        if picture is None:
            found.problems.append(f"{path}: there is no picture {stem} (its filename is {read.picture}) in {pictures}")
            continue
        found.paths.append(picture)
        found.boxes.append(read.found)
        found.splits.append(split)
    if unlisted:
        found.notes.append(
            f"{unlisted:,} files of boxes are of pictures in none of the lists in {VOC_FOLDERS[2]}; left out"
        )
    if splits:
        found.problems.append(
            f"{source / VOC_FOLDERS[2]}: {len(splits):,} pictures of its lists have no file in {annotations}: "
            f"{some(splits)}"
        )
    return found


# --- COCO


def _coco(files: Sequence[Path], source: Path) -> _Found:
    found = _Found()
    for path in files:
        split = _split_of_file(path) if len(files) > 1 else None
        if len(files) > 1 and split is None:
            found.problems.append(f"{path}: its name says no split; allowed are names with train, val or test")
            continue
        try:
            read = read_coco(path)
        except (OSError, UnreadableError) as error:
            found.problems.append(f"{path}: {_reason(error)}")
            continue
        if found.order and set(found.order) != set(read.categories):
            other = set(found.order) ^ set(read.categories)
            found.problems.append(f"{path}: its categories are not those of {files[0]}: {some(sorted(other))}")
        found.order += read.categories
        if read.crowds:
            found.notes.append(f"{path}: {read.crowds:,} boxes are of groups (iscrowd); left out")
        if read.flat:
            found.notes.append(f"{path}: {read.flat:,} boxes are 0 pixels wide or high; left out")
        folders = _coco_folders(path, split, source)
        for name, boxes in read.pictures:
            try:
                picture = next((p for folder in folders if (p := _inside(folder, name)) is not None), None)
            except UnreadableError as error:
                found.problems.append(f"{boxes.where}: {error}")
                continue
            if picture is None:
                found.problems.append(f"{boxes.where}: there is no picture {name} in {some(folders)}")
                continue
            found.paths.append(picture)
            found.boxes.append(boxes)
            found.splits.append(split)
    return found


def _split_of_file(path: Path) -> Split | None:
    """Return the split that a file's name says, as in ``instances_train2017.json``, or else that of its folder."""
    words = re.split("[^a-z]+", path.stem.casefold())
    return next((split for word in words if (split := split_of(word)) is not None), split_of(path.parent.name))


def _coco_folders(path: Path, split: Split | None, source: Path) -> list[Path]:
    """Return where the pictures of a file may lie: in the folders of the source, and beside it if it lies there."""
    below = [source, source / "images"]
    own = [] if split is None else [f for b in below if b.is_dir() for f in b.iterdir() if _is_of(f, split)]
    beside = [path.parent] if path.parent.resolve().is_relative_to(source.resolve()) else []
    return [folder for folder in dict.fromkeys((*sorted(own), *beside, *reversed(below))) if folder.is_dir()]


def _is_of(folder: Path, split: Split) -> bool:
    return split_of(folder.name.rstrip("0123456789")) == split  # COCO writes train2017


# --- pictures


def _all_pictures(folder: Path) -> list[Path]:
    return [Path(path) for path in walk_files(folder) if is_picture(path)]


def _inside(folder: Path, name: str) -> Path | None:
    """Return the file that a name from a stranger's file means; None if there is none.

    Raises:
        UnreadableError: If it lies outside of the folder, by what is written or by a link.
    """
    try:
        path = folder / name
        target = path.resolve()
        if not target.is_relative_to(folder.resolve()):
            raise UnreadableError(f"{name} lies outside of the folder {folder}; names within it are allowed")
        return path if name and target.is_file() else None
    except (OSError, RuntimeError, ValueError) as error:
        if isinstance(error, UnreadableError):
            raise
        raise UnreadableError(f"{name} is no path ({error})") from error


def _reason(error: Exception) -> str:
    return str(error) if isinstance(error, UnreadableError) else f"cannot be read ({error})"


def _of_folder(source: Path, found: _Found) -> Listing:
    """Return the annotated pictures of a folder, each once."""
    base = source.resolve()
    listing = Listing(notes=found.notes, boxes=[])
    seen: dict[Path, str] = {}
    assert listing.boxes is not None
    for path, boxes in zip(found.paths, found.boxes, strict=True):
        real = path.resolve()
        if real in seen:
            found.problems.append(f"{boxes.where}: {path.name} has boxes in {seen[real]}, too; remove one of them")
        seen[real] = boxes.where
        listing.paths.append(path)
        name = path.relative_to(source) if path.is_relative_to(source) else real.relative_to(base)
        listing.names.append(well_formed(name.as_posix()))
        listing.labels.append(())
        listing.boxes.append(boxes)
    if found.problems:
        raise DataError(first_of(found.problems))
    given = [split for split in found.splits if split is not None]
    listing.splits = given if given else splits_by_folder(listing.names)
    if spare := len({path.resolve() for path in _all_pictures(source)} - set(seen)):
        listing.notes.append(f"{spare:,} pictures of {source} have no file of boxes; left out")
    return listing


def _of_table(listing: Listing, found: _Found) -> Listing:
    """Return the pictures of a table with their boxes."""
    known = {path.resolve(): boxes for path, boxes in zip(found.paths, found.boxes, strict=True)}
    problems = [f"{path}: nothing says its boxes" for path in listing.paths if path not in known]
    if problems:
        raise DataError(first_of(problems))
    listing.boxes = [known[path] for path in listing.paths]
    listing.notes += found.notes
    return listing
