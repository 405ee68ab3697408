"""The pictures of a study: importances, history and parallel coordinates, drawn without a browser."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from visionforge.evaluation.curves import Floats
from visionforge.reporting.figures.static import BLUE, GREY, VERMILION

MAX_LABEL = 12  # characters of a category on an axis


@dataclass(frozen=True)
class Axis:
    """One of the axes that a line of parallel coordinates crosses.

    Attributes:
        name: What it shows.
        heights: (N,) where each trial crosses it, in [0, 1].
        ticks: Height → text.
    """

    name: str
    heights: Floats
    ticks: Mapping[float, str]


def number_axis(name: str, values: Sequence[float], log: bool = False) -> Axis:
    """Return an axis of numbers, from the smallest to the largest.

    Args:
        name: What it shows.
        values: The value of each trial; above zero if `log`.
        log: Whether equal ratios are equal distances.
    """
    numbers = np.array(values, dtype=float)
    return Axis(name, _scaled(numbers, log), _ends(numbers, log))


def category_axis(name: str, values: Sequence[Any], choices: Sequence[Any]) -> Axis:
    """Return an axis of categories, in the order of the choices.

    Args:
        name: What it shows.
        values: The choice of each trial.
        choices: All choices.
    """
    kinds = [str(choice) for choice in choices]
    places = {kind: index / max(1, len(kinds) - 1) for index, kind in enumerate(kinds)}
    heights = np.array([places[str(value)] for value in values])
    return Axis(name, heights, {place: kind[:MAX_LABEL] for kind, place in places.items()})


def importance_bars(importances: Mapping[str, float]) -> Figure:
    """Draw the importance of every parameter as a bar, the most important on top."""
    figure = Figure(figsize=(8, 0.45 * len(importances) + 1.3), layout="constrained")
    axes = figure.subplots()
    names, values = list(importances), list(importances.values())
    bars = axes.barh(names, values, color=BLUE)
    axes.bar_label(bars, fmt="%.2f", padding=3)
    axes.invert_yaxis()
    axes.set_xlim(0, max(values) * 1.12 or 1)
    axes.set_xlabel("share of the variation (PED-ANOVA)")
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def history(
    complete: Sequence[tuple[int, float]], pruned: Sequence[tuple[int, float]], metric: str, minimise: bool
) -> Figure:
    """Draw every trial's value, and the best so far.

    Args:
        complete: Number and value of every completed trial, at least one.
        pruned: Number of every pruned trial, and its value when it was stopped.
        metric: Name of the objective.
        minimise: Whether lower values of it are better.
    """
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    for shown, colour, marker, label in (
        (pruned, GREY, "x", "pruned, at its last epoch"),
        (complete, BLUE, "o", "complete"),
    ):
        if shown:
            numbers, values = zip(*shown, strict=True)
            axes.scatter(numbers, values, color=colour, marker=marker, s=28, label=label, zorder=2)
    best = (np.minimum if minimise else np.maximum).accumulate([value for _, value in complete])
    axes.step([number for number, _ in complete], best, where="post", color=VERMILION, label="best so far")
    axes.set_xlabel("trial")
    axes.set_ylabel(metric)
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def parallel_coordinates(values: Sequence[float], metric: str, minimise: bool, parameters: Sequence[Axis]) -> Figure:
    """Draw every completed trial as a line over its value and the parameters; the best are the darkest.

    Args:
        values: (N,) the value of each trial.
        metric: Name of the objective.
        minimise: Whether lower values of it are better.
        parameters: The axes of the parameters.
    """
    columns = [number_axis(metric, values), *parameters]
    figure = Figure(figsize=(max(8.0, 1.35 * len(columns)), 5), layout="constrained")
    axes = figure.subplots()
    order = np.argsort(-np.array(values) if minimise else np.array(values))
    rank = np.empty(len(values))
    rank[order] = np.linspace(0.08, 1.0, len(values))
    lines = np.column_stack([column.heights for column in columns])
    for index in order:  # the best on top
        colour = VERMILION if index == order[-1] else BLUE
        axes.plot(lines[index], color=colour, alpha=float(rank[index]), linewidth=2.2 if colour == VERMILION else 1.2)
    for place, column in enumerate(columns):
        axes.axvline(place, color=GREY, linewidth=0.8, zorder=0)
        for height, label in column.ticks.items():
            axes.annotate(label, (place, height), xytext=(4, 2), textcoords="offset points", fontsize=8)
    names = [metric, *(axis.name.replace("_", "\n") for axis in parameters)]
    axes.set_xticks(range(len(columns)), names, fontsize=9)
    axes.set_yticks([])
    axes.set_xlim(-0.1, len(columns) - 0.5)
    axes.spines[:].set_visible(False)
    return figure


def _scaled(values: np.ndarray, log: bool) -> np.ndarray:
    """Return values moved into [0, 1]; those that are not finite have no height, and do not squeeze the others."""
    shown = np.where(np.isfinite(values), np.log(values) if log else values, np.nan)
    finite = shown[np.isfinite(shown)]
    if not len(finite) or (span := np.ptp(finite)) == 0:
        return np.where(np.isnan(shown), np.nan, 0.5)
    scaled: np.ndarray = (shown - finite.min()) / span
    return scaled


def _ends(values: np.ndarray, log: bool) -> dict[float, str]:
    """Return height and text of the smallest, middle and largest finite value."""
    values = values[np.isfinite(values)]
    if not len(values):
        return {}
    low, high = float(values.min()), float(values.max())
    if low == high:
        return {0.5: f"{low:.3g}"}
    middle = float(np.sqrt(low * high)) if log else (low + high) / 2
    return {0.0: f"{low:.3g}", 0.5: f"{middle:.3g}", 1.0: f"{high:.3g}"}
