"""Standard output and error: what is written there is printable, and a reader that goes away stops no command."""

import contextlib
import errno
import os
import sys
from collections.abc import Iterable, Iterator
from typing import Any, TextIO, cast

from visionforge.printable import LONGEST_LINE, printable
from visionforge.redaction import redact_text


def say(text: str = "", end: str = "\n") -> None:
    """Write one line to standard output; control characters in it are escapes, and secrets are left out.

    Args:
        text: The line, which may hold names from outside.
        end: What follows it.
    """
    sys.stdout.write(printable(redact_text(text), LONGEST_LINE) + end)
    sys.stdout.flush()


def say_text(text: str) -> None:
    """Write a text of several lines, such as a help page, to standard output; it must hold no names from outside."""
    sys.stdout.write("".join(f"{printable(line, None)}\n" for line in text.split("\n")))
    sys.stdout.flush()


def say_lines(lines: Iterable[str]) -> None:
    """Write several lines to standard output; see `say`."""
    for line in lines:
        say(line)


def warn(text: str) -> None:
    """Write one line to standard error, as `say` does to standard output."""
    sys.stderr.write(printable(redact_text(text), LONGEST_LINE) + "\n")
    sys.stderr.flush()


def caution(text: str) -> None:
    """Write a warning, one line, to standard error."""
    warn(f"warning: {text}")


class Guarded:
    """A text stream that nobody has to read: what it cannot take is dropped, and the command goes on.

    Args:
        stream: The stream itself, whose other methods are passed on.

    Attributes:
        failure: Why nothing more is written; None while it works.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.failure: OSError | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write, and return the number of characters."""
        if self.failure is None:
            try:
                self._stream.write(text)
            except UnicodeEncodeError:
                coding = self._stream.encoding or "ascii"
                self.write(text.encode(coding, "backslashreplace").decode(coding))
            except OSError as error:
                self._give_up(error)
            except ValueError:  # it was closed meanwhile
                self._give_up(OSError(errno.EBADF, os.strerror(errno.EBADF)))
        return len(text)

    def writelines(self, lines: list[str]) -> None:
        """Write several texts."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Hand on what is kept in memory."""
        if self.failure is None:
            try:
                self._stream.flush()
            except OSError as error:
                self._give_up(error)
            except ValueError:
                self._give_up(OSError(errno.EBADF, os.strerror(errno.EBADF)))

    def _give_up(self, error: OSError) -> None:
        """Let what is still in memory, and what libraries of other languages write, go nowhere."""
        self.failure = error
        with contextlib.suppress(OSError, ValueError, AttributeError):
            number = self._stream.fileno()
            if number in (1, 2):
                _point_nowhere(number)


@contextlib.contextmanager
def guarded() -> Iterator[Guarded]:
    """Guard both streams of this process; one that is missing is replaced.

    Yields:
        Standard output.
    """
    for number in (1, 2):  # or the next file that is opened would be taken for standard output
        try:
            os.fstat(number)
        except OSError:
            _point_nowhere(number)
    saved = sys.stdout, sys.stderr
    out, err = (Guarded(_usable(stream)) for stream in saved)
    sys.stdout, sys.stderr = cast(TextIO, out), cast(TextIO, err)
    try:
        yield out
    finally:
        out.flush()
        err.flush()
        sys.stdout, sys.stderr = saved


def _usable(stream: TextIO | None) -> TextIO:
    if stream is None or stream.closed:
        return open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123 - it lives as long as the process
    return stream


def _point_nowhere(number: int) -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    if nowhere != number:
        os.dup2(nowhere, number)
        os.close(nowhere)
