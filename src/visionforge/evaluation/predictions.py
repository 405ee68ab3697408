"""Predictions as a table: one row per image, and MedMNIST's own format."""

import csv
import io
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from visionforge.config.schema import Task
from visionforge.data.info import TaskSpec
from visionforge.errors import RunError
from visionforge.evaluation.metrics import medmnist_metrics
from visionforge.evaluation.scores import Scorer, predicted_labels
from visionforge.runs.files import write_atomic

PLAIN, TTA = "probability", "tta_probability"
Array = npt.NDArray[Any]


def write_predictions(
    path: Path, spec: TaskSpec, probabilities: Array, averaged: Array | None, labels: Array | None
) -> None:
    """Write one row per image, in the order of the split.

    The columns are `index`, `label` (if known), `prediction`, `probability_0` … and, with test-time augmentation,
    `tta_probability_0` …; the prediction then follows the latter. Multi-label cells hold one digit per label,
    such as ``01000``. Probabilities have the nine digits that a float32 needs.

    Args:
        path: The CSV file.
        spec: The task.
        probabilities: (N, K) of the images alone.
        averaged: (N, K) over the test-time views, or None.
        labels: (N,) or (N, K), or None if they are unknown.
    """
    classes = range(len(spec.classes))
    predicted = predicted_labels(probabilities if averaged is None else averaged, spec.task)
    header = ["index", *(["label"] if labels is not None else []), "prediction", *(f"{PLAIN}_{k}" for k in classes)]
    if averaged is not None:
        header += [f"{TTA}_{k}" for k in classes]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    for index in range(len(probabilities)):
        row: list[Any] = [index]
        if labels is not None:
            row.append(cell_text(labels[index]))
        row.append(cell_text(predicted[index]))
        row += [f"{value:.9g}" for value in probabilities[index]]
        if averaged is not None:
            row += [f"{value:.9g}" for value in averaged[index]]
        writer.writerow(row)
    write_atomic(path, text.getvalue())


def cell_text(value: Any) -> str:
    """Return a class, or labels one digit each, as a cell of a table."""
    return "".join(str(int(v)) for v in value) if np.ndim(value) else str(int(value))


def read_predictions(path: Path, tta: bool = True) -> tuple[npt.NDArray[np.float64], Array | None]:
    """Read a predictions table.

    Args:
        path: The CSV file.
        tta: Take the probabilities with test-time augmentation, if the table has them.

    Returns:
        Probabilities (N, K) and labels, (N,) or (N, K) for multi-label data; None if the table has no labels.
    """
    import pandas as pd

    table = pd.read_csv(path, dtype={"label": str, "prediction": str})
    prefix = TTA if tta and f"{TTA}_0" in table else PLAIN
    columns = [name for name in table.columns if name.rpartition("_")[0] == prefix]
    if not columns:
        raise RunError(f"{path}: no table of predictions; it has no column {PLAIN}_0")
    if "label" not in table:
        return table[columns].to_numpy(np.float64), None
    cells = table["label"]
    if cells.str.len().max() == len(columns) > 1 and cells.str.fullmatch("[01]+").all():
        labels: Array = np.array([[int(digit) for digit in cell] for cell in cells])
    else:
        labels = cells.astype(np.int64).to_numpy()
    return table[columns].to_numpy(np.float64), labels


def scorer_of(path: Path, task: Task, tta: bool) -> Scorer:
    """Return what computes the metrics of a predictions table.

    Args:
        path: The CSV file.
        task: Kind of labels.
        tta: Take the probabilities with test-time augmentation, if the table has them.

    Raises:
        RunError: If it has no labels.
    """
    probabilities, labels = read_predictions(path, tta)
    if labels is None:
        raise RunError(f"{path}: has no labels, so it cannot be scored")
    return Scorer(probabilities.astype(np.float32), labels, task)


def write_medmnist_scores(
    predictions: Path, spec: TaskSpec, split: str, folder: Path, run: str = "visionforge", tta: bool = True
) -> Path:
    """Convert a predictions table to the file that ``medmnist.Evaluator.parse_and_evaluate`` reads.

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
    probabilities, labels = read_predictions(predictions, tta)
    if labels is None:
        raise RunError(f"{predictions}: has no labels, so it cannot be scored")
    metrics = medmnist_metrics(probabilities, labels, spec.task)
    size = "" if spec.resolution == 28 else f"_{spec.resolution}"
    auc = metrics["auc"] if metrics["auc"] is not None else float("nan")
    name = f"{spec.dataset}{size}_{split}_[AUC]{auc:.3f}_[ACC]{metrics['accuracy']:.3f}@{run}.csv"
    rows = (",".join([str(index), *(f"{v:.9g}" for v in row)]) for index, row in enumerate(probabilities))
    write_atomic(folder / name, "\n".join(rows) + "\n")
    return folder / name
