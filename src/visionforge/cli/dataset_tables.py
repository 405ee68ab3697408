"""What `visionforge datasets` has to say of data sets, as tables and lines."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from visionforge.cli.printing import plain_table, print_table
from visionforge.data.facts import dataset_facts, kind_text, resolutions_text
from visionforge.data.info import SPLITS, DatasetInfo
from visionforge.evaluation.run_facts import size_text
from visionforge.runs.paths import shown
from visionforge.streams import say, say_lines
from visionforge.terminal import PlainTable, plain_console

if TYPE_CHECKING:
    from visionforge.data.removal import Removal
    from visionforge.data.statistics import Statistics


def print_catalog(entries: Sequence[DatasetInfo], sizes: Mapping[str, int]) -> None:
    """Print a line for each data set.

    Args:
        entries: Of the catalog.
        sizes: Name → its bytes on the disk.
    """
    table = plain_table("name", "task, classes", "images", "train/val/test", "resolutions")
    for entry in entries:
        splits = "/".join(f"{count:,}" for count in entry.splits.model_dump().values())
        kind = kind_text(entry).replace("volumes", "3D")  # a line has 80 columns
        resolutions = resolutions_text(entry).replace(",", "")
        table.add_row(entry.name, f"{entry.task} {len(entry.classes)}", kind, splits, resolutions)
    print_table(table)
    if there := [size for size in sizes.values() if size]:
        say(f"on disk: {size_text(sum(there))} of {len(there)} (`visionforge datasets remove NAME`)")


def print_removal(found: "Removal") -> None:
    """Print what was removed of a data set, or would be."""
    verb = "removed" if found.removed else "would be removed"
    for path, size in found.sizes.items():
        say(f"{verb}: {shown(path)} ({size_text(size)})")
    say_lines([f"kept: {note}" for note in found.notes])
    if not found.sizes and not found.notes:
        say(f"nothing of {found.name} is on the disk")
    elif found.sizes and not found.removed:
        say(f"nothing was removed; `--yes` removes {size_text(sum(found.sizes.values()))}")


def print_entry(entry: DatasetInfo) -> None:
    """Print everything that the catalog says of a data set."""
    table = PlainTable(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True, style="bold")
    table.add_column(overflow="fold")
    for key, value in dataset_facts(entry).items():
        table.add_row(key, value)
    plain_console().print(table, soft_wrap=False)


def print_statistics(found: "Statistics") -> None:
    """Print how many images each class has, and mean and standard deviation."""
    counts, images = found.counts, found.images
    headings = [text for split in SPLITS for text in (split, "share")]
    more = {} if found.details is None else found.details.columns()
    headings += more
    table = plain_table("class", *headings, right=headings, fold=("class",))
    for k, name in enumerate(found.info.classes):
        cells = [text for s in SPLITS for text in (f"{counts[s][k]:,}", f"{counts[s][k] / images[s]:.1%}")]
        table.add_row(name, *cells, *(column[k] for column in more.values()))
    print_table(table)
    say_lines([] if found.details is None else found.details.lines())
    ratio = found.imbalance
    balance = "a class has no training image" if ratio is None else f"largest to smallest class {ratio:.1f}"
    mean, std = _numbers(found.mean), _numbers(found.std)
    say(f"{balance}; mean {mean}, std {std} (training images at {found.resolution} pixels)")


def _numbers(values: tuple[float, ...]) -> str:
    return ", ".join(f"{value:.4f}" for value in values)
