"""PNG copies of a study's main figures, drawn without a browser."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from optuna.distributions import CategoricalDistribution
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from visionforge.reporting.figures.static import BLUE, GREY, VERMILION, own_style, save_figure

MAX_LABEL = 12  # characters of a category on an axis


def write_pictures(study: Study, folder: Path, importances: Mapping[str, float], metric: str, minimise: bool) -> None:
    """Write what can be drawn already of importances, history and parallel coordinates.

    Args:
        study: The study; its parameters have short names.
        folder: Where the pictures go.
        importances: Share of every parameter, largest first.
        metric: Name of the first objective.
        minimise: Whether lower values of it are better.
    """
    with own_style():
        _write(study, folder, importances, metric, minimise)


def _write(study: Study, folder: Path, importances: Mapping[str, float], metric: str, minimise: bool) -> None:
    completed = [trial for trial in study.trials if trial.state == TrialState.COMPLETE]
    if importances:
        save_figure(importance_bars(importances), folder / "param_importances.png")
    if completed:
        save_figure(history(study.trials, metric, minimise), folder / "optimization_history.png")
        save_figure(parallel_coordinates(completed, metric, minimise), folder / "parallel_coordinates.png")


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


def history(trials: list[FrozenTrial], metric: str, minimise: bool) -> Figure:
    """Draw every trial's value, and the best so far."""
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    for state, colour, marker, label in (
        (TrialState.PRUNED, GREY, "x", "pruned, at its last epoch"),
        (TrialState.COMPLETE, BLUE, "o", "complete"),
    ):
        shown = [(t.number, _value(t)) for t in trials if t.state == state and _value(t) is not None]
        if shown:
            numbers, values = zip(*shown, strict=True)
            axes.scatter(numbers, values, color=colour, marker=marker, s=28, label=label, zorder=2)
    completed = [(trial.number, trial.values[0]) for trial in trials if trial.state == TrialState.COMPLETE]
    best = (np.minimum if minimise else np.maximum).accumulate([value for _, value in completed])
    axes.step([number for number, _ in completed], best, where="post", color=VERMILION, label="best so far")
    axes.set_xlabel("trial")
    axes.set_ylabel(metric)
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def _value(trial: FrozenTrial) -> float | None:
    if trial.state == TrialState.COMPLETE:
        return float(trial.values[0])
    return trial.intermediate_values[max(trial.intermediate_values)] if trial.intermediate_values else None


def parallel_coordinates(trials: list[FrozenTrial], metric: str, minimise: bool) -> Figure:
    """Draw every completed trial as a line over the parameters that all of them have; the best are the darkest."""
    names = [name for name in trials[0].params if all(name in trial.params for trial in trials)]
    figure = Figure(figsize=(max(8.0, 1.35 * (len(names) + 1)), 5), layout="constrained")
    axes = figure.subplots()
    values = np.array([trial.values[0] for trial in trials])
    columns = [_scaled(values, False)]
    ticks = [_ends(values, False)]
    for name in names:
        raw = [trial.params[name] for trial in trials]
        distribution = trials[0].distributions[name]
        if not isinstance(distribution, CategoricalDistribution):
            numbers, log = np.array(raw, dtype=float), bool(getattr(distribution, "log", False))
            columns.append(_scaled(numbers, log))
            ticks.append(_ends(numbers, log))
        else:
            kinds = [str(value) for value in distribution.choices]
            places = {kind: index / max(1, len(kinds) - 1) for index, kind in enumerate(kinds)}
            columns.append(np.array([places[str(value)] for value in raw]))
            ticks.append({place: kind[:MAX_LABEL] for kind, place in places.items()})
    order = np.argsort(-values if minimise else values)
    rank = np.empty(len(values))
    rank[order] = np.linspace(0.08, 1.0, len(values))
    lines = np.column_stack(columns)
    for index in order:  # the best on top
        colour = VERMILION if index == order[-1] else BLUE
        axes.plot(lines[index], color=colour, alpha=float(rank[index]), linewidth=2.2 if colour == VERMILION else 1.2)
    for place, labels in enumerate(ticks):
        axes.axvline(place, color=GREY, linewidth=0.8, zorder=0)
        for height, label in labels.items():
            axes.annotate(label, (place, height), xytext=(4, 2), textcoords="offset points", fontsize=8)
    axes.set_xticks(range(len(ticks)), [metric, *(name.replace("_", "\n") for name in names)], fontsize=9)
    axes.set_yticks([])
    axes.set_xlim(-0.1, len(ticks) - 0.5)
    axes.spines[:].set_visible(False)
    return figure


def _scaled(values: np.ndarray, log: bool) -> np.ndarray:
    """Return values moved into [0, 1]."""
    shown = np.log(values) if log else values
    span = shown.max() - shown.min()
    return (shown - shown.min()) / span if span else np.full(len(values), 0.5)


def _ends(values: np.ndarray, log: bool) -> dict[float, str]:
    """Return height and text of the smallest, middle and largest value."""
    low, high = float(values.min()), float(values.max())
    if low == high:
        return {0.5: f"{low:.3g}"}
    middle = float(np.sqrt(low * high)) if log else (low + high) / 2
    return {0.0: f"{low:.3g}", 0.5: f"{middle:.3g}", 1.0: f"{high:.3g}"}
