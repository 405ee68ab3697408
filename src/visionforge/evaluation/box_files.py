"""Predicted boxes as files: a table with a row per box, and the same in the format of COCO's results."""

import json
from typing import Any

import numpy as np
import numpy.typing as npt

from visionforge.data.info import TaskSpec
from visionforge.data.side_table import SideTable
from visionforge.evaluation.class_names import unique_names
from visionforge.evaluation.prediction_table import Filled, headings_of, rows_of
from visionforge.evaluation.table_writers import Column, open_table
from visionforge.inference.box_predictor import BoxPrediction
from visionforge.runs.files import write_atomic
from visionforge.runs.workspace import Workspace
from visionforge.scoring.assignment import NONE, matched
from visionforge.scoring.box_cases import IOU

Array = npt.NDArray[Any]
RESULTS = "predictions.json"  # beside the table
CORNERS = ("x1", "y1", "x2", "y2")
_DIGITS = 3  # of a coordinate: a thousandth of a pixel


def box_columns(spec: TaskSpec, said: BoxPrediction, side: SideTable, truth: Array | None = None) -> list[Filled]:
    """Return the columns of a table of boxes with their cells, a row per box, by image and falling score.

    They are `index`, the position of the image; `name` and `group`, if the images have them; `class`; `score`; `x1`,
    `y1`, `x2`, `y2` in pixels; and, if the truth is known, `matched`, 1 if it finds a true box at IoU 0.5.

    Args:
        spec: The task.
        said: What is said of the images.
        side: Names and groups of the images.
        truth: (B, M, 5), or None where it is not known.
    """
    images, places = np.nonzero(said.labels[..., 0] != NONE)
    rows = said.labels[images, places].astype(np.float64)
    names = unique_names(spec)
    columns: list[Filled] = [(Column("index", "integer"), images.tolist())]
    columns += [(Column(heading), [texts[image] for image in images]) for heading, texts in side.known.items()]
    columns.append((Column("class"), [names[int(kind)] for kind in rows[:, 0]]))
    columns.append((Column("score", "number"), rows[:, 1].tolist()))
    corners = np.round(rows[:, 2:], _DIGITS)
    columns += [(Column(name, "number"), corners[:, axis].tolist()) for axis, name in enumerate(CORNERS)]
    if truth is not None:
        right, _ = matched(truth, said.labels, IOU)
        columns.append((Column("matched", "integer"), right[images, places].astype(int).tolist()))
    return columns


def coco_results(said: BoxPrediction) -> list[dict[str, Any]]:
    """Return the boxes as COCO's code reads results.

    `image_id` is the position of the image in the split, `category_id` the number of the class, from 0, and `bbox`
    x, y, width and height in pixels.
    """
    images, places = np.nonzero(said.labels[..., 0] != NONE)
    rows = said.labels[images, places].astype(np.float64)
    boxes = np.round(np.concatenate([rows[:, 2:4], rows[:, 4:] - rows[:, 2:4]], axis=1), _DIGITS)
    return [
        {"image_id": int(image), "category_id": int(row[0]), "bbox": box, "score": float(row[1])}
        for image, row, box in zip(images, rows, boxes.tolist(), strict=True)
    ]


def write_box_files(
    workspace: Workspace, spec: TaskSpec, said: BoxPrediction, truth: Array | None, side: SideTable
) -> None:
    """Write one row per predicted box of a split, and `predictions.json` beside the table.

    Args:
        workspace: Where they go.
        spec: The task.
        said: What is said of the images.
        truth: (N, M, 5), or None where it is not known.
        side: Names and groups of the images.
    """
    table = workspace.predictions
    table.parent.mkdir(parents=True, exist_ok=True)
    columns = box_columns(spec, said, side, truth)
    with open_table(table, headings_of(columns)) as rows:
        rows.write(rows_of(columns))
    results = json.dumps(coco_results(said), separators=(",", ":"), allow_nan=False)
    write_atomic(table.with_name(RESULTS), f"{results}\n".encode())
