"""Text from outside, made fit for a terminal, a log line or a table cell."""

import csv
import traceback
from collections.abc import Iterable

from visionforge.redaction import redact_text

LONGEST = 2_000  # characters of one name or message; more is no name
LONGEST_LINE = 100_000  # characters of a line that is put together of many names
_CSV_END = "\r\n"


def printable(text: object, longest: int | None = LONGEST) -> str:
    r"""Return a text in which nothing can steer a terminal or break a line.

    Control characters, line breaks, marks that reorder text, and halves of surrogate pairs (bytes of a file name that
    are no UTF-8) are written as escapes, such as ``\x1b``; everything else stays, also where it is not ASCII.

    Args:
        text: Anything; what is no text is formatted first.
        longest: Most characters that are kept; None keeps all.

    >>> printable("cat\x1b[31m\n")
    'cat\\x1b[31m\\n'
    """
    line = str(text)
    if longest is not None and len(line) > longest:
        line = f"{line[: longest - 1]}…"
    if line.isprintable():
        return line
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in line)


def printable_lines(lines: Iterable[str]) -> str:
    """Return lines as one text, each of them printable."""
    return "\n".join(printable(line, LONGEST_LINE) for line in lines)


def traceback_lines(error: BaseException) -> list[str]:
    """Return the lines of a traceback, each printable and without secrets.

    A message of several lines is indented from its second on, so that none of them looks like another message.
    """
    lines: list[str] = []
    for part in traceback.format_exception(error):
        first, *more = part.rstrip("\n").split("\n")
        lines += [first, *(line if line[:1] in (" ", "") else f"    {line}" for line in more)]
    return [printable(redact_text(line), LONGEST_LINE) for line in lines]


def csv_text(rows: Iterable[Iterable[object]]) -> str:
    r"""Return rows as lines of CSV; a cell with a line feed or a carriage return stands between quotes.

    Of a carriage return alone Python 3.11 knows that only where lines end with one: a file's name could begin a line.

    >>> csv_text([["path", "class"], ["a\r=1+1.png", 2]])
    'path,class\n"a\r=1+1.png",2\n'
    """
    lines = _Lines()
    csv.writer(lines, lineterminator=_CSV_END).writerows(rows)
    return "".join(lines.taken)


class _Lines:
    """Takes the lines of a CSV writer."""

    def __init__(self) -> None:
        self.taken: list[str] = []

    def write(self, line: str) -> None:
        self.taken.append(line.removesuffix(_CSV_END) + "\n")
