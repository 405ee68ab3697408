"""Which pictures a folder holds, and of which class and split they are; none is read here."""

import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from visionforge.data.boxes import PictureBoxes
from visionforge.data.info import MAX_TEXT, SPLITS, Split
from visionforge.data.picture_sources import is_junk, is_picture, walk_files
from visionforge.data.pictures import SUFFIXES
from visionforge.data.side_table import well_formed
from visionforge.data.split_names import split_of
from visionforge.data.volume_files import VOLUME_SUFFIXES, is_volume
from visionforge.errors import DataError

UNREAD_VOLUMES = (".mha", ".mhd", ".nrrd")  # told, not read
MAX_PROBLEMS = 20  # lines of a message
SHOWN = 5  # names or numbers in a message
Wanted = Callable[[str | Path], bool]  # whether a file is to be listed


@dataclass
class Listing:
    """The pictures of a source, before any is read.

    Attributes:
        paths: Picture files.
        names: The same relative to the source, with ``/``.
        labels: Label names of each picture; a picture may have several.
        splits: Split of each picture, or None if the source does not say.
        groups: Group of each picture, or None.
        columns: Heading → text of each picture, of further columns that are kept.
        notes: What was left out or looks odd, a line each.
        masks: Mask file of each picture, if they have such.
        boxes: Boxes of each picture, if they have such.
    """

    paths: list[Path] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    labels: list[tuple[str, ...]] = field(default_factory=list)
    splits: list[Split] | None = None
    groups: list[str] | None = None
    columns: dict[str, list[str]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    masks: list[Path] | None = None
    boxes: list[PictureBoxes] | None = None

    def pick(self, kept: Sequence[int]) -> "Listing":
        """Return the pictures at these positions."""
        return Listing(
            [self.paths[k] for k in kept],
            [self.names[k] for k in kept],
            [self.labels[k] for k in kept],
            None if self.splits is None else [self.splits[k] for k in kept],
            None if self.groups is None else [self.groups[k] for k in kept],
            {heading: [texts[k] for k in kept] for heading, texts in self.columns.items()},
            self.notes,
            None if self.masks is None else [self.masks[k] for k in kept],
            None if self.boxes is None else [self.boxes[k] for k in kept],
        )


def some(items: Iterable[object]) -> str:
    """Return the first few items as text, and how many there are beside them."""
    texts = list(map(str, items))
    more = f" and {len(texts) - SHOWN:,} more" if len(texts) > SHOWN else ""
    return ", ".join(texts[:SHOWN]) + more


def first_of(problems: Sequence[str]) -> list[str]:
    """Return the first problems, a line each, and a line that counts the others."""
    more = len(problems) - MAX_PROBLEMS
    return [*problems[:MAX_PROBLEMS], *([f"and {more:,} more problems"] if more > 0 else [])]


def splits_by_folder(names: Sequence[str]) -> list[Split] | None:
    """Return the splits of pictures by the first folder of their relative names; None unless all are in such."""
    found = [split_of(name.partition("/")[0]) if "/" in name else None for name in names]
    splits = [split for split in found if split is not None]
    return splits if splits and len(splits) == len(names) and "train" in splits else None


def class_name(text: str) -> str:
    """Return a class name without surrounding blanks, its accents composed; systems write the same name differently."""
    return unicodedata.normalize("NFC", well_formed(text).strip())


def list_folder(folder: Path) -> Listing:
    """List ``CLASS/picture`` or ``SPLIT/CLASS/picture`` below a folder; of volumes, where it holds no pictures.

    Hidden files and folders, and those that systems and programs leave, are skipped.

    Raises:
        DataError: If there are no class folders with pictures, or folders of splits and of classes are mixed.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder or table")
    listing, loose, splits = _listed(folder, is_picture)
    if not listing.paths:
        listing, loose, splits = _listed(folder, is_volume)
    if not listing.paths:
        if kind := _volume_kind(folder):
            raise DataError(
                f"{folder}: holds no pictures but volumes of a kind that is not read ({kind}); convert them to NIfTI "
                "(.nii, .nii.gz), or to .npy arrays (R, R, R) of uint8"
            )
        inside = f" in its folders {some(path.name for path in splits.values())}" if splits else ""
        raise DataError(
            f"{folder}: holds no class folders with pictures{inside} ({', '.join(sorted(SUFFIXES))}) or volumes "
            f"({', '.join(VOLUME_SUFFIXES)})"
        )
    if loose:
        listing.notes.append(f"{loose:,} pictures lie in no class folder; left out")
    return listing


def _listed(folder: Path, wanted: Wanted) -> tuple[Listing, int, dict[Split, Path]]:
    """Return the files of the wanted kind, how many lie in no class folder, and the folders of splits."""
    listing = Listing()
    try:
        folders, loose = _folders(folder, folder, listing.notes, wanted)
        splits = _split_folders(folder, folders, wanted)
        if splits:
            listing.splits = []
            for split in SPLITS:
                if split in splits:
                    below, direct = _folders(splits[split], folder, listing.notes, wanted)
                    loose += direct
                    _add_classes(listing, folder, below, split, wanted)
        else:
            _add_classes(listing, folder, folders, None, wanted)
    except OSError as error:
        raise DataError(f"{error.filename or folder}: {(error.strerror or str(error)).lower()}") from error
    return listing, loose, splits


def _volume_kind(folder: Path) -> str | None:
    """Return the suffix of the first file in a folder that looks like a volume."""
    names = (Path(path).name.lower() for path in walk_files(folder))
    return next((suffix for name in names for suffix in UNREAD_VOLUMES if name.endswith(suffix)), None)


def _folders(folder: Path, source: Path, notes: list[str], wanted: Wanted) -> tuple[list[Path], int]:
    """Return the visible folders in a folder, sorted, and how many pictures lie directly in it.

    A link to a folder is followed, unless it leads into the source or above it, where its pictures are listed anyway.
    """
    inside, found, loose = source.resolve(), [], 0
    for path in sorted(folder.iterdir()):
        if is_junk(path.name):
            continue
        if not path.is_dir():
            loose += wanted(path)
            continue
        if path.is_symlink():
            target = path.resolve()
            listed = target.is_relative_to(inside) and not any(map(is_junk, target.relative_to(inside).parts))
            if listed or inside.is_relative_to(target):
                notes.append(f"{path} is a link to {target}, which is listed anyway; left out")
                continue
        found.append(path)
    return found, loose


def _split_folders(folder: Path, folders: Sequence[Path], wanted: Wanted) -> dict[Split, Path]:
    """Return the folders that are splits; none where all are classes.

    Raises:
        DataError: If only some of them are, two are the same split, or there is no training split.
    """
    named = [(split, path) for path in folders if (split := split_of(path.name)) is not None]
    others = [path for path in folders if split_of(path.name) is None and any(map(wanted, walk_files(path)))]
    if not named:
        return {}
    if others:
        raise DataError(
            f"{folder}: holds {some(path.name for _, path in named)} (splits?) beside "
            f"{some(path.name for path in others)} (classes?); put the class folders into train, val and test, "
            "move the others elsewhere, or list the pictures in a table (.csv, .xlsx) with the columns path and label"
        )
    found = dict(named)
    if len(found) < len(named):
        twice = some(path.name for split, path in named if [s for s, _ in named].count(split) > 1)
        raise DataError(f"{folder}: {twice} are the same split; put their class folders into one of them")
    if "train" not in found:
        raise DataError(f"{folder}: holds {some(path.name for _, path in named)}, but no folder train")
    return found


def _add_classes(listing: Listing, source: Path, folders: Iterable[Path], split: Split | None, wanted: Wanted) -> None:
    others: list[str] = []
    for folder in folders:
        before = len(listing.paths)
        label = class_name(folder.name)
        if not 0 < len(label) <= MAX_TEXT:
            raise DataError(f"{folder}: its name cannot be that of a class; rename it")
        for path in map(Path, walk_files(folder)):
            if not wanted(path):
                others.append(path.suffix.lower() or path.name)
                continue
            listing.paths.append(path)
            listing.names.append(well_formed(path.relative_to(source).as_posix()))
            listing.labels.append((label,))
            if listing.splits is not None and split is not None:
                listing.splits.append(split)
        if len(listing.paths) == before:
            listing.notes.append(f"{folder} holds no pictures; it is no class{f' of {split}' if split else ''}")
    if others:
        kinds = some(sorted(set(others)))
        where = f" of {split}" if split else ""
        listing.notes.append(
            f"{len(others):,} files in the folders{where} are no pictures that are read ({kinds}); left out"
        )
