"""The interactive figures of a study, as plain Plotly specifications: `data` and `layout`."""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from visionforge.reporting.figures.interactive import BLUE, GREY, VERMILION, Spec
from visionforge.reporting.figures.study import Axis, number_axis

COLUMNS = 4  # of small figures beside each other
PANEL = 210  # pixels of a small figure's height, with what stands below it
ROW = 26  # pixels of a bar's height
STATES = {"complete": BLUE, "pruned": GREY, "failed": VERMILION}
SHADES = 6  # of the lines of worse and better trials


@dataclass(frozen=True)
class DrawnTrial:
    """What figures show of a trial.

    Attributes:
        number: Its number.
        state: complete, pruned or failed.
        value: Its value; None unless it is complete.
        second: Its value by the second objective; None if there is none.
        params: Short name → value.
        epochs: Epoch from 0 → value.
        started: When it began, ISO 8601; None if that is not known.
        ended: When it ended.
    """

    number: int
    state: str
    value: float | None
    second: float | None
    params: Mapping[str, Any]
    epochs: Mapping[int, float]
    started: str | None = None
    ended: str | None = None


def importance_plot(importances: Mapping[str, float]) -> Spec:
    """Return the importance of every parameter as a bar, the most important on top."""
    names, shares = list(importances)[::-1], list(importances.values())[::-1]
    bars = {
        **{"type": "bar", "orientation": "h", "x": shares, "y": names, "marker": {"color": BLUE}},
        **{"text": [f"{share:.2f}" for share in shares], "textposition": "outside", "cliponaxis": False},
        "hoverinfo": "skip",
    }
    return _figure(
        [bars], ROW * len(names) + 80, xaxis=_axis("share of the variation (PED-ANOVA)"), yaxis={}, showlegend=False
    )


def history_plot(trials: Sequence[DrawnTrial], metric: str, minimise: bool) -> Spec:
    """Return the value of each trial, and the best so far.

    Raises:
        ValueError: If no trial is complete.
    """
    complete, values = _complete(trials)
    best = list(itertools.accumulate(values, min if minimise else max))
    numbers = [trial.number for trial in complete]
    pruned = [trial for trial in trials if trial.state == "pruned" and trial.epochs]
    last = [trial.epochs[max(trial.epochs)] for trial in pruned]
    data = [
        _points([trial.number for trial in pruned], last, "pruned, at its last epoch", GREY, "x"),
        _points(numbers, values, "complete", BLUE),
        _line(numbers, best, "best so far", VERMILION, shape="hv"),
    ]
    return _figure(data if pruned else data[1:], 380, xaxis=_whole("trial", numbers[-1]), yaxis=_axis(metric))


def parallel_plot(trials: Sequence[DrawnTrial], axes: Sequence[Axis], metric: str, minimise: bool) -> Spec:
    """Return every complete trial as a line over its value and its parameters; the better, the darker.

    Lines of their own, as Plotly's parallel coordinates need WebGL, which not every machine has.

    Args:
        trials: The trials.
        axes: The axes of the parameters, of the complete trials in their order.
        metric: Name of the objective.
        minimise: Whether lower values are better.

    Raises:
        ValueError: If no trial is complete.
    """
    complete, values = _complete(trials)
    columns = [number_axis(metric, values), *axes]
    order = sorted(range(len(values)), key=lambda place: values[place], reverse=minimise)  # the best on top
    data, size = [], math.ceil(len(order) / SHADES)
    for start in range(0, len(order), size):
        x: list[Any] = []
        y: list[Any] = []
        told: list[str] = []
        for place in order[start : start + size]:
            x += [*range(len(columns)), None]
            y += [*(round(float(column.heights[place]), 4) for column in columns), None]
            text = f"trial {complete[place].number}: {values[place]:.4g}"
            told += [text] * len(columns) + [""]
        line = _line(x, y, "complete", BLUE) | {"text": told, "hoverinfo": "text"}
        data.append(line | {"opacity": round(0.15 + 0.6 * start / len(order), 2)})
    best = order[-1]
    heights = [round(float(column.heights[best]), 4) for column in columns]
    name = f"trial {complete[best].number}, the best: {values[best]:.4g}"
    data.append(_line(range(len(columns)), heights, "best", VERMILION) | {"text": name, "hoverinfo": "text"})
    marks = [
        {
            **{"x": place, "y": height, "text": text, "showarrow": False, "xanchor": "left", "xshift": 4, "yshift": 7},
            "font": {"size": 10},
        }
        for place, column in enumerate(columns)
        for height, text in column.ticks.items()
    ]
    xaxis = {"tickvals": list(range(len(columns))), "ticktext": [column.name for column in columns]}
    xaxis |= {"range": [-0.1, len(columns) - 0.4], "zeroline": False}
    yaxis = {"visible": False, "range": [-0.04, 1.08]}
    return _figure(data, 440, xaxis=xaxis, yaxis=yaxis, annotations=marks, showlegend=False)


