"""What `visionforge datasets` has to say of data sets, as tables and lines."""

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from visionforge.cli.arguments import plain_table, print_table, say
from visionforge.data.info import SPLITS, DatasetInfo
from visionforge.terminal import PlainTable, plain_console

if TYPE_CHECKING:
    from visionforge.data.checks import ArchiveReport
    from visionforge.data.importing import ImportReport
    from visionforge.data.statistics import Statistics


def print_catalog(entries: Sequence[DatasetInfo]) -> None:
    """Print a line for each data set."""
    table = plain_table("name", "task (classes)", "images", "train/val/test", "resolutions")
    for entry in entries:
        sizes = "/".join(f"{count:,}" for count in entry.splits.model_dump().values())
        kind = "grey" if entry.channels == 1 else "colour"
        resolutions = _resolutions(entry).replace(",", "")
        table.add_row(entry.name, f"{entry.task} ({len(entry.classes)})", kind, sizes, resolutions)
    print_table(table)


def _resolutions(entry: DatasetInfo) -> str:
    return "any" if entry.resolutions is None else ", ".join(map(str, entry.resolutions))


def print_entry(entry: DatasetInfo) -> None:
    """Print everything that the catalog says of a data set."""
    flags = entry.flags
    allowed = [name for name, yes in (("left-right flip", flags.hflip), ("top-bottom flip", flags.vflip)) if yes]
    rows = {
        "name": f"{entry.name} ({entry.title})",
        "images": entry.description,
        "task": entry.task,
        "classes": ", ".join(name if name == str(i) else f"{i} {name}" for i, name in enumerate(entry.classes)),
        **({"positive": entry.positive or entry.classes[-1]} if entry.task == "binary" else {}),
        "channels": "3 (colour)" if entry.channels == 3 else "1 (grey)",
        "splits": ", ".join(f"{name} {count:,}" for name, count in entry.splits.model_dump().items()),
        "resolutions": _resolutions(entry),
        "mean": ", ".join(f"{value:.4f}" for value in entry.normalisation.mean),
        "std": ", ".join(f"{value:.4f}" for value in entry.normalisation.std),
        "constants": entry.normalisation.source,
        "label keeps under": ", ".join([*allowed, f"{flags.rotation} rotation"]),
        "texture is label": "yes" if flags.texture_is_label else "no",
        "colour is label": "yes" if flags.colour_is_label else "no",
        "licence": entry.licence,
        "cite": entry.citation,
    }
    for resolution, archive in entry.archives.items():
        rows[f"archive {resolution}"] = archive.url or "on this machine only"
        rows[f"MD5 {resolution}"] = archive.md5 or "not recorded"
    table = PlainTable(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True, style="bold")
    table.add_column(overflow="fold")
    for key, value in rows.items():
        table.add_row(key, value)
    plain_console().print(table, soft_wrap=False)


def print_checks(report: "ArchiveReport") -> None:
    """Print what was found of an archive, a line each."""
    say(str(report.path))
    for each in (*report.checks, *report.leaks):
        say(f"  {'✓' if each.ok else '✗'} {each.subject or each.check}: {each.found}")
    if not report.separate:
        say("  images that splits share make test results look better than they are")


def print_statistics(entry: DatasetInfo, found: "Statistics") -> None:
    """Print how many images each class has, and mean and standard deviation."""
    counts, images = found.counts, found.images
    headings = [text for split in SPLITS for text in (split, "share")]
    table = plain_table("class", *headings, right=headings, fold=("class",))
    for k, name in enumerate(entry.classes):
        cells = [text for s in SPLITS for text in (f"{counts[s][k]:,}", f"{counts[s][k] / images[s]:.1%}")]
        table.add_row(name, *cells)
    print_table(table)
    ratio = found.imbalance
    balance = "a class has no training image" if ratio is None else f"largest to smallest class {ratio:.1f}"
    mean, std = _numbers(found.mean), _numbers(found.std)
    say(f"{balance}; mean {mean}, std {std} (training images at {found.resolution} pixels)")


def _numbers(values: tuple[float, ...]) -> str:
    return ", ".join(f"{value:.4f}" for value in values)


def imported_json(report: "ImportReport") -> dict[str, Any]:
    """Return what an import gave, as `--json` prints it."""
    return {
        "archive": str(report.archive),
        "entry": str(report.entry),
        "info": report.info.model_dump(mode="json"),
        "broken": [{"file": str(path), "reason": reason} for path, reason in report.broken],
        "notes": report.notes,
        "positive": None if report.positive is None else dataclasses.asdict(report.positive),
    }


def print_imported(report: "ImportReport", root: str | None) -> None:
    """Print what an import gave, and the command that trains on it."""
    info = report.info
    for path, reason in report.broken:
        say(f"✗ {path}: {reason}; left out")
    sizes = " / ".join(f"{count:,} {split}" for split, count in info.splits.model_dump().items())
    say(f"✓ {info.name}: {info.task}, {len(info.classes)} classes, {sizes}; {len(report.broken)} broken")
    for note in report.notes:
        say(f"! {note}")
    say(f"  archive  {report.archive}")
    say(f"  entry    {report.entry}")
    if report.positive is not None:
        sign = " " if report.positive.certain else "!"
        say(f"{sign} positive {report.positive.name}, {report.positive.reason}; --positive CLASS changes it")
    where = f" --data.root {root}" if root else ""
    resolution = next(iter(info.archives))
    say(f"  next     visionforge fit --data.dataset {info.name} --data.resolution {resolution}{where}")
