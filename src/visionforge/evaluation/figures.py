"""The pictures of a run: training curves, confusion matrix, and a grid of sample predictions."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from visionforge.runs.files import write_atomic

# Okabe and Ito (2008): distinguishable with every common form of colour blindness
BLUE, ORANGE, GREEN, VERMILION, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#6B7280"
LIGHT_BLUE = "#56B4E9"
DPI = 150
Array = npt.NDArray[Any]


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure as PNG, whole or not at all."""
    FigureCanvasAgg(figure)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI, facecolor="white")
    write_atomic(path, buffer.getvalue())


def _plain(axes: Any) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#E5E7EB", linewidth=0.8)
    axes.set_axisbelow(True)


def training_curves(rows: Sequence[Mapping[str, float]], title: str) -> Figure:
    """Draw loss, accuracy and AUC, and the learning rate over the epochs.

    Args:
        rows: One mapping per epoch with the columns of `metrics.csv`.
        title: Heading.

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
    best = max((row for row in rows if _is_number(row.get("val/auc"))), key=_rank, default=None)
    if best is not None:
        middle.axvline(best["epoch"] + 1, color=GREY, linewidth=1, linestyle=":")
        middle.plot(
            best["epoch"] + 1, best["val/auc"], marker="*", markersize=11, color=GREEN, linestyle="", label="best"
        )
    middle.set(title="Accuracy and AUC", xlabel="epoch")
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


def _rank(row: Mapping[str, float]) -> tuple[float, float]:
    """Order epochs as the choice of the best checkpoint does: by AUC, and of equal ones the later."""
    return row["val/auc"], row["epoch"]


def _is_number(value: object) -> bool:
    return isinstance(value, float) and not np.isnan(value)


def _curve(axes: Any, rows: Sequence[Mapping[str, float]], key: str, label: str, colour: str) -> None:
    points = [(row["epoch"] + 1, row[key]) for row in rows if _is_number(row.get(key))]
    if points:
        marker = "o" if len(points) <= 20 else None
        axes.plot(*zip(*points, strict=True), label=label, color=colour, marker=marker, markersize=3.5, linewidth=1.6)


def confusion_matrix(labels: Array, predicted: Array, classes: Sequence[str], title: str) -> Figure:
    """Draw counts per (truth, prediction), shaded by the share of the true class.

    Args:
        labels: (N,) true classes.
        predicted: (N,) predicted classes.
        classes: Class names in label order.
        title: Heading.
    """
    size = len(classes)
    counts = np.zeros((size, size), dtype=np.int64)
    np.add.at(counts, (labels, predicted), 1)
    rates = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = 2.6 + 0.52 * size + 0.06 * max(map(len, classes))
    figure = Figure(figsize=(max(side, 4.6), max(side - 0.4, 4.2)), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(rates, cmap="Blues", vmin=0, vmax=1)
    names = [_shorten(name, 24) for name in classes]
    turned = max(map(len, names)) > 3
    axes.set_xticks(range(size), names, rotation=45 if turned else 0, ha="right" if turned else "center")
    axes.set_yticks(range(size), names)
    axes.set(xlabel="predicted", ylabel="true", title=title)
    for row in range(size):
        for column in range(size):
            if counts[row, column]:
                colour = "white" if rates[row, column] > 0.55 else "black"
                axes.text(column, row, f"{counts[row, column]:,}", ha="center", va="center", color=colour, fontsize=9)
    figure.colorbar(image, ax=axes, shrink=0.75, label="share of the true class")
    return figure


def label_matrix(labels: Array, predicted: Array, classes: Sequence[str], title: str) -> Figure:
    """Draw hits, misses and false alarms per label of multi-label data.

    Args:
        labels: (N, K) 0/1.
        predicted: (N, K) 0/1.
        classes: Label names.
        title: Heading.
    """
    truth, said = labels.astype(bool), predicted.astype(bool)
    hit, missed, false = (truth & said).sum(0), (truth & ~said).sum(0), (~truth & said).sum(0)
    figure = Figure(figsize=(7, 1.4 + 0.36 * len(classes)), layout="constrained")
    axes = figure.subplots()
    rows = np.arange(len(classes))
    axes.barh(rows, hit, color=BLUE, label="present and found")
    axes.barh(rows, missed, left=hit, color="#BBD6EA", label="present, missed")
    axes.barh(rows, -false, color=VERMILION, label="absent, reported")
    axes.set_yticks(rows, [_shorten(name, 28) for name in classes])
    axes.invert_yaxis()
    axes.axvline(0, color="black", linewidth=0.8)
    axes.xaxis.set_major_formatter(lambda value, _: f"{abs(value):,.0f}")
    axes.set(xlabel="images", title=title)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8, loc="best")
    return figure


def sample_grid(
    images: Array, labels: Array, predicted: Array, confidence: Array, classes: Sequence[str], title: str
) -> Figure:
    """Draw up to 24 images with truth, prediction and probability; wrong ones are framed and marked.

    Args:
        images: (N, C, H, W) uint8.
        labels: (N,) true classes, or (N, K) labels.
        predicted: The same for the prediction.
        confidence: (N,) probability of the prediction.
        classes: Class names in label order.
        title: Heading.
    """
    count = min(len(images), 24)
    columns = min(8, count)
    lines = -(-count // columns)
    figure = Figure(figsize=(1.62 * columns + 0.2, 2.0 * lines + 0.5), layout="constrained")
    grid = np.atleast_1d(figure.subplots(lines, columns, squeeze=False)).ravel()
    for axes in grid[count:]:
        axes.axis("off")
    for axes, image, truth, guess, share in zip(grid, images, labels, predicted, confidence, strict=False):
        pixels = image.transpose(1, 2, 0)
        grey = pixels.shape[2] == 1 or (pixels == pixels[..., :1]).all()
        axes.imshow(pixels[..., 0] if grey else pixels, cmap="gray" if grey else None, vmin=0, vmax=255)
        right = bool(np.array_equal(truth, guess))
        colour = "#15803D" if right else "#B91C1C"
        axes.set_xticks([])
        axes.set_yticks([])
        for spine in axes.spines.values():
            spine.set(color=colour, linewidth=1.0 if right else 2.6)
        said = f"{'✓' if right else '✗'} {label_names(guess, classes, 14)}  {share:.0%}"
        text = said if right else f"{said}\ntrue: {label_names(truth, classes, 14)}"
        axes.set_title(text, fontsize=7.5, color=colour, loc="left", pad=3)
    figure.suptitle(title, fontsize=12)
    return figure


def label_names(value: Any, classes: Sequence[str], length: int) -> str:
    """Return a class name, or the names of all set labels."""
    if np.ndim(value):
        return _shorten(
            ", ".join(name for name, present in zip(classes, value, strict=True) if present) or "none", length
        )
    return _shorten(classes[int(value)], length)


def _shorten(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1].rstrip() + "…"
