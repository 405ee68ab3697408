"""Predictions as a table: one row per image, and MedMNIST's own format."""

import re
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from visionforge.config.schema import TaskName
from visionforge.config.schema.tasks import task_named, usual_task
from visionforge.data.info import TaskSpec
from visionforge.data.side_table import SideTable
from visionforge.errors import RunError
from visionforge.evaluation.class_names import RAW, RAW_TTA
from visionforge.evaluation.metrics import medmnist_metrics
from visionforge.evaluation.prediction_table import Filled, headings_of, prediction_columns, rows_of
from visionforge.evaluation.scores import Scorer
from visionforge.evaluation.table_writers import Column, cell_text, open_table
from visionforge.reading import read_rows
from visionforge.runs.files import write_atomic
from visionforge.runs.workspace import MAX_PREDICTIONS_BYTES

if TYPE_CHECKING:
    from visionforge.inference.predictor import BatchPrediction

_OLD, _OLD_TTA = "probability", "tta_probability"  # raw ones, in the tables of earlier versions
MOST_VALUES = 150_000_000  # probabilities that are read of it
MOST_TEXT = 100_000_000  # bytes of the different labels that are read of it, each about 50 and its letters
UNKNOWN = SideTable()
Array = npt.NDArray[Any]


def write_predictions(
    path: Path, spec: TaskSpec, said: "BatchPrediction", truth: Array | None = None, side: SideTable = UNKNOWN
) -> None:
    """Write one row per image of a split, in its order.

    The columns are `index`; `name` and `group`, each if it is known; and those of `prediction_columns`. Probabilities
    have the nine digits that a float32 needs.

    Args:
        path: The CSV file.
        spec: The task.
        said: What is said of the images.
        truth: (N,) classes, or (N, K) labels 0/1; None where they are not known.
        side: Names and groups of the images; what is beyond the predicted ones is left out.
    """
    count = len(said.labels)
    keys: list[Filled] = [(Column("index", "integer"), range(count))]
    keys += [(Column(heading), texts[:count]) for heading, texts in side.known.items()]
    columns = prediction_columns(spec, said, keys, truth)
    path.parent.mkdir(parents=True, exist_ok=True)
    with open_table(path, headings_of(columns)) as table:
        table.write(rows_of(columns))


def read_predictions(
    path: Path, tta: bool = True, task: TaskName | None = None
) -> tuple[npt.NDArray[np.float64], Array | None]:
    """Read the raw probabilities of a predictions table, of which the metrics are computed, and the truth.

    Tables of earlier versions are read, too: they have `label` instead of `truth`, as numbers, and their
    `probability_0` and `tta_probability_0` are raw.

    Args:
        path: The CSV file.
        tta: Take the probabilities with test-time augmentation, if the table has them.
        task: Kind of labels; None finds out whether an image may have several, as then they do not add up to 1.

    Returns:
        Probabilities before calibration (N, K), and labels, (N,), or (N, K) where an image may have several;
        None if the table has no truth.

    Raises:
        RunError: If it is no table of predictions.
    """
    try:
        rows = read_rows(path, MAX_PREDICTIONS_BYTES)
        columns = next(rows, [])
        old = not any(name.startswith((f"{RAW}_", f"{RAW_TTA}_")) for name in columns)
        kinds = (_OLD_TTA, _OLD) if old else (RAW_TTA, RAW)
        found = {kind: [place for place, name in enumerate(columns) if name.startswith(f"{kind}_")] for kind in kinds}
        kind = next((each for each in (kinds if tta else reversed(kinds)) if found[each]), None)
        if kind is None:
            raise RunError(f"{path}: no table of predictions; it has no column {RAW}_CLASS")
        probabilities, cells = _read_cells(rows, columns, found[kind], "label" if old else "truth")
        if cells is None:
            return probabilities, None
        if old:
            return probabilities, _old_labels(cells, len(found[kind]))
        names = [columns[place].removeprefix(f"{kind}_") for place in found[kind]]
        several = not np.allclose(probabilities.sum(axis=1), 1, atol=1e-3)
        labelled = task_named(task or usual_task(several, len(names)))
        return probabilities, labelled.labels_of([cell_text(cell) for cell in cells], names)
    except (OSError, ValueError, KeyError, OverflowError) as error:
        reason = " ".join(str(error).split())[:160]
        raise RunError(f"{path}: cannot be read as a table of predictions ({reason})") from error


