"""Runs as tables and lines."""

from collections.abc import Mapping, Sequence
from typing import Any

from visionforge.cli.printing import heading, plain_table, print_table, value_text
from visionforge.evaluation.run_facts import cell_text, run_facts, size_text
from visionforge.runs.cleaning import Cleaning
from visionforge.runs.query import StoredRun
from visionforge.streams import say

SHOWN = ("run", "state", "started", "seconds", "epochs", "accuracy", "auc", "bytes")  # the name of a run says more


def print_rows(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print a line for each run, with the seed where it differs."""
    names = [*SHOWN[:2], *(["seed"] if len({row["seed"] for row in rows}) > 1 else []), *SHOWN[2:]]
    table = plain_table(*names, right=("seed", "seconds", "epochs", "accuracy", "auc", "bytes"))
    for row in rows:
        table.add_row(*(cell_text(name, row) for name in names))
    print_table(table)


def print_run(run: StoredRun) -> None:
    """Print everything that is known of a run."""
    heading(run.name)
    for name, value in run_facts(run).items():
        say(f"{name:>12}  {value}")


def print_differences(one: StoredRun, two: StoredRun, parts: Mapping[str, Mapping[str, tuple[Any, Any]]]) -> None:
    """Print in what two runs differ."""
    table = plain_table("", one.name, two.name)
    for name, part in parts.items():
        if not part:
            say(f"{name}: the same")
        for path, pair in part.items():
            table.add_row(path, *(value_text(value) for value in pair))
    if table.row_count:
        print_table(table)


def print_cleaning(cleaning: Cleaning, outputs: str, removing: bool) -> None:
    """Print which runs were removed, or would be.

    Args:
        cleaning: What was found.
        outputs: The folder, as it is shown.
        removing: Whether they were to be removed.
    """
    for run, size in zip(cleaning.found, cleaning.sizes, strict=True):
        verb = "removed" if run.name in cleaning.removed else "kept" if removing else "would be removed"
        say(f"{verb}: {run.name} ({run.state}, {cell_text('epochs', run.as_row())} epochs, {size_text(size)})")
    if not cleaning.found:
        say(f"no such runs in {outputs}")
    elif not removing:
        say(f"nothing was removed; `--yes` removes them, {size_text(sum(cleaning.sizes))}")
