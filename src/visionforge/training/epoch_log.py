"""A Lightning logger that keeps one row per epoch in `metrics.csv` and says one line per epoch."""

import logging
import math
import time
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

from visionforge.errors import RunError
from visionforge.printable import csv_text
from visionforge.reading import read_rows
from visionforge.runs.files import write_atomic
from visionforge.runs.workspace import MAX_EPOCHS_BYTES

log = logging.getLogger(__name__)

COLUMNS = (
    "epoch",
    "train/loss",
    "train/accuracy",
    "train/accuracy_mixed",
    "val/loss",
    "val/accuracy",
    "val/auc",
    "lr",
    "seconds",
)


def read_epochs(path: Path) -> list[dict[str, float]]:
    """Return the rows of `metrics.csv`, without the cells that are empty; none if there is no such file.

    Raises:
        RunError: If it is no table of epochs.
    """
    if not path.is_file():
        return []
    try:
        heading, *rows = list(read_rows(path, MAX_EPOCHS_BYTES)) or [[]]
        found = [{key: float(cell) for key, cell in zip(heading, row, strict=True) if cell} for row in rows]
        if not all(row.get("epoch", math.nan).is_integer() for row in found):
            raise ValueError("its epochs are no whole numbers")
    except (OSError, ValueError) as error:
        raise RunError(f"{path}: cannot be read as the table of epochs ({error})") from error
    return found


class EpochLog(Logger):
    """Merges what training and validation log in the same epoch into one row; the file is rewritten whole each time.

    Args:
        path: The CSV file. Rows that it holds already are kept, so that a resumed run continues its table.
        columns: Those that the table has from the beginning; what else is logged gets columns of its own.
    """

    def __init__(self, path: Path, columns: Sequence[str] = COLUMNS) -> None:
        super().__init__()
        self._path = path
        self._columns = columns
        self._rows: dict[int, dict[str, float]] = {}
        self._heading: list[str] = []
        self._lines: dict[int, str] = {}  # of epochs under that heading, whose row has not changed since
        self._started = time.monotonic()
        self._finished: set[int] = set()  # epochs of this process, each told once
        for row in read_epochs(path):
            self._rows[int(row["epoch"])] = row

    @property
    def name(self) -> str:
        """Return the name of the logger."""
        return "epochs"

    @property
    def version(self) -> str:
        """Return an empty version: the run folder is the version."""
        return ""

    @property
    def save_dir(self) -> str:
        """Return the run folder."""
        return str(self._path.parent)

    @property
    def rows(self) -> list[dict[str, float]]:
        """Return the rows in the order of the epochs."""
        return [self._rows[epoch] for epoch in sorted(self._rows)]

    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Do nothing: the run's `config.yaml` holds the settings."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Add metrics to the row of their epoch; test metrics belong to no epoch and are left out."""
        values = {key: float(value) for key, value in metrics.items() if not key.startswith("test/")}
        if "epoch" not in values or len(values) == 1:
            return  # callbacks such as LearningRateMonitor log by steps, which have no row
        epoch = int(values.pop("epoch"))
        if "train/loss" in values and "train/loss" in self._columns:  # logged after the validation: the row is complete
            self.finish(epoch, values)
            return
        self._row(epoch).update(values)
        self._write(epoch)

    @rank_zero_only
    def finish(self, epoch: int, metrics: Mapping[str, float]) -> None:
        """Add the last metrics of an epoch, and say the line of it.

        Args:
            epoch: Number of the epoch, from 0.
            metrics: What is logged after its validation.
        """
        row = self._row(epoch)
        row.update({key: float(value) for key, value in metrics.items()})
        if epoch not in self._finished:
            self._finished.add(epoch)
            now = time.monotonic()
            row["seconds"], self._started = now - self._started, now
            log.info("%s", describe(row))
        self._write(epoch)

    def _row(self, epoch: int) -> dict[str, float]:
        return self._rows.setdefault(epoch, {"epoch": float(epoch)})

    def _write(self, changed: int) -> None:
        """Write the table anew; only the row of one epoch has changed since it was written."""
        row = self._rows[changed]
        if not self._heading or not row.keys() <= set(self._heading):
            extra = sorted({key for row in self._rows.values() for key in row} - set(self._columns))
            self._heading, self._lines = [*self._columns, *extra], {}
        self._lines.pop(changed, None)
        for epoch in self._rows.keys() - self._lines.keys():
            self._lines[epoch] = self._line(self._rows[epoch])
        lines = [_csv(self._heading), *(self._lines[epoch] for epoch in sorted(self._lines))]
        write_atomic(self._path, "".join(lines))

    def _line(self, row: Mapping[str, float]) -> str:
        texts = {key: str(int(value)) if key == "epoch" else f"{value:.6g}" for key, value in row.items()}
        return _csv([texts.get(key, "") for key in self._heading])


def _csv(cells: Sequence[str]) -> str:
    return csv_text([cells])


def describe(row: Mapping[str, float]) -> str:
    """Return one line for the log; a value that is not known is left out."""
    parts = [f"epoch {int(row['epoch']) + 1}"]
    for key, label in (
        ("train/loss", "loss"),
        ("train/accuracy", "accuracy"),
        ("train/accuracy_mixed", "accuracy on mixed images"),
        ("val/loss", "val loss"),
        ("val/accuracy", "val accuracy"),
        ("val/auc", "val AUC"),
    ):
        if key in row and not math.isnan(row[key]):
            parts.append(f"{label} {row[key]:.4f}")
    others = [key for key in row if key not in COLUMNS and not key.startswith("lr")]
    parts += [f"{key} {row[key]:.4f}" for key in others if not math.isnan(row[key])]
    if "seconds" in row:
        parts.append(f"{row['seconds']:.1f} s")
    return ", ".join(parts)
