"""What the light commands share: a parser whose complaints are one line each, and ways to print."""

import argparse
import json
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from rich.console import Console
from rich.table import Table

from visionforge.errors import SettingsError

_WIDEST = 10_000


class CommandParser(argparse.ArgumentParser):
    """A parser that raises instead of printing its usage."""

    def error(self, message: str) -> NoReturn:
        """Raise with the command's name and where its help is."""
        raise SettingsError(f"{self.prog.removeprefix('visionforge ')}: {message} (`{self.prog} --help`)")


def print_json(content: Any) -> None:
    """Print a value as JSON."""
    sys.stdout.write(json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def print_table(table: Table) -> None:
    """Print a table as wide as it is: a line that a narrow terminal breaks is better than names that are cut."""
    console = plain_console()
    needed = console.measure(table, options=console.options.update(max_width=_WIDEST)).maximum
    console.width = max(console.width, needed)
    console.print(table)


def plain_table(*headings: str, right: Sequence[str] = ()) -> Table:
    """Return an empty table without lines.

    Args:
        headings: Names of the columns.
        right: Those that are aligned to the right.
    """
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for heading in headings:
        table.add_column(heading, no_wrap=True, justify="right" if heading in right else "left")
    return table


def value_text(value: Any) -> str:
    """Return a value as tables show it."""
    if value is None:
        return "–"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def plain_console() -> Console:
    """Return a console that neither colours numbers, nor reads markup, nor breaks lines."""
    return Console(highlight=False, markup=False, soft_wrap=True)
