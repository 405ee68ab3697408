"""The interactive figures of a report, as plain Plotly specifications: `data` and `layout`."""

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import Any

import numpy as np

from visionforge.evaluation.abstention import RiskCoverage
from visionforge.evaluation.curves import class_columns, precision_recall_points, roc_points
from visionforge.evaluation.evaluation import Evaluation
from visionforge.reporting.figures.curves import PALETTE, axis_name, reliability_series, shares_by_bin
from visionforge.reporting.figures.static import escaped, own_curves, shorten
from visionforge.scoring.builtin.probabilities import ECE_BINS

Spec = dict[str, Any]
BLUE, VERMILION, GREEN, ORANGE, GREY = "#0072B2", "#D55E00", "#009E73", "#E69F00", "#8A93A0"
_DASHES = ("solid", "dash", "dot", "dashdot")
_DIGITS = 5
_POINTS = 500  # of a curve over the images


def _numbers(values: Any) -> list[float]:
    return [round(float(value), _DIGITS) for value in values]


def _line(x: Any, y: Any, name: str, colour: str, dash: str = "solid", **more: Any) -> Spec:
    line = {"color": colour, "width": 2, "dash": dash}
    return {"type": "scatter", "mode": "lines", "x": x, "y": y, "name": name, "line": line, **more}


def training_plots(rows: Sequence[Mapping[str, float]]) -> list[Spec]:
    """Return loss, and accuracy with AUC and what else was validated, over the epochs.

    Args:
        rows: One mapping per epoch with the columns of `metrics.csv`.
    """

    def curve(key: str, name: str, colour: str, dash: str = "solid") -> list[Spec]:
        points = [(int(row["epoch"]) + 1, row[key]) for row in rows if key in row and np.isfinite(row[key])]
        if not points:
            return []
        x, y = zip(*points, strict=True)
        spec = _line(list(x), _numbers(y), name, colour, dash=dash)
        return [spec | ({"mode": "lines+markers", "marker": {"size": 5}} if len(points) <= 20 else {})]

    mixed = any("train/accuracy_mixed" in row for row in rows)
    name = "training (mixed)" if mixed else "training"
    losses = curve("train/loss", name, BLUE) + curve("val/loss", "validation", VERMILION)
    shares = [
        *curve("train/accuracy", "accuracy, training", BLUE),
        *curve("train/accuracy_mixed", "accuracy, training (mixed)", BLUE, "dot"),
        *curve("val/accuracy", "accuracy, validation", VERMILION),
        *curve("val/auc", "AUC, validation", GREEN),
    ]
    own = own_curves(rows)
    for (key, label), colour in zip(own, cycle(PALETTE[3:]), strict=False):
        shares += curve(key, f"{label}, validation", colour)
    epochs: Spec = {"title": {"text": "epoch"}, "rangemode": "normal", "tickformat": "d"}
    if len(rows) <= 10:
        epochs["dtick"] = 1
    title = "Metrics" if own else "Accuracy and AUC"
    return [
        {"data": losses, "layout": {"title": {"text": "Loss"}, "height": 360, "xaxis": epochs, "yaxis": {}}},
        {
            "data": shares,
            "layout": {
                "title": {"text": title},
                "height": 360,
                "xaxis": epochs,
                "yaxis": {},
            },
        },
    ]


