"""`index.html` and `pairs.csv`: images of a data set that are the same picture, side by side; it opens offline."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from visionforge.data.archive import channels_of
from visionforge.data.checks import ArchiveReport
from visionforge.data.duplicates import KINDS, Pair, Place
from visionforge.data.info import SPLITS, DatasetInfo, Split
from visionforge.data.source import whole_split
from visionforge.evaluation.evaluation import Array
from visionforge.evaluation.slices import as_picture
from visionforge.evaluation.table_writers import cell_safe
from visionforge.printable import csv_text, printable
from visionforge.reporting.figures.static import elided
from visionforge.reporting.rendering import render
from visionforge.reporting.thumbnails import data_uri
from visionforge.runs.files import write_atomic
from visionforge.runs.owned_files import Listed, OwnedFolder, described

PAGE, TABLE, DESCRIPTION = "index.html", "pairs.csv", "duplicates.json"
MOST_SHOWN = 60  # pairs of a kind between two splits
_PIXELS, _NAME = 160, 40  # of the longer side of an image; most characters of a name
_OURS = r"index\.html|pairs\.csv"
_ABOVE_CONFLICTS = "Pictures with two labels"


@dataclass(frozen=True)
class ShownImage:
    """An image of a pair.

    Attributes:
        image: An address that holds its pixels.
        place: Its split and position.
        name: Its name, shortened.
        full_name: Its name.
        label: Its label, or nothing.
    """

    image: str
    place: str
    name: str
    full_name: str
    label: str


@dataclass(frozen=True)
class ShownPair:
    """Two images beside each other.

    Attributes:
        images: The two.
        caption: How alike they are, and what is changed.
        conflict: Whether their labels differ.
    """

    images: tuple[ShownImage, ShownImage]
    caption: str
    conflict: bool


@dataclass(frozen=True)
class PairSection:
    """Pairs of a kind.

    Attributes:
        title: What they are.
        pairs: The first of them.
        more: How many are in the table only.
    """

    title: str
    pairs: Sequence[ShownPair]
    more: int


def owned_folder(folder: Path) -> OwnedFolder:
    """Return the folder of such a page, in which only files of an earlier one are replaced."""
    return OwnedFolder(folder, DESCRIPTION, _listed, _OURS, name="pictures")


def _listed(text: str) -> Listed:
    return {entry["file"]: entry["sha256"] for entry in json.loads(text)["files"]}


def write_pairs(folder: OwnedFolder, report: ArchiveReport, info: DatasetInfo) -> Path:
    """Write page and table of what a check has found, in place of those of an earlier one; return the page.

    Args:
        folder: From `owned_folder`.
        report: What was found.
        info: The data set.

    Raises:
        SettingsError: If a file would be lost.
        RunError: If the folder cannot be written.
    """
    pairs = [] if report.duplicates is None else report.duplicates.pairs
    chosen = _sections(pairs)
    images = _images(report, info, [pair for _, some, _ in chosen for pair in some])
    sections = [
        PairSection(title, [_shown(pair, images) for pair in some], total - len(some)) for title, some, total in chosen
    ]
    facts = [*(f"groups of {each.first} and {each.second}: {each}" for each in report.groups)]
    facts += [] if report.duplicates is None else report.duplicates.notes
    page = render(
        "duplicates.html.j2",
        title=f"{info.name}: images that are the same picture",
        archive=printable(report.path.name),
        facts=facts,
        sections=sections,
        table=TABLE,
        figures=[],
    )
    with folder.writing(overwrite=True) as staged:
        write_atomic(staged / PAGE, page)
        write_atomic(staged / TABLE, _table(pairs))
        files = [described(staged / name) for name in (PAGE, TABLE)]
        write_atomic(staged / DESCRIPTION, json.dumps({"dataset": info.name, "files": files}, indent=1) + "\n")
    return folder.path / PAGE


def _sections(pairs: Sequence[Pair]) -> list[tuple[str, list[Pair], int]]:
    """Return title, first pairs and number of pairs of every section."""
    conflicts = [pair for pair in pairs if pair.conflict]
    found = [(_ABOVE_CONFLICTS, conflicts)] if conflicts else []

    def key(pair: Pair) -> tuple[int, int, int]:
        return SPLITS.index(pair.first.split), SPLITS.index(pair.second.split), list(KINDS).index(pair.kind)

    ordered = [*(p for p in pairs if p.across), *(p for p in pairs if not p.across)]
    for across in (True, False):
        part = sorted((pair for pair in ordered if pair.across == across), key=key)  # stable: the most similar first
        for (one, two, kind), group in groupby(part, key):
            where = f"{SPLITS[one]} and {SPLITS[two]}" if across else f"Within {SPLITS[one]}"
            found.append((f"{where}: {list(KINDS.values())[kind]}", list(group)))
    return [(f"{title[0].upper()}{title[1:]}", group[:MOST_SHOWN], len(group)) for title, group in found]


def _images(report: ArchiveReport, info: DatasetInfo, pairs: Sequence[Pair]) -> dict[tuple[Split, int], Array]:
    """Return the images (H, W, C) that are shown; a split is in memory at a time."""
    found: dict[tuple[Split, int], Array] = {}
    for split in SPLITS:
        wanted = {p.position for pair in pairs for p in (pair.first, pair.second) if p.split == split}
        if not wanted:
            continue
        images = whole_split(report.path, info, report.resolution, split).images
        channels = channels_of(images.shape)
        for position in wanted:
            image = np.moveaxis(images[position], -1, 0) if channels == 3 else images[position][None]
            found[split, position] = as_picture(image)
    return found


def _shown(pair: Pair, images: dict[tuple[Split, int], Array]) -> ShownPair:
    def shown(place: Place) -> ShownImage:
        name = "" if place.name is None else printable(place.name)
        return ShownImage(
            data_uri(images[place.split, place.position], _PIXELS),
            f"{place.split} {place.position:,}",
            elided(name, _NAME),
            name,
            "" if place.label is None else elided(printable(place.label), _NAME),
        )

    equal = "equal pixels" if pair.kind == "equal" else f"similarity {pair.similarity:.3f}"
    caption = f"{equal}; {pair.change}" if pair.change else equal
    return ShownPair((shown(pair.first), shown(pair.second)), caption, pair.conflict)


def _table(pairs: Sequence[Pair]) -> str:
    empty = Pair("equal", Place("train", 0), Place("train", 0), 1.0)
    return csv_text([list(empty.as_dict()), *([_cell(value) for value in pair.as_dict().values()] for pair in pairs)])


def _cell(value: Any) -> Any:
    if isinstance(value, bool):
        return str(value).lower()
    return cell_safe(value) if isinstance(value, str) else value
