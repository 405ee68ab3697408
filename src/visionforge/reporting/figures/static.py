"""The pictures of a run: training curves, and grids of sample predictions."""

import contextlib
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import numpy.typing as npt
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from visionforge.config.schema.metrics import ALWAYS, LOSS, PREFIX
from visionforge.evaluation.metric_names import labels_of_metrics
from visionforge.evaluation.slices import as_picture
from visionforge.printable import printable
from visionforge.runs.files import write_atomic
from visionforge.runs.own_pictures import SOFTWARE
from visionforge.training.monitor import AUC, Monitor

# Okabe and Ito (2008): distinguishable with every common form of colour blindness
BLUE, ORANGE, GREEN, VERMILION, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#6B7280"
LIGHT_BLUE, PURPLE = "#56B4E9", "#CC79A7"
DPI = 150
Array = npt.NDArray[Any]


@contextlib.contextmanager
def own_style() -> Iterator[None]:
    """Draw with matplotlib's defaults in this block, whatever its user, or a file in the working folder, has set.

    Names of classes and pictures are shown as they are: a dollar sign begins no formula.
    """
    with matplotlib.rc_context():
        defaults = matplotlib.rcParamsDefault
        matplotlib.rcParams.update({name: defaults[name] for name in defaults if name != "backend"})
        matplotlib.rcParams["text.parse_math"] = False
        yield


def save_figure(figure: Figure, path: Path, dpi: int = DPI) -> None:
    """Write a figure as PNG, whole or not at all.

    Args:
        figure: The figure.
        path: The PNG file.
        dpi: Pixels per inch.
    """
    buffer = io.BytesIO()
    with own_style():
        origin = {"Software": SOFTWARE}
        FigureCanvasAgg(figure).print_figure(buffer, format="png", dpi=dpi, facecolor="white", metadata=origin)
    write_atomic(path, buffer.getvalue())


def _plain(axes: Any) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#E5E7EB", linewidth=0.8)
    axes.set_axisbelow(True)


def own_curves(rows: Sequence[Mapping[str, float]]) -> list[tuple[str, str]]:
    """Return (column, label) of the validation metrics that are logged beside loss, accuracy and AUC."""
    keys = dict.fromkeys(key for row in rows for key in row if key.startswith(PREFIX) and key not in ALWAYS)
    labels = labels_of_metrics()
    return [(key, labels.get(key.removeprefix(PREFIX), key)) for key in keys]


