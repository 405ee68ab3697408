"""The pictures of curves: ROC, precision over recall, and how far probabilities can be believed."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from visionforge.evaluation.abstention import RiskCoverage
from visionforge.evaluation.curves import (
    Array,
    Floats,
    Reliability,
    class_columns,
    precision_recall_points,
    reliability,
    roc_points,
)
from visionforge.evaluation.evaluation import Evaluation
from visionforge.reporting.figures.static import BLUE, GREY, ORANGE, shorten
from visionforge.scoring.builtin.probabilities import ECE_BINS, bin_of

# Okabe and Ito (2008), darkest first; dashes tell the next seven apart
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#4D4D4D")
DASHES = ("-", "--", ":", "-.")
_LEGEND_ROWS = 18


def roc_figure(evaluation: Evaluation, title: str) -> Figure:
    """Draw the ROC curve of every class against the rest, with its AUC."""
    figure, axes = _curves(evaluation, title, roc_points, "auc", "AUC")
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle=":")
    axes.set(
        xlabel=axis_name("false-positive rate (1 − specificity{})", evaluation),
        ylabel=axis_name("true-positive rate (sensitivity{})", evaluation),
    )
    return figure


def precision_recall_figure(evaluation: Evaluation, title: str) -> Figure:
    """Draw precision over recall of every class against the rest, with its average precision."""
    figure, axes = _curves(evaluation, title, precision_recall_points, "average_precision", "AP")
    axes.set(xlabel=axis_name("recall (sensitivity{})", evaluation), ylabel=axis_name("precision{}", evaluation))
    return figure


def axis_name(text: str, evaluation: Evaluation) -> str:
    """Return what an axis shows, with the class that is to be found of two in the place of ``{}``."""
    return text.format("" if evaluation.positive is None else f" of {shorten(evaluation.positive, 26)}")


def _curves(
    evaluation: Evaluation,
    title: str,
    points: Callable[[Array, Array], tuple[Floats, Floats]],
    metric: str,
    short: str,
) -> tuple[Figure, Any]:
    classes, reading = evaluation.spec.classes, evaluation.best
    columns = class_columns(evaluation.labels, evaluation.spec)
    wide = len(columns) > 1
    figure = Figure(figsize=(7.6 if wide else 5.2, 4.8), layout="constrained")
    axes = figure.subplots()
    for place, (k, truth) in enumerate(columns):
        x, y = points(truth, reading.probabilities[:, k])
        value = reading.estimate.per_class[metric][k]
        label = f"{shorten(classes[k], 26)} ({short} {value:.3f})"
        colour, dashes = PALETTE[place % len(PALETTE)], DASHES[place // len(PALETTE) % len(DASHES)]
        axes.plot(x, y, color=colour, linestyle=dashes, linewidth=1.6, label=label)
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.02), title=title)
    axes.set_aspect("equal")
    axes.grid(color="#E5E7EB", linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)
    if columns:
        where: dict[str, Any] = {"loc": "center left", "bbox_to_anchor": (1.02, 0.5)} if wide else {"loc": "best"}
        axes.legend(frameon=False, fontsize=8, ncols=1 + (len(columns) - 1) // _LEGEND_ROWS, **where)
    else:
        axes.text(0.5, 0.5, "no class has cases of both kinds", ha="center", color=GREY)
    return figure, axes


def reliability_figure(evaluation: Evaluation, title: str) -> Figure:
    """Draw how often statements of a given sureness are right, before and after temperature scaling."""
    figure = Figure(figsize=(5.4, 5.6), layout="constrained")
    upper, lower = figure.subplots(2, 1, height_ratios=[3, 1], sharex=True)
    upper.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle=":", label="as sure as right")
    series = reliability_series(evaluation)
    for (name, curve), colour, marker in zip(series, (ORANGE, BLUE), "so", strict=False):
        upper.plot(curve.confidence, curve.frequency, color=colour, marker=marker, markersize=5, label=name)
        lower.stairs(shares_by_bin(curve), np.linspace(0, 1, ECE_BINS + 1), color=colour, linewidth=1.6)
    several = evaluation.task.several
    says = "share of the labels that are present" if several else "share of the predictions that are right"
    upper.set(ylabel=says, title=title, xlim=(0, 1), ylim=(0, 1.02))
    lower.set(xlabel="probability that was given", ylabel="share of all")
    for axes in (upper, lower):
        axes.grid(color="#E5E7EB", linewidth=0.8)
        axes.spines[["top", "right"]].set_visible(False)
    upper.legend(frameon=False, fontsize=8, loc="best")
    return figure


def risk_figure(curve: RiskCoverage, title: str) -> Figure:
    """Draw the share of mistakes among the surest images, over their share of all."""
    figure = Figure(figsize=(5.4, 4.2), layout="constrained")
    axes = figure.subplots()
    axes.plot(curve.coverage, curve.risk, color=BLUE, linewidth=1.6, label=f"this network (AURC {curve.aurc:.4f})")
    axes.plot(curve.coverage, curve.best, color=GREY, linestyle=":", label="the best order")
    axes.set(xlabel="share of the images, the surest first", ylabel="share of mistakes", title=title, xlim=(0, 1.01))
    axes.set_ylim(bottom=0)
    axes.grid(color="#E5E7EB", linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8, loc="best")
    return figure


def reliability_series(evaluation: Evaluation) -> Sequence[tuple[str, Reliability]]:
    """Return (name, curve) of the probabilities as they are, and with the temperature if there is one."""
    reading, task = evaluation.best, evaluation.spec.task
    before = reading.estimate.overall["ece"]
    series = [(f"as given (ECE {before:.3f})", reliability(reading.probabilities, evaluation.labels, task))]
    if reading.calibrated is not None and reading.after is not None:
        calibration = evaluation.calibration
        assert calibration is not None
        with_views = reading is evaluation.readings.get("with_tta")
        temperature = calibration.temperature_tta if with_views else calibration.temperature
        name = f"temperature {temperature:.3g} (ECE {reading.after['ece']:.3f})"
        series.append((name, reliability(reading.calibrated, evaluation.labels, task, reading.probabilities)))
    return series


def shares_by_bin(curve: Reliability) -> Floats:
    """Return (15,) the share of all statements in each bin."""
    shares = np.zeros(ECE_BINS)
    shares[bin_of(curve.confidence)] = curve.count / curve.count.sum()
    return shares