def _read_cells(
    rows: Iterator[list[str]], columns: list[str], places: list[int], label: str
) -> tuple[npt.NDArray[np.float64], list[str] | None]:
    """Return the numbers (N, K) of some columns, and the texts of the column of labels; None if there is none.

    Raises:
        ValueError: If a row is not like the heading, or there are more of them than such a table has.
    """
    at = columns.index(label) if label in columns else None
    numbers, cells, text = array("d"), list[str](), 0
    same: dict[str, str] = {}  # equal texts are kept once
    for row in rows:
        if len(row) != len(columns):
            raise ValueError(f"a row has {len(row):,} cells, the heading {len(columns):,}")
        numbers.extend([float(row[place]) for place in places])
        if len(numbers) > MOST_VALUES:
            raise ValueError(f"it has more than {MOST_VALUES:,} probabilities")
        if at is None:
            continue
        if row[at] not in same:
            text += 50 + len(row[at])
            if text > MOST_TEXT:
                raise ValueError(f"it has more than {MOST_TEXT:,} bytes of different texts in the column {label}")
        cells.append(same.setdefault(row[at], row[at]))
    found = np.frombuffer(numbers, np.float64).reshape(-1, max(1, len(places)))
    return found, None if at is None else cells


def _old_labels(cells: list[str], classes: int) -> Array:
    """Return the labels of a table of an earlier version: a number, or one digit per label."""
    if max(map(len, cells), default=0) == classes > 1 and all(re.fullmatch("[01]+", cell) for cell in cells):
        return np.array([[int(digit) for digit in cell] for cell in cells])
    return np.array([int(cell) for cell in cells], np.int64)


def scorer_of(path: Path, task: TaskName, tta: bool, positive: int = 1) -> Scorer:
    """Return what computes the metrics of a predictions table.

    Args:
        path: The CSV file.
        task: Kind of labels.
        tta: Take the probabilities with test-time augmentation, if the table has them.
        positive: Of two classes, the one that is to be found.

    Raises:
        RunError: If it has no labels.
    """
    probabilities, labels = read_predictions(path, tta, task)
    if labels is None:
        raise RunError(f"{path}: has no labels, so it cannot be scored")
    return Scorer(probabilities.astype(np.float32), labels, task, positive=positive)


def read_groups(path: Path) -> list[str] | None:
    """Return the group of each image of a predictions table; None if it does not say.

    Raises:
        RunError: If it cannot be read, or its groups are too many to be kept.
    """
    try:
        rows = read_rows(path, MAX_PREDICTIONS_BYTES)
        columns = next(rows, [])
        if "group" not in columns:
            return None
        _, cells = _read_cells(rows, columns, [], "group")
        return cells
    except (OSError, ValueError, OverflowError) as error:
        reason = " ".join(str(error).split())[:160]
        raise RunError(f"{path}: cannot be read as a table of predictions ({reason})") from error


def write_medmnist_scores(
    predictions: Path, spec: TaskSpec, split: str, folder: Path, run: str = "visionforge", tta: bool = True
) -> Path:
    """Convert the raw probabilities of a table to the file that ``medmnist.Evaluator.parse_and_evaluate`` reads.

    Args:
        predictions: The table.
        spec: The task; its data set and resolution are part of the file's name.
        split: `train`, `val` or `test`.
        folder: Where the file goes.
        run: Name of the run, the last part of the file's name.
        tta: Take the probabilities with test-time augmentation, if the table has them.

    Returns:
        The file, named ``FLAG[_SIZE]_SPLIT_[AUC]…_[ACC]…@RUN.csv``.
    """
    probabilities, labels = read_predictions(predictions, tta, spec.task)
    if labels is None:
        raise RunError(f"{predictions}: has no labels, so it cannot be scored")
    metrics = medmnist_metrics(probabilities, labels, spec.task)
    size = "" if spec.resolution == 28 else f"_{spec.resolution}"
    auc = metrics["auc"] if metrics["auc"] is not None else float("nan")
    name = f"{spec.dataset}{size}_{split}_[AUC]{auc:.3f}_[ACC]{metrics['accuracy']:.3f}@{run}.csv"
    rows = (",".join([str(index), *(f"{v:.9g}" for v in row)]) for index, row in enumerate(probabilities))
    write_atomic(folder / name, "\n".join(rows) + "\n")
    return folder / name
