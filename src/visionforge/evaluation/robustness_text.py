"""What a network loses on corrupted images, as the lines of a terminal and as a table."""

from collections.abc import Mapping, Sequence
from typing import Any

from visionforge.evaluation.metric_names import partial_text
from visionforge.printable import csv_text

TEXTS = ("corruption", "group")  # columns of both


def headline(content: Mapping[str, Any]) -> list[str]:
    """Return what was measured, and of how much of the split, from the content of `robustness.json`."""
    about = f"{content['dataset']} {content['split']} split, {content['images']:,} images, {content['checkpoint']}"
    return [about, *([f"partial: {partial_text(content['partial'])}"] if content["partial"] else [])]


def error_table(content: Mapping[str, Any]) -> list[list[str]]:
    """Return rows of an equal number of cells, the headings first: errors by corruption and severity, and means."""
    severities = sorted({each["severity"] for each in content["conditions"]})
    errors = {(each["corruption"], each["severity"]): each["error"]["value"] for each in content["conditions"]}
    clean = content["clean"]["error"]
    rows = [
        ["error", "of", *map(str, severities), "mean", "increase", f"{content['confidence']:.0%} interval"],
        ["clean", "", *("" for _ in severities), number(clean["value"]), "", ends(clean["interval"], ".4f")],
    ]
    for name, each in content["corruptions"].items():
        rows.append([name, each["group"], *(number(errors.get((name, s))) for s in severities), *_both(each)])
    if content["mean"] is not None:
        found = content["severities"]
        means = [number(found[str(s)]["error"]["value"]) if str(s) in found else "" for s in severities]
        rows.append(["mean corruption error", "", *means, *_both(content["mean"])])
    return rows


def aligned(rows: Sequence[Sequence[str]], texts: int) -> list[str]:
    """Return rows as lines; the first columns, texts, are aligned to the left and the others to the right.

    >>> aligned([["a", "10"], ["bc", "9"]], texts=1)
    ['a   10', 'bc   9']
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if place < texts else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def notes(content: Mapping[str, Any]) -> list[str]:
    """Return what has to be known to read the table, and the errors beside those of the baseline."""
    lines = same_answers(content)
    if any(not each["averaged"] for each in content["corruptions"].values()):
        lines.append("Orientation is what the data set forbids as augmentation; it is no part of the mean.")
    if content["baseline"] is not None:
        for key, name in (("mce", "mCE"), ("relative_mce", "relative mCE")):
            told = content["baseline"][key]
            value = (
                "undefined, as the baseline loses nothing under some corruption"
                if told["value"] is None
                else number(told["value"])
            )
            lines.append(f"{name}, {content['against']['run']} is 1: {value}  {ends(told['interval'], '.4f')}".rstrip())
        told = content["baseline"]["difference"]
        lines.append(
            f"error minus that of the baseline: {told['value']:+.4f}  {ends(told['interval'], '+.4f')}".rstrip()
        )
    return lines


def same_answers(content: Mapping[str, Any]) -> list[str]:
    """Return a line where every image is predicted as one class: what is lost there says nothing of the corruption."""
    name, conditions = content["clean"].get("same_class"), content["conditions"]
    if name is not None:
        return [f"All images are predicted as {name}, without a corruption, too: there is nothing that it could lose."]
    same = [each["same_class"] for each in conditions if each.get("same_class") is not None]
    if not same:
        return []
    names = " or ".join(sorted(set(same)))
    return [
        f"Under {len(same)} of {len(conditions)} conditions all images are predicted as {names}: the error is there "
        "that of knowing nothing, and does not grow with the severity."
    ]


def _both(each: Mapping[str, Any]) -> tuple[str, str, str]:
    """Return an error, its increase and the interval of that."""
    increase = each["increase"]
    return number(each["error"]["value"]), f"{increase['value']:+.4f}", ends(increase["interval"], "+.4f")


def ends(interval: Sequence[float] | None, form: str) -> str:
    """Return an interval as text; nothing where there is none."""
    return "" if interval is None else f"{interval[0]:{form}} to {interval[1]:{form}}"


def number(value: float | None, form: str = ".4f", missing: str = "") -> str:
    """Return a number as text."""
    return missing if value is None else format(value, form)


def csv_table(content: dict[str, Any]) -> str:
    """Return a row per condition as CSV; what is undefined is empty."""
    clean = content["clean"]
    names = list(clean["metrics"])
    groups = {name: each["group"] for name, each in content["corruptions"].items()}
    rows: list[list[Any]] = [
        [*TEXTS, "severity", "strength", "error", "increase", "increase_low", "increase_high", *names],
        ["clean", "clean", 0, "", clean["error"]["value"], 0.0, "", "", *(clean["metrics"][name] for name in names)],
    ]
    for each in content["conditions"]:
        increase = each["increase"]
        rows.append(
            [
                each["corruption"],
                groups[each["corruption"]],
                each["severity"],
                each["strength"],
                each["error"]["value"],
                increase["value"],
                *(increase["interval"] or ("", "")),
                *(each["metrics"][name] for name in names),
            ]
        )
    return csv_text(rows)  # None becomes an empty cell
