"""Which pictures a source holds, and the mask of each: by equal names in two folders; none is read here."""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from visionforge.data.csv_listing import list_csv
from visionforge.data.import_settings import ImportSettings
from visionforge.data.info import SPLITS
from visionforge.data.listing import Listing, first_of, some, splits_by_folder
from visionforge.data.mask_files import MASK_SUFFIXES, is_lossy
from visionforge.data.picture_sources import is_junk, is_picture, walk_files
from visionforge.data.side_table import well_formed
from visionforge.data.split_names import split_of
from visionforge.errors import DataError

PICTURES, MASKS = "images", "masks"  # folders beside each other


def list_masks(settings: ImportSettings) -> Listing | None:
    """List pictures and their masks; None if nobody names masks, and the source has no folders of such.

    The pictures are those of a folder or a table, with `masks` a folder in which each has a file of the same
    relative name, its suffix aside. Or a folder has folders `images` and `masks`, or has these in each of its splits.

    Raises:
        DataError: If a picture has no mask or several, a mask has no picture, or a folder cannot be listed.
    """
    source, masks = settings.source, settings.masks
    try:
        if masks is not None:
            if not masks.is_dir():
                raise DataError(f"masks: {masks} is no folder")
            listing = list_csv(settings) if source.is_file() else _pictures(source, masks)
            return _paired(listing, [(source, "", masks)])
        folders = _folders(source) if source.is_dir() else []
        if not folders:
            return None
        listing = Listing()
        for pictures, before, _ in folders:
            _add(listing, pictures, before)
        if before:
            listing.splits = [split for name in listing.names if (split := split_of(name.partition("/")[0]))]
        return _paired(listing, folders)
    except OSError as error:
        raise DataError(f"{error.filename or source}: {(error.strerror or str(error)).lower()}") from error


def _folders(source: Path) -> list[tuple[Path, str, Path]]:
    """Return folders of pictures, what names in them begin with, and the folders of masks beside them."""
    below = sorted(path for path in source.iterdir() if path.is_dir() and not is_junk(path.name))
    if {PICTURES, MASKS} <= {path.name for path in below}:
        return [(source / PICTURES, "", source / MASKS)]
    splits = [path for path in below if split_of(path.name) is not None]
    found = [(path / PICTURES, f"{path.name}/", path / MASKS) for path in splits if (path / MASKS).is_dir()]
    if not found:
        return []
    if bare := [path for path in splits if not ((path / MASKS).is_dir() and (path / PICTURES).is_dir())]:
        raise DataError(f"{some(bare)}: holds no folders {PICTURES} and {MASKS}, which other splits of {source} have")
    kinds = [split_of(path.name) for path in splits]
    if len(set(kinds)) < len(kinds):
        raise DataError(f"{source}: {some(path.name for path in splits)} are the same split twice; join them")
    if "train" not in kinds:
        raise DataError(f"{source}: holds {some(path.name for path in splits)}, but no folder train")
    return sorted(found, key=lambda each: SPLITS.index(split_of(each[1].rstrip("/")) or "train"))


def _pictures(source: Path, masks: Path) -> Listing:
    """List all pictures of a folder but those in the folder of masks."""
    if not source.is_dir():
        raise DataError(f"{source}: no such folder or table")
    listing = Listing()
    _add(listing, source, "", masks.resolve())
    if not listing.paths:
        raise DataError(f"{source}: holds no pictures")
    listing.splits = splits_by_folder(listing.names)
    return listing


def _add(listing: Listing, folder: Path, before: str, without: Path | None = None) -> None:
    for path in map(Path, walk_files(folder)):
        if is_picture(path) and not (without is not None and path.resolve().is_relative_to(without)):
            listing.paths.append(path)
            listing.names.append(before + well_formed(path.relative_to(folder).as_posix()))
            listing.labels.append(())


def _paired(listing: Listing, folders: list[tuple[Path, str, Path]]) -> Listing:
    """Give each picture its mask.

    Raises:
        DataError: If a picture or a mask is left over, or two have one name.
    """
    problems: list[str] = []
    found: dict[str, Path] = {}
    for _, before, masks in folders:
        for name, path in _masks(masks, before):
            if name in found:
                problems.append(f"{path}: {found[name].name} is a mask of the same name; remove one of them")
            found[name] = path
    taken: dict[str, Path] = {}
    listing.masks = []
    for path, name in zip(listing.paths, listing.names, strict=True):
        stem = str(PurePosixPath(name).with_suffix(""))
        if stem in taken:
            problems.append(f"{path}: {taken[stem].name} is a picture of the same name; one mask cannot be of both")
        elif stem not in found:
            where = " or ".join(str(masks) for _, before, masks in folders if stem.startswith(before))
            problems.append(f"{path}: has no mask; {where} needs a file of its name ({', '.join(MASK_SUFFIXES)})")
        elif is_lossy(found[stem]):
            problems.append(
                f"{found[stem]}: is stored with loss (JPEG, WebP), which blurs the borders of masks; save it as PNG"
            )
        else:
            listing.masks.append(found[stem])
        taken[stem] = path
    problems += [f"{path}: is a mask without a picture" for stem, path in found.items() if stem not in taken]
    if problems:
        raise DataError(first_of(problems))
    if not listing.paths:
        raise DataError(f"{some(pictures for pictures, _, _ in folders)}: holds no pictures")
    return listing


def _masks(folder: Path, before: str) -> Iterator[tuple[str, Path]]:
    """Yield the masks of a folder and those below, by their relative names without suffix."""
    for path in map(Path, walk_files(folder)):
        if path.suffix.lower() in MASK_SUFFIXES or is_lossy(path):
            name = PurePosixPath(before + well_formed(path.relative_to(folder).as_posix()))
            yield str(name.with_suffix("")), path
