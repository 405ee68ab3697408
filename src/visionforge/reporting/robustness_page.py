"""`robustness.html`: what a network loses on corrupted images, and how these look; it opens offline."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from visionforge.evaluation.metric_names import labels_of_metrics, partial_text
from visionforge.evaluation.robustness_text import ends, number, same_answers
from visionforge.evaluation.slices import as_picture
from visionforge.printable import printable
from visionforge.reporting.figures.robustness import severity_curves
from visionforge.reporting.figures.static import Array, own_style, pixels_of
from visionforge.reporting.presentation import Card
from visionforge.reporting.rendering import Cell, Table, render
from visionforge.reporting.thumbnails import data_uri
from visionforge.runs.files import write_atomic

HEADLINE = ("accuracy", "balanced_accuracy", "auc", "kappa_quadratic")  # of which those are shown that a task has
_POINTS = 100  # of an error, in per cent
_PIXELS = 96  # of the longer side of a sample
_DPI = 160


@dataclass(frozen=True)
class Heat:
    """A cell of the heat map.

    Attributes:
        text: The increase of the error in percentage points.
        shade: 0 for none to 1 for the largest.
    """

    text: str
    shade: float


@dataclass(frozen=True)
class Row:
    """A corruption on the page.

    Attributes:
        name: Its name.
        group: What it belongs to.
        cells: One for each severity; None where it was not run.
        mean: The mean over them.
        interval: Of the mean, as text.
        pictures: The sample at each severity, as addresses; None where it was not run.
    """

    name: str
    group: str
    cells: Sequence[Heat | None]
    mean: Heat
    interval: str
    pictures: Sequence[str | None]


def write_robustness_page(
    path: Path, content: Mapping[str, Any], sample: int, picture: Array, pictures: Sequence[Array]
) -> None:
    """Write the page.

    Args:
        path: The HTML file.
        content: What `robustness.json` holds.
        sample: Position of the image that is shown.
        picture: (C, R, R) uint8, the image.
        pictures: The same under each condition, in their order.
    """
    severities = sorted({each["severity"] for each in content["conditions"]})
    rows = _rows(content, severities, pictures)
    page = render(
        "robustness.html.j2",
        title=printable(f"Robustness of {content['run']}"),
        facts=_facts(content),
        partial=None if content["partial"] is None else partial_text(content["partial"]),
        same=[printable(line) for line in same_answers(content)],
        cards=_cards(content),
        severities=severities,
        rows=rows,
        curves=_curves(content),
        metrics=_metrics(content),
        baseline=_baseline(content),
        against=None if content["against"] is None else printable(str(content["against"]["run"])),
        confidence=f"{content['confidence']:.0%}",
        resamples=f"{content['resamples']:,}",
        groups=None if content["groups"] is None else f"{content['groups']:,}",
        seed=content["seed"],
        sample=sample,
        clean=_uri(picture),
        figures=[],
    )
    write_atomic(path, page)


def _facts(content: Mapping[str, Any]) -> list[str]:
    size = f"{content['resolution']}×{content['resolution']} pixels"
    views = "test-time views averaged" if content["tta"] else "image alone"
    facts = (f"{content['dataset']}, {content['split']} split", f"{content['images']:,} images", size)
    return [printable(fact) for fact in (*facts, content["task"], content["checkpoint"], views)]


def _cards(content: Mapping[str, Any]) -> list[Card]:
    shown = [_card("error, clean", content["clean"]["error"])]
    if content["mean"] is not None:
        shown.append(_card("mean corruption error", content["mean"]["error"]))
        shown.append(_card("of it due to corruptions", content["mean"]["increase"], "+.3f"))
    if content["baseline"] is not None:
        shown.append(_card("error minus baseline's", content["baseline"]["difference"], "+.3f"))
        shown.append(_card("mCE, baseline 1", content["baseline"]["mce"]))
        shown.append(_card("relative mCE, baseline 1", content["baseline"]["relative_mce"]))
    return shown


def _card(name: str, told: Mapping[str, Any], form: str = ".3f") -> Card:
    return Card(name, _signed(number(told["value"], form, "–")), _signed(ends(told["interval"], form)))


def _rows(content: Mapping[str, Any], severities: Sequence[int], pictures: Sequence[Array]) -> list[Row]:
    conditions = content["conditions"]
    largest = max([0.0, *(each["increase"]["value"] for each in conditions)]) or 1.0
    rows = []
    for name, each in content["corruptions"].items():
        places = {c["severity"]: place for place, c in enumerate(conditions) if c["corruption"] == name}
        cells = [
            _heat(conditions[places[s]]["increase"]["value"], largest) if s in places else None for s in severities
        ]
        strip = [_uri(pictures[places[s]]) if s in places else None for s in severities]
        mean = each["increase"]
        rows.append(
            Row(
                printable(name.replace("_", " ")),
                printable(each["group"]),
                cells,
                _heat(mean["value"], largest),
                _interval(mean["interval"]),
                strip,
            )
        )
    return rows


def _heat(value: float, largest: float) -> Heat:
    shade = float(np.clip(value / largest, 0, 1))
    return Heat(_signed(f"{_POINTS * value:+z.1f}"), round(shade, 3))


def _signed(text: str) -> str:
    """Return numbers with the sign that is as wide as a plus; zero has none."""
    return re.sub(r"[+-](0\.0+)(?!\d)", r"\1", text).replace("-", "−")


def _interval(interval: Sequence[float] | None) -> str:
    return "" if interval is None else _signed(ends([_POINTS * end for end in interval], "+z.1f"))


def _curves(content: Mapping[str, Any]) -> str:
    """Return the curves as an address that holds a picture."""
    groups: dict[str, dict[int, list[float]]] = {}
    for each in content["conditions"]:
        about = content["corruptions"][each["corruption"]]
        if about["averaged"]:
            groups.setdefault(about["group"], {}).setdefault(each["severity"], []).append(each["error"]["value"])
    points = {
        printable(name): [(severity, float(np.mean(values))) for severity, values in sorted(found.items())]
        for name, found in groups.items()
    }
    with own_style():
        pixels = pixels_of(severity_curves(content["clean"]["error"]["value"], points), _DPI)
    return data_uri(pixels, max(pixels.shape))


def _metrics(content: Mapping[str, Any]) -> Table | None:
    labels, found = labels_of_metrics(), content["metrics"]
    names = [name for name in HEADLINE if name in found and found[name]["corrupted"] is not None]
    if not names:
        return None
    rows = [
        [Cell(labels[name]), *(Cell(_signed(number(found[name][key], form, "–")), "number") for key, form in _COLUMNS)]
        for name in names
    ]
    return Table([Cell(""), *(Cell(name, "number") for name in ("clean", "corrupted", "change"))], rows)


_COLUMNS = (("clean", ".3f"), ("corrupted", ".3f"), ("change", "+.3f"))


def _baseline(content: Mapping[str, Any]) -> Table | None:
    """Return the errors divided by those of the other network, corruption by corruption."""
    found = content["baseline"]
    if found is None:
        return None
    headings = [Cell(""), Cell("error ratio", "number"), Cell("increase ratio", "number")]
    rows = [
        [
            Cell(printable(name.replace("_", " "))),
            Cell(number(value, ".2f", "–"), "number"),
            Cell(number(found["relative_mce_of"][name], ".2f", "–"), "number"),
        ]
        for name, value in found["mce_of"].items()
    ]
    return Table(headings, rows)


def _uri(image: Array) -> str:
    return data_uri(as_picture(image), _PIXELS)
