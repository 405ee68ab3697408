"""The table of epochs of any run as curves of so many points; what is read is bounded, and no cell is trusted."""

import math
import re
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from visionforge.errors import RunError
from visionforge.reading import read_rows
from visionforge.runs.workspace import MAX_EPOCHS_BYTES

MOST_SERIES = 10  # of a run; more would be a table that somebody else has written
_SERIES = re.compile(r"(?:train|val)/[\w.-]{1,60}|lr[\w./-]{0,60}")
_DIGITS = 5  # that count
_MINUTE = 60.0


@dataclass(frozen=True)
class Curves:
    """What was logged along a training.

    Attributes:
        epochs: Numbers of the epochs, from 1.
        minutes: Time at the end of each, in minutes of training; empty if it is not known.
        values: Name → value after each; None where there is none.
    """

    epochs: list[float] = field(default_factory=list)
    minutes: list[float | None] = field(default_factory=list)
    values: dict[str, list[float | None]] = field(default_factory=dict)


def read_curves(path: Path, most_points: int) -> Curves:
    """Return the curves of a `metrics.csv`; none if there is no such file.

    Args:
        path: The table.
        most_points: Of longer tables so many rows are taken, evenly spaced, the first and the last among them.

    Raises:
        RunError: If it is no table of epochs.
    """
    try:
        columns = _columns(path)
    except FileNotFoundError:
        return Curves()
    except (OSError, ValueError) as error:
        raise RunError(f"{path}: cannot be read as the table of epochs ({error})") from error
    epochs, seconds = columns.pop("epoch"), columns.pop("seconds", None)
    if not all(epoch.is_integer() for epoch in epochs):
        raise RunError(f"{path}: cannot be read as the table of epochs (its epochs are no whole numbers)")
    kept = _thinned(len(epochs), most_points)
    values = {name: [_rounded(cells[row]) for row in kept] for name, cells in columns.items()}
    return Curves(
        [epochs[row] + 1 for row in kept],
        [] if seconds is None else _minutes(seconds, kept),
        {name: cells for name, cells in values.items() if any(cell is not None for cell in cells)},
    )


def _columns(path: Path) -> dict[str, "array[float]"]:
    """Return the columns that are shown; an empty cell is NaN."""
    rows = read_rows(path, MAX_EPOCHS_BYTES)
    heading = next(rows, [])
    if "epoch" not in heading:
        raise ValueError("it has no column epoch")
    series = [name for name in dict.fromkeys(heading) if _SERIES.fullmatch(name)][:MOST_SERIES]
    places = {name: heading.index(name) for name in ("epoch", "seconds", *series) if name in heading}
    columns = {name: array("d") for name in places}
    for row in rows:
        if len(row) != len(heading):
            raise ValueError("its rows are not as long as its heading")
        for name, place in places.items():
            columns[name].append(float(row[place] or "nan"))
    return columns


def _thinned(count: int, most: int) -> Sequence[int]:
    if count <= most:
        return range(count)
    return [round(place * (count - 1) / (most - 1)) for place in range(most)]


def _minutes(seconds: "array[float]", kept: Sequence[int]) -> list[float | None]:
    total, ends = 0.0, []
    for each in seconds:
        total += each
        ends.append(total / _MINUTE)
    found = [_rounded(ends[row]) for row in kept]
    return [] if None in found else found


def _rounded(value: float) -> float | None:
    return float(f"{value:.{_DIGITS}g}") if math.isfinite(value) else None
