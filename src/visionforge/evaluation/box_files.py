"""Boxes as files: a table with a row per predicted one, and predictions and truth in the format of COCO."""

import json
from pathlib import Path
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
RESULTS, TRUTH = "predictions.json", "truth.json"  # beside the table
VIEWS = "test_time_views"  # of the truth's `info`: whether the predictions are what these say together
CORNERS = ("x1", "y1", "x2", "y2")
_DIGITS = 3  # of a coordinate in the table: a thousandth of a pixel


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
    columns: list[Filled] = [(Column("index", "integer"), images.tolist())]
    columns += [(Column(heading), [texts[image] for image in images]) for heading, texts in side.known.items()]
    columns += row_columns(spec, said.labels[images, places])
    if truth is not None:
        right, _ = matched(truth, said.labels, IOU)
        columns.append((Column("matched", "integer"), right[images, places].astype(int).tolist()))
    return columns


def row_columns(spec: TaskSpec, rows: Array) -> list[Filled]:
    """Return the columns `class`, `score`, `x1`, `y1`, `x2` and `y2` of rows (M, 6) [class, score, x1, y1, x2, y2]."""
    names, rows = unique_names(spec), rows.astype(np.float64)
    columns: list[Filled] = [
        (Column("class"), [names[int(kind)] for kind in rows[:, 0]]),
        (Column("score", "number"), rows[:, 1].tolist()),
    ]
    corners = np.round(rows[:, 2:], _DIGITS)
    return columns + [(Column(name, "number"), corners[:, axis].tolist()) for axis, name in enumerate(CORNERS)]


def coco_results(said: BoxPrediction) -> list[dict[str, Any]]:
    """Return the boxes as COCO's code reads results.

    `image_id` is the position of the image in the split, `category_id` the number of the class, from 0, and `bbox`
    x, y, width and height in pixels, not rounded: a metric of them is that of the boxes.
    """
    images, rows, boxes = _bboxes(said.labels)
    return [
        {"image_id": image, "category_id": int(row[0]), "bbox": box, "score": float(row[1])}
        for image, row, box in zip(images, rows, boxes, strict=True)
    ]


def coco_truth(spec: TaskSpec, truth: Array, side: SideTable, views: bool) -> dict[str, Any]:
    """Return the true boxes as COCO's code reads them; numbers are as in `coco_results`.

    Args:
        spec: The task.
        truth: (N, M, 5) rows [class, x1, y1, x2, y2] in pixels, class -1 in rows without a box.
        side: Names of the images, which become `file_name`, if they have any.
        views: Whether what is predicted of them is what test-time views say together.
    """
    sides = {"width": spec.resolution, "height": spec.resolution}
    names = [{}] * len(truth) if side.names is None else [{"file_name": name} for name in side.names[: len(truth)]]
    entries = zip(*_bboxes(truth), strict=True)
    return {
        "info": {"description": f"truth of {RESULTS}: {spec.dataset}", VIEWS: views},
        "images": [{"id": index, **sides, **name} for index, name in enumerate(names)],
        "annotations": [
            {
                "id": number,
                "image_id": image,
                "category_id": int(row[0]),
                "bbox": box,
                "area": box[2] * box[3],
                "iscrowd": 0,
            }
            for number, (image, row, box) in enumerate(entries, start=1)  # 0 is no box in COCO's code
        ],
        "categories": [{"id": k, "name": name} for k, name in enumerate(spec.classes)],
    }


def _bboxes(labels: Array) -> tuple[list[int], npt.NDArray[np.float64], list[list[float]]]:
    """Return of each box its picture, its row, and x, y, width and height; sums of two are the corners again."""
    images, places = np.nonzero(labels[..., 0] != NONE)
    rows = labels[images, places].astype(np.float64)
    corner, end = rows[:, -4:-2], rows[:, -2:]
    return images.tolist(), rows, np.concatenate([corner, end - corner], axis=1).tolist()


def write_box_files(
    workspace: Workspace, spec: TaskSpec, said: BoxPrediction, truth: Array | None, side: SideTable
) -> None:
    """Write one row per predicted box of a split, and `predictions.json` and `truth.json` beside the table.

    `pycocotools` scores these two by themselves: `COCOeval(truth, truth.loadRes(predictions), "bbox")`.

    Args:
        workspace: Where they go.
        spec: The task.
        said: What is said of the images.
        truth: (N, M, 5), or None where it is not known; then there is no `truth.json`.
        side: Names and groups of the images.
    """
    table = workspace.predictions
    table.parent.mkdir(parents=True, exist_ok=True)
    columns = box_columns(spec, said, side, truth)
    with open_table(table, headings_of(columns)) as rows:
        rows.write(rows_of(columns))
    table.with_name(TRUTH).unlink(missing_ok=True)  # never that of other predictions
    _write(table.with_name(RESULTS), coco_results(said))
    if truth is not None:
        _write(table.with_name(TRUTH), coco_truth(spec, truth, side, said.averaged))


def _write(path: Path, content: Any) -> None:
    write_atomic(path, json.dumps(content, separators=(",", ":"), allow_nan=False) + "\n")