def training_curves(rows: Sequence[Mapping[str, float]], title: str, monitor: Monitor = AUC) -> Figure:
    """Draw loss, accuracy, AUC and what else was validated, and the learning rate over the epochs.

    Args:
        rows: One mapping per epoch with the columns of `metrics.csv`.
        title: Heading.
        monitor: What the best epoch was chosen by.

    Epochs with MixUp or CutMix have `train/accuracy_mixed` instead of `train/accuracy`; the legend then says so.
    """
    figure = Figure(figsize=(12, 3.6), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    mixed = any(_is_number(row.get("train/accuracy_mixed")) for row in rows)
    train = "training (mixed)" if mixed else "training"
    _curve(left, rows, "train/loss", train, BLUE)
    _curve(left, rows, "val/loss", "validation", ORANGE)
    left.set(title="Loss", xlabel="epoch")
    _curve(middle, rows, "train/accuracy", "accuracy, training", BLUE)
    _curve(middle, rows, "train/accuracy_mixed", "accuracy, training (mixed)", LIGHT_BLUE)
    _curve(middle, rows, "val/accuracy", "accuracy, validation", ORANGE)
    _curve(middle, rows, "val/auc", "AUC, validation", GREEN)
    own, colours = own_curves(rows), {"val/loss": ORANGE, "val/accuracy": ORANGE, "val/auc": GREEN}
    for (key, label), colour in zip(own, cycle((VERMILION, PURPLE, GREY)), strict=False):
        colours[key] = colour
        _curve(middle, rows, key, f"{label}, validation", colour)
    watched, sign = monitor.name, 1 if monitor.higher else -1
    known = [row for row in rows if _is_number(row.get(watched))]
    best = max(known, key=lambda row: (sign * row[watched], row["epoch"]), default=None)  # of equal ones the later
    if best is not None:
        axes = left if watched == LOSS else middle
        axes.axvline(best["epoch"] + 1, color=GREY, linewidth=1, linestyle=":")
        colour = colours.get(watched, GREY)
        axes.plot(best["epoch"] + 1, best[watched], marker="*", markersize=11, color=colour, linestyle="", label="best")
    middle.set(title="Metrics" if own else "Accuracy and AUC", xlabel="epoch")
    _curve(right, rows, "lr", "last step of the epoch", VERMILION)
    right.set(title="Learning rate", xlabel="epoch")
    right.set_ylim(bottom=0)
    for axes in (left, middle, right):
        _plain(axes)
        axes.xaxis.get_major_locator().set_params(integer=True)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(frameon=False, fontsize=8)
    figure.suptitle(title, fontsize=12)
    return figure


def _is_number(value: object) -> bool:
    return isinstance(value, float) and not np.isnan(value)


def _curve(axes: Any, rows: Sequence[Mapping[str, float]], key: str, label: str, colour: str) -> None:
    points = [(row["epoch"] + 1, row[key]) for row in rows if _is_number(row.get(key))]
    if points:
        marker = "o" if len(points) <= 20 else None
        axes.plot(*zip(*points, strict=True), label=label, color=colour, marker=marker, markersize=3.5, linewidth=1.6)


@dataclass(frozen=True)
class Picture:
    """One image of a grid.

    Attributes:
        image: (C, H, W) uint8, or a volume (C, R, R, R), which is shown by its middle slices.
        index: Its position in the split.
        truth: Class, or (K,) labels.
        predicted: The same for the prediction.
        confidence: Probability of the prediction.
        overlay: (P, Q, 3) uint8, where the network looked; None without an explanation.
        name: Where it came from; None if that is not known.
    """

    image: Array
    index: int
    truth: Any
    predicted: Any
    confidence: float
    overlay: Array | None = None
    name: str | None = None

    @property
    def short_name(self) -> str:
        """Return the last part of the name in at most 22 characters, or the position in the split."""
        if self.name is None:
            return f"№ {self.index}"
        return elided(printable(self.name.rstrip("/").rpartition("/")[2]), 22)

    @property
    def right(self) -> bool:
        """Return whether the prediction is right, all labels of it."""
        return bool(np.array_equal(self.truth, self.predicted))


def sample_grid(pictures: Sequence[Picture], classes: Sequence[str], title: str) -> Figure:
    """Draw up to 24 images with truth, prediction and probability; wrong ones are framed and marked.

    Args:
        pictures: The images.
        classes: Class names in label order.
        title: Heading.
    """
    shown = pictures[:24]
    columns, width = _columns(shown)
    lines = -(-len(shown) // columns)
    figure = Figure(figsize=(width * columns + 0.2, 2.0 * lines + 0.5), layout="constrained")
    grid = np.atleast_1d(figure.subplots(lines, columns, squeeze=False)).ravel()
    for axes in grid[len(shown) :]:
        axes.axis("off")
    for axes, picture in zip(grid, shown, strict=False):
        _image(axes, as_picture(picture.image))
        _caption(axes, picture, classes)
    figure.suptitle(title, fontsize=12)
    return figure


def map_grid(pictures: Sequence[Picture], classes: Sequence[str], title: str) -> Figure:
    """Draw images, and below each where the network looked.

    Args:
        pictures: Images with overlays.
        classes: Class names in label order.
        title: Heading.
    """
    columns, width = _columns(pictures)
    lines = -(-len(pictures) // columns)
    figure = Figure(figsize=(width * columns + 0.2, 3.6 * lines + 0.5), layout="constrained")
    grid = figure.subplots(2 * lines, columns, squeeze=False)
    for axes in grid.ravel():
        axes.axis("off")
    for place, picture in enumerate(pictures):
        line, column = divmod(place, columns)
        above, below = grid[2 * line, column], grid[2 * line + 1, column]
        above.axis("on")
        _image(above, as_picture(picture.image))
        _caption(above, picture, classes)
        if picture.overlay is not None:
            below.imshow(picture.overlay)
    figure.suptitle(title, fontsize=9)
    return figure


def _columns(pictures: Sequence[Picture]) -> tuple[int, float]:
    """Return how many pictures stand side by side, and the width of one in inches; a volume is three slices wide."""
    return (min(4, len(pictures)), 4.2) if pictures[0].image.ndim == 4 else (min(8, len(pictures)), 1.62)


def _image(axes: Any, pixels: Array) -> None:
    grey = pixels.shape[2] == 1 or (pixels == pixels[..., :1]).all()
    axes.imshow(pixels[..., 0] if grey else pixels, cmap="gray" if grey else None, vmin=0, vmax=255)
    axes.set_xticks([])
    axes.set_yticks([])


def _caption(axes: Any, picture: Picture, classes: Sequence[str]) -> None:
    colour = "#15803D" if picture.right else "#B91C1C"
    for spine in axes.spines.values():
        spine.set(color=colour, linewidth=1.0 if picture.right else 2.6)
    said = f"{'✓' if picture.right else '✗'} {label_names(picture.predicted, classes, 14)}  {picture.confidence:.0%}"
    text = said if picture.right else f"{said}\ntrue: {label_names(picture.truth, classes, 14)}"
    axes.set_title(text, fontsize=7.5, color=colour, loc="left", pad=3)
    axes.set_xlabel(picture.short_name, fontsize=6, color=GREY, loc="left", labelpad=2)


def label_names(value: Any, classes: Sequence[str], length: int) -> str:
    """Return a class name, or the names of all set labels."""
    if np.ndim(value):
        return shorten(
            ", ".join(name for name, present in zip(classes, value, strict=True) if present) or "none", length
        )
    return shorten(classes[int(value)], length)


def elided(text: str, length: int) -> str:
    """Return a text of at most `length` characters, of which the middle is left out."""
    end = (length - 1) // 2
    return text if len(text) <= length else f"{text[: length - 1 - end]}…{text[-end:]}"


def shorten(text: str, length: int) -> str:
    """Return a text of at most `length` characters."""
    return text if len(text) <= length else text[: length - 1].rstrip() + "…"


def escaped(text: str) -> str:
    """Return a text that Plotly does not read as markup."""
    return text.replace("&", "&amp;").replace("<", "&lt;")
