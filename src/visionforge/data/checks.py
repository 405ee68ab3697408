"""What an archive is compared with the catalog in, and which groups and pictures its splits share."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from visionforge.data.archive import md5_of, read_split, structure_problems
from visionforge.data.duplicates import Duplicates
from visionforge.data.info import SPLITS, DatasetInfo
from visionforge.data.label_statistics import labels_text
from visionforge.data.leakage import duplicates_of, leak_findings, remember
from visionforge.data.memory import free_memory
from visionforge.data.shard_index import is_sharded, read_index
from visionforge.data.sharded import side_archive, verify_shards
from visionforge.data.shared_groups import SharedGroups, shared_groups
from visionforge.data.side_table import read_side_table
from visionforge.data.source import local_archive, offered_resolution
from visionforge.errors import DataError

Features = Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.float32]]  # of the images of a split
MOST_PROBLEMS = 10  # that a line names
MOST_PAIRS = 10_000  # that JSON holds


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Attributes:
        check: What is asked of it.
        ok: Whether it is so.
        found: What was found.
        subject: What `found` is said of, if that is not `check`.
    """

    check: str
    ok: bool
    found: str
    subject: str | None = None


@dataclass(frozen=True)
class ArchiveReport:
    """What was found of an archive.

    Attributes:
        path: The file.
        resolution: Height and width of its images.
        checks: Its MD5, structure, labels and groups.
        leaks: Pictures that two splits share, and those that have two labels; empty if the archive is not whole.
        groups: The groups that splits share, where it says which there are.
        duplicates: The pairs of images that are the same picture; None if the archive is not whole.
        page: The page that shows them, where one was written.
    """

    path: Path
    resolution: int
    checks: list[Check]
    leaks: list[Check] = field(default_factory=list)
    groups: list[SharedGroups] = field(default_factory=list)
    duplicates: Duplicates | None = None
    page: Path | None = None

    @property
    def ok(self) -> bool:
        """Whether it is the archive that the catalog describes, and no splits share a group."""
        return all(check.ok for check in self.checks)

    @property
    def separate(self) -> bool:
        """Whether no splits share a picture, as far as that was looked for."""
        return all(leak.ok for leak in self.leaks)

    def lines(self) -> list[str]:
        """Return it as a terminal shows it."""
        found = [*self.checks, *self.leaks]
        lines = [f"  {'✓' if each.ok else '✗'} {each.subject or each.check}: {each.found}" for each in found]
        lines += [] if self.duplicates is None else [f"  {note}" for note in self.duplicates.notes]
        shared = "  pictures and groups that splits share make test results look better than they are"
        together = self.separate and not any(each.groups for each in self.groups)
        return [str(self.path), *lines, *([] if together else [shared])]

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain values, leaks after the other checks."""
        found = [*self.checks, *self.leaks]
        checks = [{"check": each.check, "ok": each.ok, "found": each.found} for each in found]
        pairs = [] if self.duplicates is None else self.duplicates.pairs
        return {
            "file": str(self.path),
            "page": None if self.page is None else str(self.page),
            "checks": checks,
            "groups": [shared.as_dict() for shared in self.groups],
            "pairs": [pair.as_dict() for pair in pairs[:MOST_PAIRS]],
            "pairs_left_out": max(0, len(pairs) - MOST_PAIRS),
            "notes": [] if self.duplicates is None else self.duplicates.notes,
        }


def check_dataset(
    info: DatasetInfo,
    resolution: int | None = None,
    root: str | None = None,
    *,
    exactly: bool = False,
    features: Features | None = None,
) -> ArchiveReport:
    """Compare the archive of a data set with the catalog, and look for groups and pictures that its splits share.

    Args:
        info: The data set.
        resolution: Height and width in pixels; None is the smallest.
        root: Folder of the archives; None is where they lie by default.
        exactly: Compare pictures by equality only.
        features: Returns (N, D) features of images, by which pictures are compared, too.

    Raises:
        SettingsError: If the data set does not offer the resolution.
        DataError: If the archive is missing.
    """
    resolution = offered_resolution(info, resolution)
    if not info.archives:
        raise DataError(f"{info.name}: is made on this machine, there is no archive to check")
    path = local_archive(info, resolution, root)
    checks = check_archive(path, info, resolution)
    if not all(check.ok for check in checks):
        return ArchiveReport(path, resolution, checks)
    side = side_archive(path, info, resolution)
    tables = {split: read_side_table(side, split, getattr(info.splits, split)) for split in SPLITS}
    groups = shared_groups(tables)
    for shared in groups:
        pair = f"{shared.first} and {shared.second}"
        checks.append(Check(f"{pair} share no group", not shared.groups, str(shared), f"groups of {pair}"))
    most = info.image_bytes(resolution) * max(info.splits.model_dump().values())
    if is_sharded(path) and 2 * most > free_memory():
        untold = Check("pictures that splits share", True, f"not looked for: a split has {most / 1e9:.1f} GB")
        return ArchiveReport(path, resolution, checks, [untold], groups)
    found = duplicates_of(path, info, resolution, tables, exactly=exactly, features=features)
    if not exactly:
        remember(path, groups, found)
    leaks = [Check(*finding) for finding in leak_findings(found)]
    return ArchiveReport(path, resolution, checks, leaks, groups, found)


def check_archive(path: Path, info: DatasetInfo, resolution: int) -> list[Check]:
    """Return what was found of an archive's MD5, structure and labels."""
    expected, actual = info.archives[resolution].md5, md5_of(path)
    found = actual if expected in (actual, None) else f"{actual}, the catalog says {expected}"
    results = [Check("MD5", expected in (actual, None), found)]
    if is_sharded(path):
        return [*results, *_check_shards(path, info, resolution)]
    problems = structure_problems(path, info, resolution)
    structure = "6 arrays as the catalog says" if not problems else "; ".join(problems)
    results.append(Check("keys, dtypes, shapes and counts", not problems, structure))
    if problems:
        return results
    for split in SPLITS:
        try:
            part = read_split(path, info, split)
        except DataError as error:
            results.append(Check(f"{split} data", False, error.problems[0]))
            continue
        found = f"{len(part.images):,} images, {labels_text(info, part.labels)}"
        results.append(Check(f"{split} data", True, found))
    return results


def _check_shards(path: Path, info: DatasetInfo, resolution: int) -> list[Check]:
    """Return what was found of the files of a sharded archive, each of which is read."""
    try:
        index = read_index(path, info, resolution, None)
        problems = verify_shards(path, info, resolution)
    except DataError as error:
        return [Check("files", False, "; ".join(error.problems))]
    total = sum(file.bytes for file in index.files)
    good = f"{len(index.files):,} files, {total:,} bytes, as the index says"
    return [Check("files", not problems, "; ".join(problems[:MOST_PROBLEMS]) or good)]
