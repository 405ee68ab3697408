"""Paired differences, tests and verdicts as the cells of tables, with the notes that go below them."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from visionforge.evaluation.metric_names import NO_INTERVAL, TOO_FEW, methods_text

LEAST_P = 0.0005  # of which more is printed than that it is small
_TESTS = {"delong": "DeLong", "mcnemar": "McNemar"}
_AREAS = "DeLong: areas under ROC curves, of several seeds their mean; interval and p by the normal distribution."
_DECISIONS = (
    "McNemar: whether an image is right, mid-p. n10: images that the first of a pair alone has right; n01: the second."
)
Rows = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class TextTable:
    """A table with its heading.

    Attributes:
        heading: What it shows.
        columns: Names of the columns.
        rows: Their cells.
        notes: Lines below it.
    """

    heading: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = ()


def comparison_tables(content: Mapping[str, Any]) -> list[TextTable]:
    """Return what `visionforge runs compare` shows of pairs of models.

    Args:
        content: What `visionforge.evaluation.comparison.comparison` returns.
    """
    interval = f"{content['confidence']:.0%} interval"
    several = any(group["seeds"] > 1 for group in content["groups"]) and len(content["groups"]) > 1
    tables = [_differences(content["differences"], interval, several)]
    if content["tests"]:
        tables.append(_tests(content["tests"], interval))
    if content["verdicts"]:
        tables.append(_verdicts(content["verdicts"], interval))
    last = tables.pop()
    notes = [*last.notes, *content["left_out"], *filter(None, [content["adjusted"]])]
    return [*tables, replace(last, notes=notes)]


def mean_text(value: Mapping[str, Any] | None) -> str:
    """Return mean and standard deviation over seeds as tables show them.

    >>> mean_text({"mean": 0.9, "sd": 0.01}), mean_text({"mean": 0.9, "sd": None}), mean_text(None)
    ('0.9000 ± 0.0100', '0.9000', '–')
    """
    if value is None or not math.isfinite(value["mean"]):
        return "–"
    return f"{value['mean']:.4f}" if value["sd"] is None else f"{value['mean']:.4f} ± {value['sd']:.4f}"


def p_text(p: float | None) -> str:
    """Return a p-value as tables show it.

    >>> p_text(0.0321), p_text(1e-9), p_text(None)
    ('0.032', '< 0.001', '–')
    """
    return "–" if p is None else "< 0.001" if p < LEAST_P else f"{p:.3f}"


def _differences(rows: Rows, interval: str, several: bool) -> TextTable:
    cells = [
        [*_what(row), _ends(row["interval"], bool(row["method"])), *_ps(row, rows), _number(row["detectable"])]
        for row in rows
    ]
    methods = {row["metric"].partition(".")[2]: row["method"] for row in rows if row["method"]}
    notes = [methods_text(methods)] if methods else []
    if any(row["interval"] is None and row["method"] for row in rows):
        notes.append(TOO_FEW)
    if several:
        notes.append("The intervals are over the test images; the seeds' own spread is in the table above.")
    columns = ["", "metric", "difference", interval, *_p_columns(rows), "detectable"]
    return TextTable("differences on the same cases", columns, cells, notes)


def _tests(rows: Rows, interval: str) -> TextTable:
    cells = []
    for row in rows:
        pair, metric, value = _what(row)
        name = metric if row["class"] is None else f"{metric} of {row['class']}"
        alone = "" if row["n01"] is None else f"{row['n01']} / {row['n10']}"
        ends = _ends(row["interval"], row["n01"] is None)
        cells.append([pair, _TESTS[row["test"]], name, value, ends, *_ps(row, rows), alone])
    named = {row["test"] for row in rows}
    notes = [text for name, text in (("delong", _AREAS), ("mcnemar", _DECISIONS)) if name in named]
    columns = ["", "test", "metric", "difference", interval, *_p_columns(rows), "n01 / n10"]
    return TextTable("tests on the same cases", columns, cells, notes)


def _verdicts(rows: Rows, interval: str) -> TextTable:
    cells = []
    for row in rows:
        said = f"{row['verdict']}, superior" if row["superior"] else row["verdict"]
        better = "higher" if row["higher_is_better"] else "lower"
        limits = [_ends(row["interval"], True), better, f"{row['margin']:g}", said]
        cells.append([*_what(row), *limits, *_ps(row, rows)])
    notes = [
        f"The interval's limit on the worse side decides, at a one-sided level of {rows[0]['alpha']:.2%}: non-inferior "
        "is worse by less than the margin, inferior by more, superior is better. p: that it is worse by the margin or "
        "more, one-sided.",
    ]
    columns = ["", "metric", "difference", interval, "better", "margin", "verdict", *_p_columns(rows)]
    return TextTable("is the first of a pair worse by less than the margin?", columns, cells, notes)


def _what(row: Mapping[str, Any]) -> list[str]:
    return [f"{row['of']} − {row['from']}", row["metric"], f"{row['value']:+.4f}"]


def _ends(interval: Sequence[float] | None, has_one: bool) -> str:
    if interval is None:
        return NO_INTERVAL if has_one else ""
    return f"{interval[0]:+.4f} to {interval[1]:+.4f}"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


def _p_columns(rows: Rows) -> list[str]:
    return ["p", "Holm p"] if any(row["p_adjusted"] is not None for row in rows) else ["p"]


def _ps(row: Mapping[str, Any], rows: Rows) -> list[str]:
    return [p_text(row[key]) for key, _ in zip(("p", "p_adjusted"), _p_columns(rows), strict=False)]
