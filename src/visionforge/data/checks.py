"""What an archive is compared with the catalog in, and which images its splits share."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from visionforge.data.archive import md5_of, read_split, structure_problems
from visionforge.data.info import SPLITS, DatasetInfo, Split
from visionforge.data.inspect import find_leaks
from visionforge.data.label_statistics import labels_text
from visionforge.data.side_table import read_side_table
from visionforge.data.source import local_archive, offered_resolution
from visionforge.errors import DataError


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
        checks: Its MD5, structure and labels.
        leaks: Images that two splits share; empty if a check failed.
    """

    path: Path
    checks: list[Check]
    leaks: list[Check]

    @property
    def ok(self) -> bool:
        """Whether it is the archive that the catalog describes."""
        return all(check.ok for check in self.checks)

    @property
    def separate(self) -> bool:
        """Whether no splits share an image, as far as that was looked for."""
        return all(leak.ok for leak in self.leaks)

    def lines(self) -> list[str]:
        """Return it as a terminal shows it."""
        found = [*self.checks, *self.leaks]
        lines = [f"  {'✓' if each.ok else '✗'} {each.subject or each.check}: {each.found}" for each in found]
        shared = "  images that splits share make test results look better than they are"
        return [str(self.path), *lines, *([] if self.separate else [shared])]

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain values, leaks after the other checks."""
        found = [*self.checks, *self.leaks]
        checks = [{"check": each.check, "ok": each.ok, "found": each.found} for each in found]
        return {"file": str(self.path), "checks": checks}


def check_dataset(info: DatasetInfo, resolution: int | None = None, root: str | None = None) -> ArchiveReport:
    """Compare the archive of a data set with the catalog, and look for images that its splits share.

    Args:
        info: The data set.
        resolution: Height and width in pixels; None is the smallest.
        root: Folder of the archives; None is where they lie by default.

    Raises:
        SettingsError: If the data set does not offer the resolution.
        DataError: If the archive is missing.
    """
    resolution = offered_resolution(info, resolution)
    if not info.archives:
        raise DataError(f"{info.name}: is made on this machine, there is no archive to check")
    path = local_archive(info, resolution, root)
    checks = check_archive(path, info, resolution)
    leaks = find_shared_images(path, info) if all(check.ok for check in checks) else []
    return ArchiveReport(path, checks, leaks)


def check_archive(path: Path, info: DatasetInfo, resolution: int) -> list[Check]:
    """Return what was found of an archive's MD5, structure and labels."""
    expected, actual = info.archives[resolution].md5, md5_of(path)
    found = actual if expected in (actual, None) else f"{actual}, the catalog says {expected}"
    results = [Check("MD5", expected in (actual, None), found)]
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


def find_shared_images(path: Path, info: DatasetInfo) -> list[Check]:
    """Return the same for images that two splits share: equal ones fail, those that only look the same are counted.

    They are named as they were when they were imported, where the archive tells, and else by their position.
    """
    names = {split: read_side_table(path, split, getattr(info.splits, split)).names for split in SPLITS}

    def name(split: Split, position: int) -> str:
        known = names[split]
        return f"{split} {position}" if known is None else f"{split} {known[position]}"

    results = []
    for leak in find_leaks({split: read_split(path, info, split).images for split in SPLITS}):
        count = len(leak.exact)
        found = f"{count:,} image{'s' if count > 1 else ''} in both" if count else "no image in both"
        examples = "; ".join(f"{name(leak.first, a)} = {name(leak.second, b)}" for a, b in leak.exact[:3])
        found += f" ({examples})" if examples else ""
        found += f"; {len(leak.near):,} look the same" if leak.near else ""
        pair = f"{leak.first} and {leak.second}"
        results.append(Check(f"{pair} share no image", not leak.exact, found, pair))
    return results
