"""The columns of every table of predictions, of the images of a split as of anybody's pictures."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from visionforge.data.info import TaskSpec
from visionforge.evaluation.class_names import RAW, RAW_TTA, SHOWN, probability_columns, unique_names
from visionforge.evaluation.table_writers import Cell, Column

if TYPE_CHECKING:
    from visionforge.inference.predictor import BatchPrediction

TEXTS = ("path", "name", "group", "truth", "prediction", "set", "class", "mask", "label")  # `label` in earlier tables
Filled = tuple[Column, Sequence[Cell]]  # a column and its cells


def prediction_columns(
    spec: TaskSpec, said: "BatchPrediction", keys: Sequence[Filled], truth: npt.NDArray[Any] | None = None
) -> list[Filled]:
    """Return the columns of a table of predictions with their cells.

    After the keys these are `truth`, if it is known; `prediction`; `probability_CLASS` …, what is stated of each class;
    `uncertainty`, their entropy from 0, sure, to 1, a guess among all classes (of labels the mean of each); what else
    is said, each in the column of its name, where a set of classes is their names joined by ``|``; and, as far as they
    are known, `raw_probability_CLASS` …, of the image alone before calibration, and `raw_tta_probability_CLASS`
    …, the mean over the test-time views before calibration. Truth and prediction are class
    names; those of labels are joined by ``|``.

    Args:
        spec: The task.
        said: What is said of the images.
        keys: What tells the images apart, such as `index` or `path`.
        truth: (B,) classes, or (B, K) labels 0/1; None where they are not known.
    """
    names = unique_names(spec)
    columns = list(keys)
    for heading, labels in (("truth", truth), ("prediction", said.labels)):
        if labels is not None:
            columns.append((Column(heading), [spec.kind.label_text(label, names) for label in labels]))
    for kind, values in ((SHOWN, said.calibrated), (RAW, said.raw), (RAW_TTA, said.raw_tta)):
        if values is not None:
            headings = (Column(name, "number") for name in probability_columns(spec, kind))
            columns += zip(headings, values.T.tolist(), strict=True)
        if kind == SHOWN:
            entropies = spec.kind.entropy(said.calibrated.astype(np.float64))
            columns.append((Column("uncertainty", "number"), entropies.tolist()))
            columns += [_further(name, given, names) for name, given in said.columns.items()]
    return columns


def _further(name: str, values: npt.NDArray[Any], classes: Sequence[str]) -> Filled:
    """Return a column of numbers or truth values (B,), or of sets of classes (B, K)."""
    if values.ndim == 2:
        parts = [text.replace("|", "/") for text in classes]
        return Column(name), ["|".join(parts[k] for k in np.flatnonzero(row)) for row in values]
    return Column(name, "boolean" if values.dtype == np.bool_ else "number"), values.tolist()


def headings_of(columns: Sequence[Filled]) -> list[Column]:
    """Return the columns without their cells."""
    return [column for column, _ in columns]


def rows_of(columns: Sequence[Filled]) -> list[tuple[Cell, ...]]:
    """Return the rows that columns make."""
    return list(zip(*(cells for _, cells in columns), strict=True))