def slices_plot(trials: Sequence[DrawnTrial], axes: Mapping[str, Axis], metric: str) -> Spec:
    """Return the value over each parameter, a small figure for each.

    Args:
        trials: The trials.
        axes: Parameter → its axis, of the complete trials that have it in their order.
        metric: Name of the objective.

    Raises:
        ValueError: If no trial is complete.
    """
    complete, _ = _complete(trials)
    data: list[Spec] = []
    layout: Spec = {"showlegend": False}
    rows = math.ceil(len(axes) / COLUMNS)
    for place, (name, axis) in enumerate(axes.items()):
        row, column = divmod(place, COLUMNS)
        suffix = "" if place == 0 else str(place + 1)
        with_it = [trial for trial in complete if name in trial.params]
        points = _points(axis.heights.tolist(), [trial.value for trial in with_it], name, BLUE)
        told = [f"trial {trial.number}: {name} {trial.params[name]}, {trial.value:.4g}" for trial in with_it]
        data.append({**points, "xaxis": f"x{suffix}", "yaxis": f"y{suffix}", "text": told, "hoverinfo": "text"})
        top = 1 - row / rows
        layout[f"xaxis{suffix}"] = {
            **{"anchor": f"y{suffix}", "domain": [(column + 0.14) / COLUMNS, (column + 0.96) / COLUMNS]},
            **{"tickvals": list(axis.ticks), "ticktext": list(axis.ticks.values()), "range": [-0.08, 1.08]},
            **{"title": {"text": name, "standoff": 4}, "automargin": False, "tickangle": 0},
        }
        layout[f"yaxis{suffix}"] = {
            **{"anchor": f"x{suffix}", "domain": [top - 0.66 / rows, top], "nticks": 4, "automargin": False},
            **({"title": {"text": metric}} if column == 0 else {"showticklabels": False}),
        }
    return _figure(data, PANEL * rows + 30, margin={"l": 20, "r": 10, "t": 10, "b": 20}, **layout)


def epochs_plot(trials: Sequence[DrawnTrial], metric: str, minimise: bool) -> Spec:
    """Return every trial over its epochs: the best one, the complete ones, and those that were pruned.

    Raises:
        ValueError: If no trial has told of an epoch.
    """
    told = [trial for trial in trials if trial.epochs]
    if not told:
        raise ValueError("no trial has told of an epoch")
    complete = [trial for trial in told if trial.value is not None]
    best = min(complete, key=lambda t: (t.value or 0.0) if minimise else -(t.value or 0.0), default=None)
    data, seen = [], set()
    for trial in sorted(told, key=lambda trial: (trial is best, trial.state == "complete")):
        name = "best" if trial is best else trial.state
        steps = sorted(trial.epochs)
        colour = VERMILION if trial is best else STATES[trial.state]
        line = _line([step + 1 for step in steps], [trial.epochs[step] for step in steps], name, colour)
        line |= {"legendgroup": name, "showlegend": name not in seen, "opacity": 1.0 if trial is best else 0.55}
        line |= {"mode": "lines+markers", "marker": {"size": 5}, "text": f"trial {trial.number}", "hoverinfo": "text+y"}
        data.append(line)
        seen.add(name)
    most = max(max(trial.epochs) for trial in told) + 1
    return _figure(data, 400, xaxis=_whole("epoch", most), yaxis=_axis(metric))


def timeline_plot(trials: Sequence[DrawnTrial]) -> Spec:
    """Return when each trial ran, and how it ended.

    Raises:
        ValueError: If that is known of none.
    """
    known = [trial for trial in trials if trial.started is not None and trial.ended is not None]
    if not known:
        raise ValueError("of no trial it is known when it ran")
    data = []
    for state, colour in STATES.items():
        of_it = [trial for trial in known if trial.state == state]
        x = list(itertools.chain.from_iterable((trial.started, trial.ended, None) for trial in of_it))
        y = list(itertools.chain.from_iterable((trial.number, trial.number, None) for trial in of_it))
        if of_it:
            width = max(2, min(10, 240 // len(known)))
            data.append({**_line(x, y, state, colour), "line": {"color": colour, "width": width}})
    return _figure(data, 360, xaxis=_axis("time"), yaxis=_whole("trial", max(trial.number for trial in known)))


def pareto_plot(trials: Sequence[DrawnTrial], front: Sequence[int], names: Sequence[str]) -> Spec:
    """Return the complete trials by both objectives, and those that no other one beats.

    Args:
        trials: The trials.
        front: Numbers of those that no other one beats.
        names: Names of the objectives.

    Raises:
        ValueError: If no trial is complete.
    """
    complete, _ = _complete(trials)
    data = []
    for name, colour, chosen in (
        ("beaten by another", GREY, [trial for trial in complete if trial.number not in front]),
        ("beaten by none", VERMILION, [trial for trial in complete if trial.number in front]),
    ):
        told = [f"trial {trial.number}" for trial in chosen]
        points = _points([trial.second for trial in chosen], [trial.value for trial in chosen], name, colour)
        data.append({**points, "text": told, "hoverinfo": "text+x+y"})
    return _figure(data, 400, xaxis=_axis(names[1]), yaxis=_axis(names[0]))


def _complete(trials: Sequence[DrawnTrial]) -> tuple[list[DrawnTrial], list[float]]:
    complete = [trial for trial in trials if trial.value is not None]
    if not complete:
        raise ValueError("no trial is complete")
    return complete, [trial.value for trial in complete if trial.value is not None]


def _points(x: Sequence[Any], y: Sequence[Any], name: str, colour: str, symbol: str = "circle") -> Spec:
    marker = {"color": colour, "size": 7, "symbol": symbol}
    return {"type": "scatter", "mode": "markers", "x": list(x), "y": list(y), "name": name, "marker": marker}


def _line(x: Sequence[Any], y: Sequence[Any], name: str, colour: str, **shape: Any) -> Spec:
    line = {"color": colour, "width": 2, **shape}
    return {"type": "scatter", "mode": "lines", "x": list(x), "y": list(y), "name": name, "line": line}


def _axis(title: str, **more: Any) -> Spec:
    return {"title": {"text": title}, **more}


def _whole(title: str, most: int) -> Spec:
    """Return an axis of whole numbers up to one."""
    return _axis(title, tickformat="d", **({"dtick": 1} if most <= 12 else {}))


def _figure(data: list[Spec], height: int, **layout: Any) -> Spec:
    return {"data": data, "layout": {"height": height, **layout}}