def curve_plots(evaluation: Evaluation) -> list[Spec]:
    """Return ROC and precision-recall curves of every class against the rest."""
    classes, reading = evaluation.spec.classes, evaluation.best
    columns = class_columns(evaluation.labels, evaluation.spec)
    roc: list[Spec] = [_line([0, 1], [0, 1], "chance", GREY, dash="dot", hoverinfo="skip", showlegend=False)]
    precision: list[Spec] = []
    for place, (k, truth) in enumerate(columns):
        scores = reading.probabilities[:, k]
        colour, dash = PALETTE[place % len(PALETTE)], _DASHES[place // len(PALETTE) % len(_DASHES)]
        label = _plain(classes[k])
        for specs, points, metric in (
            (roc, roc_points, "auc"),
            (precision, precision_recall_points, "average_precision"),
        ):
            x, y = points(truth, scores)
            value = reading.estimate.per_class[metric][k]
            specs.append(_line(_numbers(x), _numbers(y), f"{label} ({value:.3f})", colour, dash=dash))
    height = 420 + 12 * len(columns)
    unit = {"range": [-0.01, 1.01], "constrain": "domain"}
    return [
        {
            "data": roc,
            "layout": {
                "title": {"text": "ROC, with AUC"},
                "height": height,
                "xaxis": {**unit, "title": {"text": _axis("1 − specificity{}", evaluation)}},
                "yaxis": {**unit, "title": {"text": _axis("sensitivity{}", evaluation)}},
            },
        },
        {
            "data": precision,
            "layout": {
                "title": {"text": "Precision and recall, with average precision"},
                "height": height,
                "xaxis": {**unit, "title": {"text": _axis("recall{}", evaluation)}},
                "yaxis": {**unit, "title": {"text": _axis("precision{}", evaluation)}},
            },
        },
    ]


def reliability_plots(evaluation: Evaluation) -> list[Spec]:
    """Return how often statements of a given sureness are right, and how many there are of them."""
    curves: list[Spec] = [_line([0, 1], [0, 1], "as sure as right", GREY, dash="dot", hoverinfo="skip")]
    bars: list[Spec] = []
    centres = _numbers((np.arange(ECE_BINS) + 0.5) / ECE_BINS)
    for (name, curve), colour in zip(reliability_series(evaluation), (ORANGE, BLUE), strict=False):
        marks = {"mode": "lines+markers", "marker": {"size": 7}, "customdata": curve.count.tolist()}
        hover = {"hovertemplate": "given %{x:.3f}, true %{y:.3f}, %{customdata} cases<extra></extra>"}
        curves.append(_line(_numbers(curve.confidence), _numbers(curve.frequency), name, colour) | marks | hover)
        shares = _numbers(shares_by_bin(curve))
        bars.append({"type": "bar", "x": centres, "y": shares, "name": name, "marker": {"color": colour}})
    says = "share of the labels that are present" if evaluation.task.several else "share that is right"
    unit = {"range": [0, 1.01], "title": {"text": "probability that was given"}}
    return [
        {
            "data": curves,
            "layout": {
                "title": {"text": "Reliability"},
                "height": 420,
                "xaxis": unit,
                "yaxis": {"range": [0, 1.02], "title": {"text": says}},
            },
        },
        {
            "data": bars,
            "layout": {
                "title": {"text": "How sure it says it is"},
                "height": 420,
                "barmode": "group",
                "xaxis": unit,
                "yaxis": {"title": {"text": "share of all"}, "rangemode": "tozero"},
            },
        },
    ]


def risk_plots(curve: RiskCoverage) -> list[Spec]:
    """Return the share of mistakes among the surest images, over their share of all."""
    kept = np.unique(np.linspace(0, len(curve.risk) - 1, min(_POINTS, len(curve.risk))).astype(np.int64))
    x = _numbers(curve.coverage[kept])
    lines = [
        _line(x, _numbers(curve.risk[kept]), f"this network (AURC {curve.aurc:.4f})", BLUE),
        _line(x, _numbers(curve.best[kept]), "the best order", GREY, dash="dot"),
    ]
    layout: Spec = {
        "title": {"text": "Risk and coverage"},
        "height": 380,
        "xaxis": {"range": [0, 1.01], "title": {"text": "share of the images, the surest first"}},
        "yaxis": {"title": {"text": "share of mistakes"}, "rangemode": "tozero"},
    }
    return [{"data": lines, "layout": layout}]


def _plain(name: str) -> str:
    """Return a class name that Plotly does not read as markup, short enough for a legend."""
    return escaped(shorten(name, 32))


def _axis(text: str, evaluation: Evaluation) -> str:
    return escaped(axis_name(text, evaluation))
