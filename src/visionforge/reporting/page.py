"""`report.html`: one page with everything a reader needs to judge a run; it opens offline, and asks for nothing."""

import base64
import html
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from visionforge.evaluation.evaluation import Array, Evaluation
from visionforge.evaluation.metric_names import ALL_AGREE, METRICS, PER_CLASS, READINGS, interval_text, metric_name
from visionforge.printable import printable
from visionforge.reporting.context import ReportContext, changed_settings, origin_rows
from visionforge.reporting.figures.interactive import Spec, curve_plots, label_plot, reliability_plots, training_plots
from visionforge.reporting.figures.static import Picture, elided, label_names
from visionforge.runs.files import write_atomic

THUMBNAIL_PIXELS = 128
MATRIX_CLASSES = 30  # a larger confusion matrix is left to its picture
_HEADLINES = {
    "binary": ("auc", "accuracy", "sensitivity", "specificity"),
    "multi-class": ("auc", "accuracy", "balanced_accuracy", "f1_macro"),
    "ordinal": ("auc", "accuracy", "kappa_quadratic", "mae"),
    "multi-label": ("auc", "average_precision", "f1_macro", "accuracy"),
}


@dataclass
class _Page:
    """Collects sections and the figures in them."""

    evaluation: Evaluation
    background: ReportContext
    sections: list[tuple[str, str, str]] = field(default_factory=list)
    figures: list[Spec] = field(default_factory=list)

    def add(self, anchor: str, heading: str, body: str) -> None:
        self.sections.append((anchor, heading, body))

    def plot(self, spec: Spec) -> str:
        self.figures.append(spec)
        height = spec["layout"]["height"]
        return f'<div class="plot" data-figure="figure-{len(self.figures)}" style="height:{height}px"></div>'


def write_report(path: Path, evaluation: Evaluation, background: ReportContext) -> None:
    """Write the page.

    Args:
        path: The HTML file.
        evaluation: The numbers.
        background: Everything else.
    """
    page = _Page(evaluation, background)
    page.add("result", "Result", _result(evaluation))
    if background.epochs:
        page.add("training", "Training", f'<div class="pair">{_plots(page, training_plots(background.epochs))}</div>')
    _add_decisions(page)
    page.add("curves", "ROC and precision-recall curves", _curves(page))
    page.add("calibration", "Can its probabilities be believed?", _calibration(page))
    page.add("classes", "Label by label" if evaluation.labels.ndim == 2 else "Class by class", _classes(evaluation))
    _add_pictures(page)
    page.add("settings", "Settings that differ from the defaults", _settings(background))
    page.add("origin", "Data and environment", _origin(background))
    write_atomic(path, _assemble(page))


def _assemble(page: _Page) -> str:
    from plotly.offline import get_plotlyjs

    assets = files("visionforge.evaluation").joinpath("assets")
    style, script = (assets.joinpath(name).read_text(encoding="utf-8") for name in ("report.css", "report.js"))
    background = page.background
    facts = " · ".join(_text(f"{name} {text}".strip()) for name, text in background.facts.items())
    links = "".join(f'<a href="#{anchor}">{_text(heading)}</a>' for anchor, heading, _ in page.sections)
    body = "".join(f'<h2 id="{anchor}">{_text(heading)}</h2>{text}' for anchor, heading, text in page.sections)
    data = "".join(
        f'<script type="application/json" id="figure-{number}">{_json(spec)}</script>'
        for number, spec in enumerate(page.figures, start=1)
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data: blob:; '
        "style-src 'unsafe-inline'; script-src 'unsafe-inline'\">"
        f"<title>{_text(background.title)}</title><style>{style}</style></head><body>"
        f'<h1>{_text(background.title)}</h1><p class="faint">{facts}</p><nav>{links}</nav>'
        f"<main>{body}</main>{data}<script>{get_plotlyjs()}</script><script>{script}</script></body></html>\n"
    )


def _json(value: Any) -> str:
    """Return JSON that cannot end the element it stands in."""
    return json.dumps(value, separators=(",", ":")).replace("<", "\\u003c")


def _text(value: Any) -> str:
    return html.escape(str(value))


def _number(value: Any, digits: int = 4) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]], numbers: bool = True) -> str:
    """Return a table of cells that are HTML already; all columns but the first are numbers."""
    kind = ' class="number"' if numbers else ""
    head = "".join(f"<th{kind if place else ''}>{_text(name)}</th>" for place, name in enumerate(headings))
    lines = ("".join(f"<td{kind if place else ''}>{cell}</td>" for place, cell in enumerate(cells)) for cells in rows)
    inner = "".join(f"<tr>{line}</tr>" for line in lines)
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{inner}</tbody></table></div>'


def _plots(page: _Page, specs: Sequence[Spec]) -> str:
    return "".join(page.plot(spec) for spec in specs)


