"""Predicted masks as files: a table with a row per picture, and pictures whose pixels are the numbers of classes."""

import colorsys
import io
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from visionforge.config.schema.task import IGNORED
from visionforge.data.info import TaskSpec
from visionforge.data.side_table import SideTable
from visionforge.evaluation.class_names import unique_names
from visionforge.evaluation.prediction_table import Filled, headings_of, rows_of
from visionforge.evaluation.table_writers import Column, open_table
from visionforge.inference.mask_predictor import MaskPrediction
from visionforge.runs.files import write_atomic
from visionforge.runs.workspace import Workspace
from visionforge.scoring.mask_cases import MaskCases
from visionforge.training.mask_outputs import background_of

Array = npt.NDArray[Any]
FOLDER = "masks"  # of the PNG files, beside the table
TRUE, SAID, BOTH = "true_pixels", "predicted_pixels", "shared_pixels"


def mask_columns(spec: TaskSpec, said: MaskPrediction, keys: list[Filled], truth: Array | None = None) -> list[Filled]:
    """Return the columns of a table of masks with their cells.

    After the keys these are `confidence`, the mean probability of the predicted class over the pixels;
    `predicted_pixels_CLASS` …; and, if the truth is known, `dice`, the mean over the classes of the picture,
    `true_pixels_CLASS` … and `shared_pixels_CLASS` …, of which all overlaps can be computed.

    Args:
        spec: The task.
        said: What is said of the images.
        keys: What tells the images apart, such as `index` or `path`.
        truth: (B, H, W), or None where it is not known.
    """
    names, classes = unique_names(spec), len(spec.classes)
    columns = [*keys, (Column("confidence", "number"), said.sure.tolist())]
    if truth is None:
        sizes = np.stack([np.bincount(mask.ravel(), minlength=classes)[:classes] for mask in said.labels])
        return [*columns, *_of_classes(SAID, names, sizes)]
    cases = MaskCases(truth, said.labels, classes, IGNORED, background_of(spec))
    counts = cases.counts
    columns.append((Column("dice", "number"), np.nan_to_num(cases.dice, nan=-1.0).tolist()))
    columns += _of_classes(TRUE, names, counts.sum(axis=2))
    columns += _of_classes(SAID, names, counts.sum(axis=1))
    return [*columns, *_of_classes(BOTH, names, np.einsum("nkk->nk", counts))]


def _of_classes(kind: str, names: list[str], values: Array) -> list[Filled]:
    return [(Column(f"{kind}_{name}", "integer"), values[:, k].tolist()) for k, name in enumerate(names)]


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
    for heading, texts in (("name", side.names), ("group", side.groups)):
        if texts is not None:
            keys.append((Column(heading), texts[:count]))
    workspace.predictions.parent.mkdir(parents=True, exist_ok=True)
    if files:
        names = [f"{FOLDER}/{index:06d}.png" for index in range(count)]
        keys.append((Column("mask"), names))
        for name, mask in zip(names, said.labels, strict=True):
            write_mask(workspace.path / name, mask, class_colours(spec))
    columns = mask_columns(spec, said, keys, truth)
    with open_table(workspace.predictions, headings_of(columns)) as table:
        table.write(rows_of(columns))


def class_colours(spec: TaskSpec) -> npt.NDArray[np.uint8]:
    """Return (K, 3) colours of the classes in a palette: black for the background, others as far apart as can be."""
    count = len(spec.classes)
    hues = np.arange(count) * 0.618034 % 1  # the golden ratio spreads them
    colours = np.array([colorsys.hsv_to_rgb(hue, 0.75, 0.95) for hue in hues])
    background = background_of(spec)
    if background is not None:
        colours[background] = 0
    return np.asarray(np.rint(colours * 255), dtype=np.uint8)


def write_mask(path: Path, mask: npt.NDArray[np.uint8], colours: npt.NDArray[np.uint8]) -> None:
    """Write a mask as a PNG with a palette: its pixels are the numbers of the classes, and are shown in their colours.

    Args:
        path: The file; its folder is made if need be.
        mask: (H, W).
        colours: (K, 3) of the classes.
    """
    picture = Image.fromarray(mask)
    picture.putpalette(colours.ravel().tolist())
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, buffer.getvalue())
