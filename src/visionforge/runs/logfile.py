"""Log lines go to the console at once, and to the run's own file as soon as there is one, from the first line on."""

import logging
import sys
from logging.handlers import MemoryHandler
from pathlib import Path
from typing import TextIO


class _OneLine(logging.Formatter):
    """Puts every record on one line; captured warnings end in line breaks."""

    def format(self, record: logging.LogRecord) -> str:
        return (
            " ".join(super().format(record).split("\n")).rstrip() if record.exc_info is None else super().format(record)
        )


CONSOLE_FORMAT = _OneLine("%(asctime)s %(message)s", datefmt="%H:%M:%S")
FILE_FORMAT = _OneLine("%(asctime)s %(levelname)s %(name)s: %(message)s")
_SOURCES = ("visionforge", "lightning.pytorch", "lightning.fabric", "py.warnings")
_BUFFER = 100_000  # lines said before the run folder exists; far more than there are


class _StandardError(logging.StreamHandler[TextIO]):
    """Writes to what `sys.stderr` is at that moment: a live progress bar replaces it to keep its line free."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> TextIO:  # type: ignore[override]
        return sys.stderr


class RunLog:
    """Routes the log lines of visionforge, Lightning and Python's warnings.

    The console shows visionforge's own lines and everybody's warnings; the file holds all lines. Lines said before
    `attach` are kept and written to the file first.

    Args:
        quiet: Show only errors on the console; for every rank but the first.
    """

    def __init__(self, quiet: bool = False) -> None:
        self._console = _StandardError()
        self._console.setFormatter(CONSOLE_FORMAT)
        self._console.setLevel(logging.ERROR if quiet else logging.NOTSET)
        self._console.addFilter(
            lambda record: record.name.startswith("visionforge") or record.levelno >= logging.WARNING
        )
        self._buffer = MemoryHandler(_BUFFER, flushLevel=logging.CRITICAL + 1, flushOnClose=False)
        self._file: logging.FileHandler | None = None
        self._saved: list[tuple[logging.Logger, list[logging.Handler], int, bool]] = []

    def start(self) -> None:
        """Begin to route; earlier handlers of these loggers are set aside until `stop`."""
        logging.captureWarnings(True)
        for name in _SOURCES:
            logger = logging.getLogger(name)
            self._saved.append((logger, logger.handlers[:], logger.level, logger.propagate))
            logger.handlers = [self._console, self._buffer]
            logger.setLevel(logging.INFO)
            logger.propagate = False

    def attach(self, path: Path) -> None:
        """Write all kept and all later lines to a file."""
        self._file = logging.FileHandler(path, mode="a", encoding="utf-8")
        self._file.setFormatter(FILE_FORMAT)
        self._buffer.setTarget(self._file)
        self._buffer.flush()
        for logger, *_ in self._saved:
            logger.handlers = [self._console, self._file]

    def stop(self) -> None:
        """Close the file and give the loggers back their earlier handlers."""
        for logger, handlers, level, propagate in self._saved:
            logger.handlers, logger.propagate = handlers, propagate
            logger.setLevel(level)
        self._saved.clear()
        logging.captureWarnings(False)
        if self._file is not None:
            self._file.close()