# --- numbers


def _result(evaluation: Evaluation) -> str:
    best, settings = evaluation.best.estimate, evaluation.settings
    cards = "".join(
        f'<div class="card">{_text(metric_name(name, evaluation.positive))}<b>{_number(best.overall[name], 3)}</b>'
        f"<span>{_interval(best.intervals, name, best.overall[name]) or '&nbsp;'}</span></div>"
        for name in _HEADLINES[evaluation.spec.task]
    )
    names = [name for name in METRICS if name in evaluation.metrics("without_tta")]
    headings = ["metric", *(READINGS[name] for name in evaluation.readings)]
    rows = []
    for name in names:
        cells = [_text(metric_name(name, evaluation.positive))]
        for reading in evaluation.readings:
            value = evaluation.metrics(reading).get(name)
            interval = _interval(evaluation.readings[reading].estimate.intervals, name, value)
            cells.append(f"{_number(value)}<small>{interval}</small>" if interval else _number(value))
        rows.append(cells)
    for name in ("accuracy", "auc"):
        cells = [f"{METRICS[name]}, as MedMNIST defines it"]
        rows.append([*cells, *(_number(reading.medmnist[name]) for reading in evaluation.readings.values())])
    notes = []
    if settings.resamples:
        notes.append(
            f"Ranges hold {settings.confidence:.0%} of {settings.resamples:,} bootstrap resamples of the "
            f"{len(evaluation.labels):,} images, class by class. They say how much the result depends on which images "
            "were in the split; another seed of the training varies it further."
        )
        if evaluation.some_agree:
            notes.append(f"{ALL_AGREE}.")
    if evaluation.positive is not None:
        notes.append(f"The positive class is {evaluation.positive}.")
    if evaluation.best.thresholds is not None:
        notes.append("Labels are predicted at the thresholds of the validation split; metrics without “tuned” at 0.5.")
    if evaluation.absent:
        notes.append(f"Without a case, so in no average: {', '.join(evaluation.absent)}.")
    if len(evaluation.readings) > 1:
        notes.append("The numbers on top are those with test-time augmentation (TTA), which the predictions follow.")
    said = "".join(f'<p class="faint">{_text(note)}</p>' for note in notes)
    warning = "" if evaluation.partial is None else f'<p class="partial">Partial: {_text(evaluation.partial)}.</p>'
    return f'{warning}<div class="cards">{cards}</div>{said}{_table(headings, rows)}'


def _interval(intervals: Mapping[str, tuple[float, float] | None], name: str, value: float | None) -> str:
    """Return the interval of a metric as text; nothing for one that has none in any case."""
    return interval_text(intervals[name], value) if name in intervals else ""


def _add_decisions(page: _Page) -> None:
    evaluation = page.evaluation
    if evaluation.spec.task == "multi-label":
        page.add("decisions", "Hits, misses and false alarms", page.plot(label_plot(evaluation)))
    elif len(evaluation.spec.classes) <= MATRIX_CLASSES:
        page.add("decisions", "Confusion matrix", _matrix(evaluation))
    else:
        note = f'<p class="faint">{len(evaluation.spec.classes)} classes: see figures/confusion_matrix.png.</p>'
        page.add("decisions", "Confusion matrix", note)


