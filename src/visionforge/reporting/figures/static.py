"""The pictures of a run: training curves, and grids of sample predictions."""

import contextlib
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import numpy.typing as npt
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from visionforge.config.schema.metrics import ALWAYS, LOSS, PREFIX
from visionforge.evaluation.metric_names import labels_of_metrics
from visionforge.evaluation.slices import as_picture
from visionforge.printable import printable
from visionforge.reporting.figures.whole_pixels import WholePixels
from visionforge.runs.files import write_atomic
from visionforge.runs.own_pictures import SOFTWARE
from visionforge.training.monitor import AUC, Monitor

# Okabe and Ito (2008): distinguishable with every common form of colour blindness
BLUE, ORANGE, GREEN, VERMILION, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#6B7280"
LIGHT_BLUE, PURPLE = "#56B4E9", "#CC79A7"
DPI = 150
_COMPRESSION = 3  # of zlib's 9: without the fourth channel as small as matplotlib's files, in two thirds of the time
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
    _write_png(pixels_of(figure, dpi), path, dpi)


def save_figures(figures: Iterable[tuple[Figure, Path]], dpi: int = DPI) -> None:
    """Write figures as PNG, each whole or not at all; one is drawn while the one before is compressed.

    Args:
        figures: Each with its file.
        dpi: Pixels per inch.
    """
    with ThreadPoolExecutor(1, "figures") as writer:
        writing = [writer.submit(_write_png, pixels_of(figure, dpi), path, dpi) for figure, path in figures]
    for each in writing:
        each.result()


def pixels_of(figure: Figure, dpi: int) -> Array:
    """Return the pixels of a figure on white: (height, width, 3) uint8."""
    figure.set_dpi(dpi)
    figure.set_facecolor("white")
    with own_style():
        canvas = FigureCanvasAgg(figure)
        canvas.draw()  # type: ignore[no-untyped-call]
    return np.array(np.asarray(canvas.buffer_rgba())[..., :3])  # type: ignore[no-untyped-call]


def _write_png(pixels: Array, path: Path, dpi: int) -> None:
    origin = PngInfo()
    origin.add_text("Software", SOFTWARE)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "png", compress_level=_COMPRESSION, pnginfo=origin, dpi=(dpi, dpi))
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
    grid = _Grid(pictures[:24], 1, title, 12)
    for place, picture in enumerate(pictures[:24]):
        grid.image(place, picture, classes)
    return grid.figure


def map_grid(pictures: Sequence[Picture], classes: Sequence[str], title: str) -> Figure:
    """Draw images, and below each where the network looked.

    Args:
        pictures: Images with overlays.
        classes: Class names in label order.
        title: Heading.
    """
    grid = _Grid(pictures, 2, title, 9)
    for place, picture in enumerate(pictures):
        grid.image(place, picture, classes)
        if picture.overlay is not None:
            grid.overlay(place, picture.overlay)
    return grid.figure


class _Grid:
    """Pictures side by side in one pair of axes, whose units are inches from the upper left corner.

    A pair of axes for each picture takes most of a second to lay out and to draw.

    Args:
        pictures: At least one; all are as large as the first.
        parts: Images that stand below each other for each picture.
        title: Heading.
        size: Of its letters, in points.
    """

    heading, caption, name, gap = 0.34, 0.28, 0.15, 0.07  # inches

    def __init__(self, pictures: Sequence[Picture], parts: int, title: str, size: int) -> None:
        volumes = pictures[0].image.ndim == 4  # three slices wide
        self._columns = min(4 if volumes else 8, len(pictures))
        self._width = 4.2 if volumes else 1.62
        high, wide = as_picture(pictures[0].image).shape[:2]
        self._wide = self._width - 2 * self.gap
        self._high = self._wide * high / wide
        self._height = self.caption + self.name + parts * (self._high + self.gap)
        lines = -(-len(pictures) // self._columns)
        least = max(map(len, title.splitlines() or [""])) * size * 0.6 / 72 + 0.2  # for the heading of a few pictures
        breadth, depth = max(self._width * self._columns, least), self.heading + self._height * lines
        self.figure = Figure(figsize=(breadth, depth))
        self.axes = self.figure.add_axes((0, 0, 1, 1))
        self.axes.set_axis_off()
        self.axes.set(xlim=(0, breadth), ylim=(depth, 0))
        self.axes.text(breadth / 2, self.heading / 2, title, fontsize=size, ha="center", va="center")

    def image(self, place: int, picture: Picture, classes: Sequence[str]) -> None:
        """Draw an image with its frame, what is said of it above, and its name below."""
        x, y = self._corner(place)
        colour, pixels = "#15803D" if picture.right else "#B91C1C", as_picture(picture.image)
        self._show(pixels, x, y)
        width = 1.0 if picture.right else 2.6
        frame = Rectangle((x, y), self._wide, self._high, fill=False, edgecolor=colour, linewidth=width)
        self.axes.add_patch(frame)
        mark, name = "✓" if picture.right else "✗", label_names(picture.predicted, classes, 14)
        said = f"{mark} {name}  {picture.confidence:.0%}"
        text = said if picture.right else f"{said}\ntrue: {label_names(picture.truth, classes, 14)}"
        self.axes.text(x, y - 0.04, text, fontsize=7.5, color=colour, va="bottom")
        self.axes.text(x, y + self._high + 0.03, picture.short_name, fontsize=6, color=GREY, va="top")

    def overlay(self, place: int, pixels: Array) -> None:
        """Draw where the network looked, below an image."""
        x, y = self._corner(place)
        self._show(pixels, x, y + self._high + self.name)

    def _corner(self, place: int) -> tuple[float, float]:
        line, column = divmod(place, self._columns)
        return self._width * column + self.gap, self.heading + self._height * line + self.caption

    def _show(self, pixels: Array, x: float, y: float) -> None:
        WholePixels(self.axes, pixels, (x, x + self._wide, y + self._high, y))


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
