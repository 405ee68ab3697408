"""The map of features, as a picture and as an interactive figure: colours and markers are labels, rings mistakes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from visionforge.evaluation.embedding_map import Projection
from visionforge.reporting.figures.curves import PALETTE
from visionforge.reporting.figures.interactive import Spec
from visionforge.reporting.figures.static import GREY, escaped, shorten

MARKERS = (
    ("o", "circle"),
    ("s", "square"),
    ("^", "triangle-up"),
    ("D", "diamond"),
    ("X", "x"),
)  # matplotlib's, Plotly's
RING = "#1C2430"
_LEGEND_ROWS = 24
_NAME = 32  # characters of a class in a legend
_DIGITS = 4
Integers = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class MapPoints:
    """What is drawn of each image.

    Attributes:
        projection: Where it is.
        groups: (M,) which group it is of, by its true label.
        names: Of the groups.
        wrong: (M,) whether its prediction is.
        texts: What is said of it.
    """

    projection: Projection
    groups: Integers
    names: Sequence[str]
    wrong: npt.NDArray[np.bool_]
    texts: Sequence[str]

    def of_group(self) -> list[tuple[str, str, tuple[str, str], npt.NDArray[np.int64]]]:
        """Return (name, colour, markers, places) of every group that has images."""
        found = []
        for group, name in enumerate(self.names):
            places = np.flatnonzero(self.groups == group)
            if len(places):
                found.append((name, PALETTE[group % len(PALETTE)], MARKERS[group % len(MARKERS)], places))
        return found


def map_figure(points: MapPoints, title: str) -> Figure:
    """Draw the map with a legend beside it."""
    groups = points.of_group()
    entries = len(groups) + bool(points.wrong.any())
    columns = -(-entries // _LEGEND_ROWS)
    figure = Figure(figsize=(7.4 + 1.9 * columns, 6.0), layout="constrained")
    axes = figure.subplots()
    size = float(np.clip(6000 / max(1, len(points.groups)), 8, 30))
    for name, colour, (marker, _), places in groups:
        x, y = points.projection.points[places].T
        label = shorten(name, _NAME)
        axes.scatter(x, y, s=size, c=colour, marker=marker, alpha=0.75, linewidths=0, label=label)
    if points.wrong.any():
        x, y = points.projection.points[points.wrong].T
        wide = size * 3 + 12
        axes.scatter(x, y, s=wide, label="mistake", facecolors="none", edgecolors=RING, linewidths=0.8)
    axes.set(xlabel=points.projection.axes[0], ylabel=points.projection.axes[1], xticks=[], yticks=[])
    axes.margins(0.04)
    axes.spines[:].set_color(GREY)
    legend = figure.legend(loc="outside right upper", fontsize=8, frameon=False, ncols=columns, title="true label")
    for handle in legend.legend_handles:
        handle.set_sizes([36])  # type: ignore[union-attr]
        handle.set_alpha(1)  # type: ignore[union-attr]
    figure.suptitle(title, fontsize=12)
    return figure


def map_plot(points: MapPoints) -> Spec:
    """Return the map with what is said of an image where the reader points at it."""
    data: list[Spec] = [
        _trace(points, places, escaped(shorten(name, _NAME)), {"color": colour, "symbol": symbol, "size": 6})
        for name, colour, (_, symbol), places in points.of_group()
    ]
    wrong = np.flatnonzero(points.wrong)
    if len(wrong):
        ring = {"color": "#4D4D4D", "symbol": "circle-open", "size": 12, "line": {"width": 1.2}}
        data.append(_trace(points, wrong, "mistake", ring) | {"hoverinfo": "skip", "hovertemplate": None, "text": None})
    plain = {"showticklabels": False, "showgrid": False, "zeroline": False}
    x, y = points.projection.axes
    layout: Spec = {
        "title": {"text": "Map of the features"},
        "height": 560 + 10 * len(data),
        "xaxis": {**plain, "title": {"text": x}},
        "yaxis": {**plain, "title": {"text": y}},
    }
    return {"data": data, "layout": layout}


def _trace(points: MapPoints, places: Integers, name: str, marker: dict[str, Any]) -> Spec:
    x, y = points.projection.points[places].T
    return {
        "type": "scatter",
        "mode": "markers",
        "x": [round(float(value), _DIGITS) for value in x],
        "y": [round(float(value), _DIGITS) for value in y],
        "text": [escaped(points.texts[place]) for place in places],
        "hovertemplate": "%{text}<extra></extra>",
        "name": name,
        "marker": {"opacity": 0.8, **marker},
    }
