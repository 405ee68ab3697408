"""Predicted masks as files: a table with a row per picture, and pictures whose pixels are the numbers of classes."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from visionforge.config.schema import TaskName
from visionforge.config.schema.metrics import metrics_of
from visionforge.config.schema.task import IGNORED
from visionforge.data.info import TaskSpec
from visionforge.data.side_table import SideTable
from visionforge.errors import RunError
from visionforge.evaluation.class_names import unique_names
from visionforge.evaluation.label_colours import class_colours
from visionforge.evaluation.prediction_table import TEXTS, Filled, headings_of, rows_of
from visionforge.evaluation.scores import PictureScorer
from visionforge.evaluation.table_writers import Column, open_table, read_table
from visionforge.inference.mask_predictor import MaskPrediction
from visionforge.printable import printable
from visionforge.runs.files import write_atomic
from visionforge.runs.own_pictures import SOFTWARE
from visionforge.runs.workspace import MAX_PREDICTIONS_BYTES, Workspace
from visionforge.scoring.mask_cases import MaskCases
from visionforge.training.mask_outputs import background_of

Array = npt.NDArray[Any]
FOLDER = "masks"  # of the PNG files, beside the table
_MOST_PIXELS = 1 << 40  # of a picture in a table: sums of them are exact
TRUE, SAID, BOTH = "true_pixels", "predicted_pixels", "shared_pixels"


def mask_columns(spec: TaskSpec, said: MaskPrediction, keys: list[Filled], truth: Array | None = None) -> list[Filled]:
    """Return the columns of a table of masks with their cells.

    After the keys these are `views`, 1 if test-time views were averaged; `confidence`, the mean probability of the
    predicted class over the pixels; `predicted_pixels_CLASS` …; and, if the truth is known, `dice`, the mean over the
    classes of the picture, `true_pixels_CLASS` … and `shared_pixels_CLASS` …, of which overlaps can be computed.

    Args:
        spec: The task.
        said: What is said of the images.
        keys: What tells the images apart, such as `index` or `path`.
        truth: (B, H, W), or None where it is not known.
    """
    names, classes = unique_names(spec), len(spec.classes)
    columns = [*keys, (Column("views", "integer"), [int(said.averaged)] * len(said.sure))]
    columns.append((Column("confidence", "number"), said.sure.tolist()))
    if truth is None:
        sizes = np.stack([np.bincount(mask.ravel(), minlength=classes)[:classes] for mask in said.labels])
        return [*columns, *_of_classes(SAID, names, sizes)]
    cases = MaskCases(truth, said.labels, classes, IGNORED, background_of(spec))
    both, true, predicted = cases.sizes
    columns.append((Column("dice", "number"), np.nan_to_num(cases.dice, nan=-1.0).tolist()))
    columns += _of_classes(TRUE, names, true)
    columns += _of_classes(SAID, names, predicted)
    return [*columns, *_of_classes(BOTH, names, both)]


def _of_classes(kind: str, names: list[str], values: Array) -> list[Filled]:
    return [(Column(f"{kind}_{name}", "integer"), values[:, k].tolist()) for k, name in enumerate(names)]


def mask_table_scorer(
    path: Path, tta: bool, background: int | None, task: TaskName, classes: int
) -> PictureScorer | None:
    """Return what computes the metrics of a table of masks, from its counts; None if it is of the other reading.

    Args:
        path: The CSV file; it may come from a stranger.
        tta: Whether test-time views have to be averaged.
        background: The class that is in no mean.
        task: Kind of labels.
        classes: Number of classes K.

    Raises:
        RunError: If it is no such table, or has no truth.
    """
    table = read_table(path, TEXTS, MAX_PREDICTIONS_BYTES)
    parts = {kind: [name for name in table if str(name).startswith(f"{kind}_")] for kind in (TRUE, SAID, BOTH)}
    if not parts[BOTH] or "views" not in table:
        raise RunError(f"{path}: no table of masks with their truth; it has no columns {BOTH}_CLASS")
    found = sorted({len(names) for names in parts.values()})
    if found != [classes]:
        raise RunError(f"{path}: has columns of {' or '.join(map(str, found))} classes, the run has {classes}")
    true, said, both = (_whole_numbers(table[names], _MOST_PIXELS, path) for names in parts.values())
    if bool((both > np.minimum(true, said)).any()):
        raise RunError(f"{path}: no table of masks: of a class, {BOTH} is above {TRUE} or {SAID}")
    if set(_whole_numbers(table[["views"]], 1, path).ravel().tolist()) != {int(tta)}:
        return None
    cases = MaskCases.of_sizes(both, true, said, background)
    return PictureScorer(cases, [metric for metric in metrics_of(task) if metric.shared])


def _whole_numbers(columns: Any, most: int, path: Path) -> npt.NDArray[np.int64]:
    """Return columns of a table as integers.

    Raises:
        RunError: If a cell is none, or not from 0 to `most`.
    """
    try:
        cells = columns.to_numpy(dtype=np.float64)
    except (TypeError, ValueError):
        cells = np.full(columns.shape, np.nan)
    right = (cells >= 0) & (cells <= most) & (cells == np.floor(cells))  # NaN is none of it
    if not right.all():
        column = printable(str(columns.columns[np.argmin(right.all(axis=0))]))
        raise RunError(f"{path}: no table of masks: {column} has others than whole numbers from 0 to {most:,}")
    return np.asarray(cells, dtype=np.int64)


def write_mask_table(
    workspace: Workspace,
    spec: TaskSpec,
    said: MaskPrediction,
    truth: Array | None,
    side: SideTable,
    files: bool = False,
) -> None:
    """Write one row per image of a split, in its order.

    Args:
        workspace: Where the table goes.
        spec: The task.
        said: What is said of the images.
        truth: (N, H, W), or None where it is not known.
        side: Names and groups of the images.
        files: Write each mask as a PNG below `masks`, too; the column `mask` names it.
    """
    count = len(said.labels)
    keys: list[Filled] = [(Column("index", "integer"), range(count))]
    keys += [(Column(heading), texts[:count]) for heading, texts in side.known.items()]
    workspace.predictions.parent.mkdir(parents=True, exist_ok=True)
    if files:
        names, colours = [f"{FOLDER}/{index:06d}.png" for index in range(count)], palette(spec)
        keys.append((Column("mask"), names))
        for name, mask in zip(names, said.labels, strict=True):
            write_mask(workspace.path / name, mask, colours)
    columns = mask_columns(spec, said, keys, truth)
    with open_table(workspace.predictions, headings_of(columns)) as table:
        table.write(rows_of(columns))


def drawn_numbers(classes: int, background: int | None) -> npt.NDArray[np.uint8]:
    """Return (256,) the number by which a class is drawn: 0 for the background, from 1 for others; 255 stays.

    Args:
        classes: Number of classes.
        background: The class that is not drawn, or None.
    """
    numbers = np.full(IGNORED + 1, IGNORED, np.uint8)
    drawn = [k for k in range(classes) if k != background]
    numbers[drawn] = np.arange(1, len(drawn) + 1)
    if background is not None:
        numbers[background] = 0
    return numbers


def palette(spec: TaskSpec) -> npt.NDArray[np.uint8]:
    """Return (K, 3) colours of the classes, those of the report; the background is black."""
    classes = len(spec.classes)
    numbers = drawn_numbers(classes, background_of(spec))[:classes]
    colours = class_colours(classes + 1)
    colours[0] = 0
    return colours[numbers]


def write_mask(path: Path, mask: npt.NDArray[np.uint8], colours: npt.NDArray[np.uint8]) -> None:
    """Write a mask as a file; see `mask_png`.

    Args:
        path: The file; its folder is made if need be.
        mask: (H, W).
        colours: (K, 3) of the classes.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, mask_png(mask, colours))


def mask_png(mask: npt.NDArray[np.uint8], colours: npt.NDArray[np.uint8]) -> bytes:
    """Return a mask as a PNG with a palette: its pixels are the numbers of classes, and are shown in their colours.

    Args:
        mask: (H, W).
        colours: (K, 3) of the classes.
    """
    picture = Image.fromarray(mask)
    picture.putpalette(colours.ravel().tolist())
    buffer = io.BytesIO()
    origin = PngInfo()
    origin.add_text("Software", SOFTWARE)
    picture.save(buffer, "PNG", optimize=True, pnginfo=origin)
    return buffer.getvalue()
