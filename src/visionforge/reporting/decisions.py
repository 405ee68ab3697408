"""What was decided, drawn and told: the confusion matrix of classes, and the bars of labels; tasks choose theirs."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from visionforge.config.schema.task import DecisionView, Matrix
from visionforge.reporting.figures.static import BLUE, LIGHT_BLUE, VERMILION, escaped, shorten

Array = npt.NDArray[Any]
MATRIX_CLASSES = 30  # a larger confusion matrix is left to its picture


def _counts(labels: Array, predicted: Array, classes: int) -> npt.NDArray[np.int64]:
    """Return (K, K) cases by truth and prediction."""
    counts = np.zeros((classes, classes), dtype=np.int64)
    np.add.at(counts, (labels, predicted), 1)
    return counts


def confusion_view(labels: Array, predicted: Array, classes: Sequence[str]) -> DecisionView:
    """Return the confusion matrix as a table, unless there are more than 30 classes.

    Args:
        labels: (N,) true classes.
        predicted: (N,) predicted classes.
        classes: Class names in label order.
    """
    heading = "Confusion matrix"
    if len(classes) > MATRIX_CLASSES:
        return DecisionView(heading, [f"{len(classes)} classes: see figures/confusion_matrix.png."])
    counts = _counts(labels, predicted, len(classes))
    rows = [[(int(count), count / row.sum() if row.sum() else 0.0) for count in row] for row in counts]
    note = "Rows are what is true, columns what was predicted; below each number its share of the row."
    return DecisionView(heading, [note], matrix=Matrix(classes, rows))


def label_view(labels: Array, predicted: Array, classes: Sequence[str]) -> DecisionView:
    """Return bars of hits, misses and false alarms per label.

    Args:
        labels: (N, K) 0/1.
        predicted: (N, K) 0/1.
        classes: Label names.
    """
    truth, said = labels.astype(bool), predicted.astype(bool)
    names = [escaped(shorten(name, 32)) for name in classes]
    parts = (
        ("present and found", (truth & said).sum(0), BLUE),
        ("present, missed", (truth & ~said).sum(0), LIGHT_BLUE),
        ("absent, reported", (~truth & said).sum(0), VERMILION),
    )
    data = [
        {
            "type": "bar",
            "orientation": "h",
            "y": names,
            "x": [int(n) for n in counts],
            "name": name,
            "marker": {"color": colour},
        }
        for name, counts, colour in parts
    ]
    layout = {
        "barmode": "stack",
        "height": 200 + 30 * len(names),
        "yaxis": {"autorange": "reversed", "automargin": True},
        "xaxis": {"title": {"text": "images"}},
    }
    return DecisionView("Hits, misses and false alarms", plots=[{"data": data, "layout": layout}])


def confusion_matrix(labels: Array, predicted: Array, classes: Sequence[str], title: str) -> Figure:
    """Draw counts per (truth, prediction), and below each its share of the true class, which shades it, too.

    Args:
        labels: (N,) true classes.
        predicted: (N,) predicted classes.
        classes: Class names in label order.
        title: Heading.
    """
    size = len(classes)
    counts = _counts(labels, predicted, size)
    rates = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = 2.6 + 0.62 * size + 0.06 * max(map(len, classes))
    figure = Figure(figsize=(max(side, 4.6), max(side - 0.4, 4.2)), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(rates, cmap="Blues", vmin=0, vmax=1)
    names = [shorten(name, 24) for name in classes]
    turned = max(map(len, names)) > 3
    axes.set_xticks(range(size), names, rotation=45 if turned else 0, ha="right" if turned else "center")
    axes.set_yticks(range(size), names)
    axes.set(xlabel="predicted", ylabel="true", title=title)
    for row in range(size):
        for column in range(size):
            if counts[row, column]:
                colour = "white" if rates[row, column] > 0.55 else "black"
                text = f"{counts[row, column]:,}\n{rates[row, column]:.0%}"
                axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=8, linespacing=1.25)
    figure.colorbar(image, ax=axes, shrink=0.75, label="share of the true class")
    return figure


def label_matrix(labels: Array, predicted: Array, classes: Sequence[str], title: str) -> Figure:
    """Draw hits, misses and false alarms per label.

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
    axes.set_yticks(rows, [shorten(name, 28) for name in classes])
    axes.invert_yaxis()
    axes.axvline(0, color="black", linewidth=0.8)
    axes.xaxis.set_major_formatter(lambda value, _: f"{abs(value):,.0f}")
    axes.set(xlabel="images", title=title)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8, loc="best")
    return figure
