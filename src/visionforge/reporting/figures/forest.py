"""Forest plots: the metrics of each subgroup with their intervals, beside those of the whole split."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from matplotlib.figure import Figure

from visionforge.config.schema.metrics import metrics
from visionforge.evaluation.evaluation import Evaluation
from visionforge.evaluation.intervals import Interval
from visionforge.evaluation.metric_names import metric_name
from visionforge.evaluation.subgroups import ByColumn
from visionforge.reporting.figures.curves import PALETTE
from visionforge.reporting.figures.static import BLUE, GREY, escaped, shorten

Spec = dict[str, Any]
_LONGEST = 22  # characters of a subgroup's name
_ROW, _BETWEEN, _FRAME = 17, 12, 100  # pixels of a point, between subgroups, and around them


@dataclass(frozen=True)
class Point:
    """A metric of one subgroup: its value and its interval, if there is one."""

    value: float
    ends: Interval | None


def drawn_metrics(evaluation: Evaluation) -> list[str]:
    """Return the metrics that fit one axis: headlines of which more is better, so that all reach up to 1."""
    if evaluation.subgroups is None:
        return []
    return [name for name in evaluation.subgroups.metrics if metrics()[name].higher_is_better]


def points_of(column: ByColumn, metric: str) -> list[Point | None]:
    """Return the metric of each subgroup; None where it is undefined."""
    found = []
    for each in column.subgroups:
        value = each.estimate.overall[metric]
        found.append(None if value is None else Point(value, each.estimate.intervals.get(metric)))
    return found


def forest_plot(column: ByColumn, evaluation: Evaluation) -> Spec | None:
    """Return the interactive figure of a column; None if nothing can be drawn.

    Each subgroup has a line for each metric, so that it can be read on a narrow screen; dotted is the whole split.
    """
    names = drawn_metrics(evaluation)
    block = len(names) * _ROW + _BETWEEN
    overall = evaluation.best.estimate.overall
    data, shapes = [], []
    for place, (name, colour) in enumerate(zip(names, PALETTE, strict=False)):
        rows = [(row * block + place * _ROW, p) for row, p in enumerate(points_of(column, name)) if p is not None]
        if not rows:
            continue
        ends = [p.ends or (p.value, p.value) for _, p in rows]
        data.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": escaped(shorten(metric_name(name, evaluation.positive), 32)),
                "x": [round(p.value, 5) for _, p in rows],
                "y": [y for y, _ in rows],
                "marker": {
                    "color": colour,
                    "size": 9,
                    "symbol": ["circle" if p.ends else "circle-open" for _, p in rows],
                },
                "error_x": {
                    "type": "data",
                    "symmetric": False,
                    "array": [round(high - p.value, 5) for (_, p), (_, high) in zip(rows, ends, strict=True)],
                    "arrayminus": [round(p.value - low, 5) for (_, p), (low, _) in zip(rows, ends, strict=True)],
                    "color": colour,
                    "thickness": 1.5,
                    "width": 4,
                },
                "hovertemplate": "%{x:.3f}<extra>%{fullData.name}</extra>",
            }
        )
        value = overall.get(name)
        if value is not None:
            line = {"color": colour, "width": 1, "dash": "dot"}
            shapes.append({"type": "line", "x0": value, "x1": value, "y0": 0, "y1": 1, "yref": "paper", "line": line})
    if not data:
        return None
    middle = (len(names) - 1) * _ROW / 2
    labels = [f"{escaped(shorten(each.name, _LONGEST))}<br>{each.images:,} images" for each in column.subgroups]
    height = len(labels) * block
    return {
        "data": data,
        "layout": {
            "margin": {"l": 60, "r": 16, "t": 8, "b": 52},
            "height": height + _FRAME,
            "shapes": shapes,
            "xaxis": {"title": {"text": "value; dotted: all images"}},
            "yaxis": {
                "tickvals": [row * block + middle for row in range(len(labels))],
                "ticktext": labels,
                "range": [height - _BETWEEN / 2, -_BETWEEN],
                "showgrid": False,
                "zeroline": False,
            },
        },
    }


def forest_figures(evaluation: Evaluation, title: str) -> Mapping[str, Figure]:
    """Return a picture for each column, by file name without ``.png``: ``subgroups_COLUMN``.

    Args:
        evaluation: The numbers.
        title: What the split is, for the headings.
    """
    found: dict[str, Figure] = {}
    for place, column in enumerate(evaluation.subgroups.columns if evaluation.subgroups else (), start=1):
        if not drawn_metrics(evaluation):
            continue
        name = f"subgroups_{re.sub('[^A-Za-z0-9]+', '_', column.column).strip('_')[:40].lower()}"
        found[f"{name}_{place}" if name in found or name == "subgroups_" else name] = forest_figure(
            column, evaluation, title
        )
    return found


def forest_figure(column: ByColumn, evaluation: Evaluation, title: str) -> Figure:
    """Draw the metrics of each subgroup beside each other; dotted is the value of all images.

    Args:
        column: The subgroups.
        evaluation: The numbers of all images.
        title: What the split is.
    """
    names, count = drawn_metrics(evaluation), len(column.subgroups)
    figure = Figure(figsize=(1.8 + 2.3 * len(names), 1.5 + 0.34 * count), layout="constrained")
    grid = figure.subplots(1, len(names), sharey=True, squeeze=False)[0]
    for axes, name in zip(grid, names, strict=True):
        for row, point in enumerate(points_of(column, name)):
            if point is None:
                axes.annotate("–", (0.5, row), xycoords=("axes fraction", "data"), ha="center", va="center", color=GREY)
                continue
            if point.ends is not None:
                axes.plot(point.ends, (row, row), color=BLUE, linewidth=1.6)
            axes.plot(point.value, row, "o", color=BLUE, markersize=5.5, fillstyle="full" if point.ends else "none")
        value = evaluation.best.estimate.overall.get(name)
        if value is not None:
            axes.axvline(value, color=GREY, linewidth=1, linestyle=":")
        axes.set_title(shorten(metric_name(name, evaluation.positive), 30), fontsize=9)
        axes.tick_params(labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="x", color="#E5E7EB", linewidth=0.8)
        axes.set_axisbelow(True)
    labels = [f"{shorten(each.name, _LONGEST)} ({each.images:,})" for each in column.subgroups]
    grid[0].set_yticks(range(count), labels)
    grid[0].set_ylim(count - 0.4, -0.6)
    figure.suptitle(f"{title}: by {shorten(column.column, 40)}", fontsize=10)
    return figure
