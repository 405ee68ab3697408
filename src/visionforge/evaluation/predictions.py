"""Predictions as a table: one row per image, and MedMNIST's own format."""

import re
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from visionforge.config.schema import Task
from visionforge.data.info import TaskSpec
from visionforge.data.side_table import SideTable
from visionforge.errors import RunError
from visionforge.evaluation.class_names import (
    RAW,
    RAW_TTA,
    SHOWN,
    label_text,
    labels_of,
    probability_columns,
    unique_names,
)
from visionforge.evaluation.evaluation import Evaluation
from visionforge.evaluation.metrics import medmnist_metrics
from visionforge.evaluation.picture_table import thresholds_of
from visionforge.evaluation.scores import Scorer, predicted_labels
from visionforge.evaluation.table_writers import Cell, Column, cell_text, open_table
from visionforge.reading import read_rows
from visionforge.runs.files import write_atomic
from visionforge.runs.workspace import MAX_PREDICTIONS_BYTES
from visionforge.training.classifier import ImageClassifier
from visionforge.training.tta import view_functions

_OLD, _OLD_TTA = "probability", "tta_probability"  # raw ones, in the tables of earlier versions
MOST_VALUES = 150_000_000  # probabilities that are read of it
MOST_TEXT = 100_000_000  # bytes of the different labels that are read of it, each about 50 and its letters
UNKNOWN = SideTable()
Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Answers:
    """What a network says of the images of a split.

    Attributes:
        shown: (N, K) the probabilities that it states: calibrated, over the test-time views if they are on.
        predicted: (N,) predicted classes, or (N, K) labels.
        raw: (N, K) of the images alone, before calibration; None where they are not known.
        raw_tta: (N, K) means over the views, before calibration; None without views.
        truth: (N,) or (N, K); None where it is not known.
    """

    shown: Array
    predicted: Array
    raw: Array | None = None
    raw_tta: Array | None = None
    truth: Array | None = None

    @classmethod
    def of(cls, evaluation: Evaluation) -> "Answers":
        """Return the answers of an evaluated split."""
        plain, averaged = evaluation.readings["without_tta"], evaluation.readings.get("with_tta")
        raw_tta = None if averaged is None else averaged.probabilities
        return cls(evaluation.best.shown, evaluation.predicted, plain.probabilities, raw_tta, evaluation.labels)


def answers_without_truth(model: ImageClassifier, given: torch.Tensor) -> Answers:
    """Return what a network says of images whose labels were not looked at.

    Args:
        model: The network.
        given: (N, K) what its `predict_step` gave: averaged over the test-time views, if they are on.
    """
    spec = model.spec
    assert spec is not None
    given = given.detach().to("cpu", torch.float32)
    averaged = len(view_functions(spec.flags, model.settings.tta, spec.resolution)) > 1
    thresholds = thresholds_of(model, averaged)
    chosen = predicted_labels(given.numpy(), spec.task, None if thresholds is None else thresholds.numpy())
    raw = given.numpy()
    shown = model.calibrated(given, tta=averaged).numpy()
    return Answers(shown, chosen, None if averaged else raw, raw if averaged else None)


def write_predictions(path: Path, spec: TaskSpec, answers: Answers, side: SideTable = UNKNOWN) -> None:
    """Write one row per image, in the order of the split.

    The columns are `index`; `name`, `group` and `truth`, each if it is known; `prediction`; `probability_CLASS` …, what
    the network states of each class; `raw_probability_CLASS` …, that of the image alone before calibration; and
    with test-time augmentation `raw_tta_probability_CLASS` …, the mean over the views before calibration. Truth and
    prediction are class names; those of labels are joined by ``|``. Probabilities have the nine digits that a float32
    needs.

    Args:
        path: The CSV file.
        spec: The task.
        answers: What the network says.
        side: Names and groups of the images; what is beyond the evaluated ones is left out.
    """
    names, count = unique_names(spec), len(answers.shown)
    columns: list[tuple[Column, Sequence[Cell]]] = [(Column("index", "integer"), range(count))]
    for heading, texts in (("name", side.names), ("group", side.groups)):
        if texts is not None:
            columns.append((Column(heading), texts[:count]))
    for heading, labels in (("truth", answers.truth), ("prediction", answers.predicted)):
        if labels is not None:
            columns.append((Column(heading), [label_text(label, names) for label in labels]))
    for kind, values in ((SHOWN, answers.shown), (RAW, answers.raw), (RAW_TTA, answers.raw_tta)):
        if values is not None:
            headings = (Column(name, "number") for name in probability_columns(spec, kind))
            columns += zip(headings, values.T.tolist(), strict=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    with open_table(path, [column for column, _ in columns]) as table:
        table.write(list(zip(*(cells for _, cells in columns), strict=True)))


def read_predictions(
    path: Path, tta: bool = True, task: Task | None = None
) -> tuple[npt.NDArray[np.float64], Array | None]:
    """Read the raw probabilities of a predictions table, of which the metrics are computed, and the truth.

    Tables of earlier versions are read, too: they have `label` instead of `truth`, as numbers, and their
    `probability_0` and `tta_probability_0` are raw.

    Args:
        path: The CSV file.
        tta: Take the probabilities with test-time augmentation, if the table has them.
        task: Kind of labels; None finds out whether an image may have several, as then they do not add up to 1.

    Returns:
        Probabilities before calibration (N, K), and labels, (N,) or (N, K) for multi-label data; None if the table has
        no truth.

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
        multi = task == "multi-label" if task else not np.allclose(probabilities.sum(axis=1), 1, atol=1e-3)
        names = [columns[place].removeprefix(f"{kind}_") for place in found[kind]]
        return probabilities, labels_of([cell_text(cell) for cell in cells], names, multi)
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
                raise ValueError(f"it has more than {MOST_TEXT:,} bytes of different labels")
        cells.append(same.setdefault(row[at], row[at]))
    return np.frombuffer(numbers, np.float64).reshape(-1, len(places)), None if at is None else cells


def _old_labels(cells: list[str], classes: int) -> Array:
    """Return the labels of a table of an earlier version: a number, or one digit per label."""
    if max(map(len, cells), default=0) == classes > 1 and all(re.fullmatch("[01]+", cell) for cell in cells):
        return np.array([[int(digit) for digit in cell] for cell in cells])
    return np.array([int(cell) for cell in cells], np.int64)


def scorer_of(path: Path, task: Task, tta: bool, positive: int = 1) -> Scorer:
    """Return what computes the metrics of a predictions table.

    Args:
        path: The CSV file.
        task: Kind of labels.
        tta: Take the probabilities with test-time augmentation, if the table has them.
        positive: The class of a binary task that is to be found.

    Raises:
        RunError: If it has no labels.
    """
    probabilities, labels = read_predictions(path, tta, task)
    if labels is None:
        raise RunError(f"{path}: has no labels, so it cannot be scored")
    return Scorer(probabilities.astype(np.float32), labels, task, positive=positive)


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
