"""How commands print values: JSON and tables."""

import json
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from visionforge.streams import say_lines, say_text

if TYPE_CHECKING:
    from rich.table import Table

    from visionforge.terminal import PlainTable

_WIDEST = 10_000


class Found(Protocol):
    """What functions return: an object that tells of itself as plain values."""

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain values."""


def print_json(content: Any) -> None:
    r"""Print a value as JSON; numbers that JSON does not have are null.

    Characters that could steer a terminal are written as JSON writes any character, for instance ``\u202e``, so that
    a reader gets the same text.
    """
    text = json.dumps(_finite(content), indent=2, ensure_ascii=False, allow_nan=False)
    say_text("".join(c if c.isprintable() or c == "\n" else json.dumps(c)[1:-1] for c in text))


def print_found(found: Found, as_json: bool, text: str | None = None) -> None:
    """Print what a function has found, as JSON or as a text.

    Args:
        found: What it has returned.
        as_json: JSON was asked for.
        text: The text; None is how it shows itself.
    """
    if as_json:
        print_json(found.as_dict())
    else:
        say_lines((repr(found) if text is None else text).splitlines())


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, list | tuple) else value


def print_table(table: "Table") -> None:
    """Print a table as wide as it is: a line that a narrow terminal breaks is better than names that are cut."""
    from visionforge.terminal import plain_console

    console = plain_console()
    needed = console.measure(table, options=console.options.update(max_width=_WIDEST)).maximum
    console.width = max(console.width, needed)
    console.print(table)


def plain_table(*headings: str, right: Sequence[str] = (), fold: Sequence[str] = ()) -> "PlainTable":
    """Return an empty table without lines.

    Args:
        headings: Names of the columns.
        right: Those that are aligned to the right.
        fold: Those whose cells a narrow terminal may break.
    """
    from visionforge.terminal import PlainTable

    table = PlainTable(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for name in headings:
        justify = "right" if name in right else "left"
        table.add_column(name, no_wrap=name not in fold, justify=justify, overflow="fold")
    return table


def heading(text: str) -> None:
    """Print a line in bold, where the terminal has that."""
    from visionforge.terminal import print_line

    print_line(text, "bold")


def value_text(value: Any) -> str:
    """Return a value as tables show it."""
    if value is None:
        return "–"
    return f"{value:.6g}" if isinstance(value, float) else str(value)
