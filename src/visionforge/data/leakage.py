"""What the splits of an archive share, in numbers and words; what a check has found is kept for later fits."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from visionforge.config.schema.tasks import task_named
from visionforge.data.duplicates import Duplicates, DuplicateSearch, Pair
from visionforge.data.info import SPLITS, DatasetInfo, Split
from visionforge.data.inspect import equal_images
from visionforge.data.shared_groups import SharedGroups, shared_groups
from visionforge.data.side_table import SideTable
from visionforge.data.source import EMBEDDED, load_split, stored_side_table, whole_split
from visionforge.data.store import stored_md5
from visionforge.reading import read_json
from visionforge.runs.files import write_atomic
from visionforge.runs.paths import cache_folder

MOST_BYTES = 1 << 28  # of images that a fit compares by itself; hashing them takes a third of a second
FORMAT = 1  # of what is kept
_EXAMPLES = 3  # pairs that a line names
Finding = tuple[str, bool, str, str]  # what is asked, whether it is so, what was found, of what


@dataclass(frozen=True)
class SplitLeak:
    """What a split shares with the training split, in numbers.

    Attributes:
        split: Validation or test.
        equal: Its images that are in the training split, too.
        changed: Its images of which the training split has a copy that differs; None if nobody has looked.
        groups: Groups that are in both.
    """

    split: Split
    equal: int
    changed: int | None
    groups: int

    def __str__(self) -> str:
        changed = self.changed or 0
        images = self.equal + changed
        parts = []
        if images:
            copies = "" if not changed else " as changed copies" if not self.equal else f" ({changed:,} changed)"
            parts.append(
                f"{images:,} image{'s' if images > 1 else ''} of {self.split} {'are' if images > 1 else 'is'} in train"
                f", too{copies}"
            )
        if self.groups:
            parts.append(f"{self.split} shares {self.groups:,} group{'s' if self.groups > 1 else ''} with train")
        return " and ".join(parts)


def duplicates_of(
    path: Path,
    info: DatasetInfo,
    resolution: int,
    tables: Mapping[Split, SideTable],
    *,
    exactly: bool = False,
    features: Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.float32]] | None = None,
) -> Duplicates:
    """Return which images of a verified archive are the same picture; a split is in memory at a time.

    Args:
        path: The archive.
        info: Its entry.
        resolution: Height and width in pixels.
        tables: Split → names and groups.
        exactly: Compare by equality only.
        features: Returns (N, D) features of images.
    """
    search, found = None, []
    for split in SPLITS:
        part = whole_split(path, info, resolution, split)
        search = search or DuplicateSearch(part.images.shape[1], exactly)
        search.add(split, part.images, tables[split].names, label_texts(info, part.labels))
        found += [] if features is None else [features(part.images)]
    assert search is not None
    return search.found(np.concatenate(found) if found else None)


def label_texts(info: DatasetInfo, labels: npt.NDArray[Any]) -> list[str] | None:
    """Return the labels of images in words; None where they have masks or boxes, which are not compared."""
    forms = task_named(info.task).forms
    if "masks" in forms or "boxes" in forms:
        return None
    if labels.ndim == 1:
        return [info.classes[k] for k in labels.tolist()]
    return [", ".join(info.classes[k] for k in np.flatnonzero(row)) or "none" for row in labels]


def leak_findings(found: Duplicates) -> list[Finding]:
    """Return what a check says of duplicates: a line for every two splits, and of those within where there are some."""
    lines: list[Finding] = []
    for one, two in combinations(SPLITS, 2):
        equal, near, changed, alike = (found.between(one, two, kind) for kind in ("equal", "near", "changed", "alike"))
        images = len({pair.second.position for pair in equal})
        parts = [f"{images:,} image{'s' if images > 1 else ''} in both" if images else "no image in both"]
        parts[0] += _examples(equal)
        parts += [f"{len(near):,} nearly equal{_examples(near)}"] if near else []
        parts += [f"{len(changed):,} changed copies{_examples(changed)}"] if changed else []
        parts += [f"{len(alike):,} look alike"] if alike else []
        pair = f"{one} and {two}"
        lines.append((f"{pair} share no image", not (equal or near or changed), "; ".join(parts), pair))
    within = {split: len(_verified(found.between(split, split))) for split in SPLITS}
    if any(within.values()):
        counts = ", ".join(f"{count:,} pairs in {split}" for split, count in within.items() if count)
        lines.append(("duplicates within splits", True, counts, "duplicates within splits"))
    if found.conflicts:
        count = len(found.conflicts)
        text = (
            f"{count:,} pair{'s' if count > 1 else ''} with different labels{_examples(found.conflicts, labels=True)}"
        )
        lines.append(("duplicates have the same label", False, text, "labels of duplicates"))
    return lines


def _verified(pairs: Sequence[Pair]) -> list[Pair]:
    return [pair for pair in pairs if pair.kind != "alike"]


def _examples(pairs: Sequence[Pair], labels: bool = False) -> str:
    texts = []
    for pair in pairs[:_EXAMPLES]:
        if labels:
            texts.append(f"{pair.first} {pair.first.label} = {pair.second} {pair.second.label}")
        else:
            sign = "=" if pair.kind == "equal" else "≈"
            texts.append(f"{pair.first} {sign} {pair.second}" + (f" {pair.change}" if pair.change else ""))
    return f" ({'; '.join(texts)})" if texts else ""


# --- what a fit is told


def training_leaks(info: DatasetInfo, resolution: int, root: str | None, path: Path | None) -> list[SplitLeak]:
    """Return what validation and test split share with the training split, at little cost, where they do.

    What was found is kept beside the unpacked arrays under the archive's MD5, so that it is read the next time. Without
    an earlier check, pictures are compared by equality, and not at all where they have more than 256 MB.

    Args:
        info: The data set.
        resolution: Height and width in pixels.
        root: Folder of the archives.
        path: The archive; None for data that is made on this machine, in which nothing is looked for.

    Raises:
        DataError: If the archive has gone, or is damaged.
    """
    if path is None or info.source in EMBEDDED:
        return []
    kept = _kept(path)
    if kept is not None:
        return [leak for leak in kept if str(leak)]
    groups = shared_groups({split: stored_side_table(info, resolution, root, split) for split in SPLITS})
    equal: dict[Split, int] = {}
    if info.images * info.image_bytes(resolution) <= MOST_BYTES:
        images = {split: load_split(info, resolution, root, split).images for split in SPLITS}
        equal = {leak.second: len(leak.exact) for leak in equal_images(images) if leak.first == "train"}
    leaks = [SplitLeak(split, equal.get(split, 0), None, _groups(groups, split)) for split in SPLITS[1:]]
    _keep(path, leaks)
    return [leak for leak in leaks if str(leak)]


def remember(path: Path, groups: Sequence[SharedGroups], found: Duplicates) -> None:
    """Keep for later fits what a check has found."""
    leaks = []
    for split in SPLITS[1:]:
        equal = {pair.second.position for pair in found.between("train", split, "equal")}
        copies = {pair.second.position for pair in _verified(found.between("train", split))} - equal
        leaks.append(SplitLeak(split, len(equal), len(copies), _groups(groups, split)))
    _keep(path, leaks)


def _groups(groups: Sequence[SharedGroups], split: Split) -> int:
    return sum(len(shared.groups) for shared in groups if (shared.first, shared.second) == ("train", split))


def _file(path: Path) -> Path:
    return cache_folder() / "leaks" / f"{stored_md5(path)}.json"


def _kept(path: Path) -> list[SplitLeak] | None:
    """Return what was kept of an archive; None if there is nothing that can be read."""
    try:
        content = read_json(_file(path))
        if content["format"] != FORMAT:
            return None
        return [
            SplitLeak(
                split,
                int(content[split]["equal"]),
                None if content[split]["changed"] is None else int(content[split]["changed"]),
                int(content[split]["groups"]),
            )
            for split in SPLITS[1:]
        ]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _keep(path: Path, leaks: Sequence[SplitLeak]) -> None:
    content: dict[str, Any] = {"format": FORMAT}
    for leak in leaks:
        content[leak.split] = {"equal": leak.equal, "changed": leak.changed, "groups": leak.groups}
    try:
        write_atomic(_file(path), json.dumps(content) + "\n")
    except OSError:
        return  # a cache that cannot be written costs time only
