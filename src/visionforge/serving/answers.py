"""What is said of a picture as JSON: the columns of the table that `predict` writes, those of classes put together."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from visionforge.data.info import TaskSpec
from visionforge.evaluation.class_names import RAW, RAW_TTA, SHOWN, probability_columns, unique_names
from visionforge.evaluation.prediction_table import Filled, prediction_columns, rows_of
from visionforge.evaluation.table_writers import Column

if TYPE_CHECKING:
    from visionforge.inference.predictions import BatchPrediction

Answer = dict[str, Any]
_BY_CLASS = {SHOWN: "probabilities", RAW: "raw_probabilities", RAW_TTA: "raw_tta_probabilities"}


def class_answers(spec: TaskSpec, said: "BatchPrediction", names: Sequence[str]) -> list[Answer]:
    """Return an answer for each image.

    Args:
        spec: The task.
        said: What is said of the images.
        names: Of the pictures.
    """
    classes = unique_names(spec)
    homes = {
        column: (key, name)
        for kind, key in _BY_CLASS.items()
        for column, name in zip(probability_columns(spec, kind), classes, strict=True)
    }
    found = table_answers(prediction_columns(spec, said, [(Column("name"), names)]), homes)
    several = {"prediction": said.labels} if spec.kind.several else {}
    for key, rows in (several | {name: each for name, each in said.columns.items() if each.ndim == 2}).items():
        for answer, row in zip(found, rows, strict=True):
            answer[key] = [classes[k] for k in np.flatnonzero(row)]
    return found


def table_answers(columns: Sequence[Filled], homes: dict[str, tuple[str, str]]) -> list[Answer]:
    """Return an answer for each row of a table.

    Args:
        columns: Of the table, with their cells.
        homes: Name of a column → the key of the mapping that it goes to, and its key there.
    """
    found: list[Answer] = []
    for row in rows_of(columns):
        answer: Answer = {}
        for (column, _), cell in zip(columns, row, strict=True):
            key, name = homes.get(column.name, (column.name, None))
            if name is None:
                answer[key] = cell
            else:
                answer.setdefault(key, {})[name] = cell
        found.append(answer)
    return found
