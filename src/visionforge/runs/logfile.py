"""Log lines go to the console at once, and to the run's own file as soon as there is one, from the first line on."""

import logging
import os
import sys
from logging.handlers import MemoryHandler
from pathlib import Path
from types import TracebackType
from typing import Self, TextIO

from visionforge.printable import LONGEST_LINE, printable, traceback_lines
from visionforge.redaction import redact_text
from visionforge.streams import is_quiet
from visionforge.terminal import in_notebook


class _OneLine(logging.Formatter):
    """Puts every record on one printable line without secrets; the lines of a traceback follow it."""

    def format(self, record: logging.LogRecord) -> str:
        super().format(record)  # sets `message` and `asctime`
        head = " ".join(self.formatMessage(record).splitlines()).rstrip()  # captured warnings end in line breaks
        error = record.exc_info[1] if record.exc_info else None
        return "\n".join(
            [printable(redact_text(head), LONGEST_LINE), *([] if error is None else traceback_lines(error))]
        )


class _Marked(_OneLine):
    """Says of a warning or an error that it is one."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  # the name is of logging
        mark = f"{record.levelname.lower()}: " if record.levelno >= logging.WARNING else ""
        return f"{record.asctime} {mark}{record.message}"


CONSOLE_FORMAT = _Marked("%(asctime)s %(message)s", datefmt="%H:%M:%S")
FILE_FORMAT = _OneLine("%(asctime)s %(levelname)s %(name)s: %(message)s")
LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
_SOURCES = ("visionforge", "lightning.pytorch", "lightning.fabric", "py.warnings", "torch")
_SRUN = "The `srun` command is available on your system but is not used"
_BUFFER = 100_000  # lines said before the run folder exists; far more than there are


class _StandardError(logging.StreamHandler[TextIO]):
    """Writes to what `sys.stderr` is at that moment: a live progress bar replaces it to keep its line free.

    In a notebook it is standard output, since that puts what goes to the other on a red ground, as if it had failed.
    """

    def __init__(self) -> None:
        logging.Handler.__init__(self)
        self._notebook = in_notebook()

    @property
    def stream(self) -> TextIO:  # type: ignore[override]
        return sys.stdout if self._notebook else sys.stderr


class _Console(logging.Filter):
    """Lets through visionforge's own lines and everybody's warnings; tracebacks that Python prints itself are not."""

    def filter(self, record: logging.LogRecord) -> bool:
        ours = record.name.startswith("visionforge") or record.levelno >= logging.WARNING
        return ours and not getattr(record, "file_only", False)


class _Sources(logging.Filter):
    """Leaves out that a job of several tasks should be begun with `srun` where there is no such job.

    Lightning says so wherever the program is installed, for each of its stages.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        several = os.environ.get("SLURM_NTASKS", "1") != "1"
        return several or _SRUN not in record.getMessage()


class RunLog:
    """Routes the log lines of visionforge, its libraries and Python's warnings.

    The console shows visionforge's own lines and everybody's warnings; the file holds all lines from `info` on. Lines
    said before `attach` are kept and written to the file first.

    Args:
        level: Least severity on the console: `debug`, `info`, `warning` or `error`. With `debug` the file has those
            lines, too. A quiet command shows none below `warning`.
        rank: Number of the process; all but the first show only errors on the console, marked with their number.
    """

    _open = 0  # logs of this process that have been started and not stopped

    def __init__(self, level: str = "info", rank: int = 0) -> None:
        self._level = min(LEVELS[level], logging.INFO)
        self._console = _StandardError()
        self._console.setFormatter(CONSOLE_FORMAT if rank == 0 else _OneLine(f"[rank {rank}] %(message)s"))
        least = max(LEVELS[level], logging.WARNING if is_quiet() else logging.DEBUG)
        self._console.setLevel(least if rank == 0 else logging.ERROR)
        self._console.addFilter(_Console())
        self._buffer = MemoryHandler(_BUFFER, flushLevel=logging.CRITICAL + 1, flushOnClose=False)
        self._file: logging.FileHandler | None = None
        self._sources = _Sources()
        self._saved: list[tuple[logging.Logger, list[logging.Handler], int, bool]] = []

    def start(self) -> None:
        """Begin to route; earlier handlers of these loggers are set aside until `stop`."""
        logging.captureWarnings(True)
        RunLog._open += 1
        for name in _SOURCES:
            logger = logging.getLogger(name)
            self._saved.append((logger, logger.handlers[:], logger.level, logger.propagate))
            logger.handlers = [self._console, self._buffer]
            logger.setLevel(self._level)
            logger.propagate = False
            logger.addFilter(self._sources)

    def __enter__(self) -> Self:
        """Start."""
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop."""
        self.stop()

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
            logger.removeFilter(self._sources)
        self._saved.clear()
        RunLog._open -= 1
        if RunLog._open == 0:  # the log of a study goes on when that of a trial ends
            logging.captureWarnings(False)
        if self._file is not None:
            self._file.close()