def _matrix(evaluation: Evaluation) -> str:
    classes = evaluation.spec.classes
    counts = np.zeros((len(classes), len(classes)), dtype=np.int64)
    np.add.at(counts, (evaluation.labels, evaluation.predicted), 1)
    head = "".join(f"<th>{_text(name)}</th>" for name in classes)
    lines = []
    for name, row in zip(classes, counts, strict=True):
        cells = [_matrix_cell(int(count), count / row.sum() if row.sum() else 0.0) for count in row]
        lines.append(f"<tr><th>{_text(name)}</th>{''.join(cells)}</tr>")
    return (
        '<p class="faint">Rows are what is true, columns what was predicted; below each number its share of the '
        "row.</p>"
        f'<div class="wide"><table class="matrix"><thead><tr><th></th>{head}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )


def _matrix_cell(count: int, share: float) -> str:
    if not count:
        return '<td class="none">0</td>'
    dark = ' class="dark"' if share > 0.55 else ""
    return f'<td{dark} style="background:rgba(var(--shade),{share:.3f})">{count:,}<small>{share:.0%}</small></td>'


def _curves(page: _Page) -> str:
    return f'<div class="pair">{_plots(page, curve_plots(page.evaluation))}</div>'


def _calibration(page: _Page) -> str:
    evaluation = page.evaluation
    calibration = evaluation.calibration
    if calibration is None:
        note = "No validation split was looked at, so there is no temperature."
    elif all(reading.after is None for reading in evaluation.readings.values()):
        note = (
            f"The {calibration.images:,} validation images do not fix a temperature: on them, being surer is always "
            "better (or always worse). The probabilities stay as they are."
        )
    else:
        note = (
            f"The temperature divides the logits; it was fitted on the {calibration.images:,} validation images and is "
            "kept in the checkpoint. It changes no ranking within an image, only how sure the probabilities are."
        )
    rows = []
    for name, reading in evaluation.readings.items():
        for when, values in (("as given", reading.estimate.overall), ("with temperature", reading.after)):
            if values is not None:
                rows.append(
                    [f"{READINGS[name]}, {when}", *(_number(values[key]) for key in ("ece", "brier", "log_loss"))]
                )
    table = _table(["", METRICS["ece"], METRICS["brier"], METRICS["log_loss"]], rows)
    plots = _plots(page, reliability_plots(evaluation))
    return f'<p class="faint">{_text(note)}</p><div class="pair">{plots}</div>{table}'


def _classes(evaluation: Evaluation) -> str:
    found = evaluation.best.estimate
    shown = [name for name in PER_CLASS if name in found.per_class]
    rows = []
    for k, label in enumerate(evaluation.spec.classes):
        if evaluation.support[k] == 0:
            rows.append([_text(label), "0", *["absent"] * len(shown)])
            continue
        cells = []
        for name in shown:
            value = found.per_class[name][k]
            interval = interval_text(found.class_intervals[name][k], value) if name in found.class_intervals else ""
            cells.append(f"{_number(value, 3)}<small>{interval}</small>" if interval else _number(value, 3))
        rows.append([_text(label), f"{evaluation.support[k]:,}", *cells])
    return _table(["", "cases", *(PER_CLASS[name] for name in shown)], rows)


# --- pictures


def _add_pictures(page: _Page) -> None:
    background, classes = page.background, page.evaluation.spec.classes
    mistakes = '<p class="faint">There are none: every prediction is right.</p>'
    if background.mistakes:
        mistakes = _grid(background.mistakes, classes)
    page.add("mistakes", "Most confident mistakes", mistakes)
    if background.uncertain:
        page.add("uncertain", "Least certain predictions", _grid(background.uncertain, classes))
    if background.explained:
        note = f'<p class="faint">{_text(background.method)}</p>'
        page.add("explained", "Where the network looked", note + _grid(background.explained, classes, " maps"))


def _grid(pictures: Sequence[Picture], classes: Sequence[str], kind: str = "") -> str:
    return f'<div class="grid{kind}">{"".join(_picture(picture, classes) for picture in pictures)}</div>'


def _picture(picture: Picture, classes: Sequence[str]) -> str:
    said, true = (_text(label_names(value, classes, 60)) for value in (picture.predicted, picture.truth))
    mark, style = ("✓", "right") if picture.right else ("✗", "wrong")
    words = f'<span class="{style}">{mark} {said}</span> {picture.confidence:.1%}'
    if not picture.right:
        words += f"<br>true: {true}"
    place = f"№ {picture.index}"
    alternative = f"image {picture.index}"
    if picture.name is not None:
        name = printable(picture.name)
        place = f'<span title="{_text(name)}">{_text(elided(name, 40))}</span> {place}'
    images = f'<img alt="{alternative}" src="{data_uri(picture.image.transpose(1, 2, 0))}">'
    if picture.overlay is not None:
        images += f'<img alt="{alternative}, map" src="{data_uri(picture.overlay)}">'
        images = f'<div class="twin">{images}</div>'
    return f'<figure>{images}<figcaption>{words}<br><span class="faint">{place}</span></figcaption></figure>'


def data_uri(pixels: Array) -> str:
    """Return (H, W, C) uint8 pixels as an address that holds them, at most 128 pixels wide."""
    image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    image.thumbnail((THUMBNAIL_PIXELS, THUMBNAIL_PIXELS))
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


# --- settings and origin


def _as_yaml(value: Any) -> str:
    """Return a value as a configuration file writes it."""
    return value if isinstance(value, str) else json.dumps(value)


def _settings(background: ReportContext) -> str:
    rows = [
        [f"<code>{_text(path)}</code>", f"<code>{_text(_as_yaml(value))}</code>", _text(_as_yaml(default))]
        for path, (default, value) in changed_settings(background).items()
    ]
    return _table(["setting", "value", "default"], rows, numbers=False)


def _origin(background: ReportContext) -> str:
    rows = origin_rows(background)
    if not rows:
        return '<p class="faint">The checkpoint lies in no run folder, so nothing is known of its origin.</p>'
    lines = []
    last = ""
    for group, name, text in rows:
        shown = _text(group) if group != last else ""
        lines.append(f'<tr><td>{shown}</td><td>{_text(name)}</td><td class="long">{_text(text)}</td></tr>')
        last = group
    return f'<div class="wide"><table><tbody>{"".join(lines)}</tbody></table></div>'
