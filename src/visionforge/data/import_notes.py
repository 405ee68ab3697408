"""What an import tells beside its result: classes that are lost, alike or absent, and pictures that splits share."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from visionforge.data.import_settings import ImportSettings
from visionforge.data.info import MAX_NOTE, MAX_NOTES, SPLITS, DatasetInfo, Split
from visionforge.data.inspect import equal_images
from visionforge.data.listing import Listing, some
from visionforge.data.side_table import well_formed
from visionforge.errors import DataError

LEAST_SERIES = 5  # of names that say that there are several pictures of the same
_NUMBERED = re.compile(r"(.+)[_\- ]\d+(?:\.[a-z]+)+$", re.IGNORECASE)  # greedy: the part before the last number


def lost_classes(listing: Listing, kept: Sequence[int], settings: ImportSettings) -> list[str]:
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


def alike_classes(classes: tuple[str, ...]) -> list[str]:
    """Tell of classes whose names differ in case only."""
    by_case: dict[str, list[str]] = {}
    for name in classes:
        by_case.setdefault(name.casefold(), []).append(name)
    return [
        f"the classes {' and '.join(names)} differ in case only; are they one?"
        for names in by_case.values()
        if len(names) > 1
    ]


def divided_series(listing: Listing, settings: ImportSettings) -> list[str]:
    """Tell of names such as ``p001_0.png`` and ``p001_1.png``, whose pictures are divided one by one.

    Not of numbered files: a class all of whose names have the same part before the number, or none, says nothing.
    """
    if listing.groups is not None or listing.splits is not None or settings.no_groups:
        return []
    members: dict[str, list[str]] = {}
    stems_of: dict[tuple[str, ...], set[str]] = {}
    for name, labels in zip(listing.names, listing.labels, strict=True):
        file = name.rpartition("/")[2]
        if found := _NUMBERED.match(file):
            members.setdefault(found[1], []).append(file)
            stems_of.setdefault(labels, set()).add(found[1])
    telling = {stem for stems in stems_of.values() if len(stems) > 1 for stem in stems}
    series = [files for stem, files in members.items() if len(files) > 1 and stem in telling]
    if len(series) < LEAST_SERIES or 3 * sum(map(len, series)) < len(listing.names):
        return []
    return [
        f"the names look like several pictures of each of {len(series):,} patients or the like ({series[0][0]}, "
        f"{series[0][1]}), which are divided one by one; a table (.csv, .xlsx) with a column of groups keeps them "
        "together"
    ]


def absent_classes(classes: tuple[str, ...], present: Mapping[Split, Sequence[int]]) -> list[str]:
    """Tell of classes that a split has no picture of.

    Args:
        classes: Their names.
        present: Split → number of pictures of each class.
    """
    notes = []
    for split in SPLITS:
        missing = [name for name, there in zip(classes, present[split], strict=True) if not there]
        if missing and split == "train":
            notes.append(
                f"train has no pictures of {some(missing)}: nothing can be learnt of what is only in the others"
            )
        elif missing:
            notes.append(f"{split} has no pictures of {some(missing)}")
    return notes


def shared_pictures(images: dict[Split, npt.NDArray[np.uint8]], names: Mapping[Split, Sequence[str]]) -> list[str]:
    """Tell of pictures that lie in two splits, by equal pixels at the imported size.

    Args:
        images: Split → its pictures.
        names: Split → their names.
    """
    notes = []
    for leak in equal_images(images):
        if leak.exact:
            one, two = names[leak.first], names[leak.second]
            pairs = some(f"{one[a]} = {two[b]}" for a, b in leak.exact)
            count = f"{len(leak.exact):,} picture{'s' if len(leak.exact) > 1 else ''}"
            notes.append(
                f"{leak.first} and {leak.second} share {count} with equal pixels ({pairs}), which makes results look "
                "better than they are"
            )
    return notes


def left_out(broken: Sequence[tuple[Path, str]]) -> list[str]:
    """Tell how many pictures could not be read, and why the first one could not."""
    if not broken:
        return []
    path, reason = broken[0]
    count, are = ("1 picture", "is") if len(broken) == 1 else (f"{len(broken):,} pictures", "are")
    return [f"{count} could not be read and {are} left out ({path.name}: {reason})"]


def with_notes(info: DatasetInfo, notes: Sequence[str]) -> DatasetInfo:
    """Return an entry that keeps what an import has told."""
    kept = tuple(well_formed(note[:MAX_NOTE]) for note in dict.fromkeys(notes))
    return info.model_copy(update={"notes": kept[:MAX_NOTES]})
