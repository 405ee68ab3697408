"""Consoles and tables that take no text for markup, and let no text steer the terminal."""

from typing import Any

from rich.console import Console, RenderableType
from rich.style import StyleType
from rich.table import Table
from rich.text import Text

from visionforge.printable import LONGEST_LINE, printable


class PlainTable(Table):
    """A table whose cells and headings are text as it is: printable, and never read as markup."""

    def add_row(
        self, *renderables: RenderableType | None, style: StyleType | None = None, end_section: bool = False
    ) -> None:
        """Add a row of texts, or of what else rich draws."""
        super().add_row(*map(_cell, renderables), style=style, end_section=end_section)

    def add_column(self, header: RenderableType = "", *args: Any, **kwargs: Any) -> None:
        """Add a column; see `rich.table.Table.add_column`."""
        super().add_column(_cell(header) or "", *args, **kwargs)


def _cell(content: RenderableType | None) -> RenderableType | None:
    return Text(printable(content, LONGEST_LINE)) if isinstance(content, str) else content


def print_line(text: str, style: StyleType | None = None) -> None:
    """Print one line to standard output as it is; what could steer the terminal is written as an escape.

    Args:
        text: The line.
        style: How it looks on a terminal.
    """
    plain_console().print(Text(printable(text, LONGEST_LINE)), style=style)


def in_notebook() -> bool:
    """Return whether a notebook's kernel runs this, which shows HTML and is no terminal."""
    return Console().is_jupyter


def plain_console(stderr: bool = False) -> Console:
    """Return a console that neither colours numbers, nor reads markup or names of emoji, nor breaks lines."""
    return Console(stderr=stderr, highlight=False, markup=False, emoji=False, soft_wrap=True)
