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
    """Write what was asked for, of one or several lines, to standard output; it must hold no names from outside.

    JSON, a help page and a script are such results: a quiet command writes nothing else there.
    """
    stream = _result_stream or sys.stdout
    stream.write("".join(f"{printable(line, None)}\n" for line in text.split("\n")))
    stream.flush()


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


_quiet = False
_result_stream: TextIO | None = None  # where results go; None is standard output, with all the rest


def is_quiet() -> bool:
    """Return whether only results, warnings and errors are told."""
    return _quiet


@contextlib.contextmanager
def results_apart(quiet: bool) -> Iterator[None]:
    """Keep standard output for results (see `say_text`); whatever else is written there goes to standard error.

    Args:
        quiet: It goes nowhere, and standard error is taken for no terminal, so that nobody draws a bar on it.
    """
    global _quiet, _result_stream
    saved = sys.stdout, sys.stderr, _quiet, _result_stream
    with contextlib.ExitStack() as stack:
        _quiet, _result_stream = quiet, saved[0]
        if quiet:
            sys.stdout = stack.enter_context(open(os.devnull, "w", encoding="utf-8"))  # noqa: PTH123
            sys.stderr = cast(TextIO, _NoTerminal(saved[1]))
        else:
            sys.stdout = saved[1]
        try:
            yield
        finally:
            sys.stdout, sys.stderr, _quiet, _result_stream = saved


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


class _NoTerminal:
    """A text stream that says that it is no terminal."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def isatty(self) -> bool:
        """Return that it is none."""
        return False


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
