"""What a report shows of an evaluation, section by section: cards, notes, figures, tables and pictures."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from visionforge.config.schema.task import Matrix
from visionforge.evaluation.evaluation import Evaluation, of_probabilities
from visionforge.evaluation.metric_names import (
    ALL_AGREE,
    PER_CLASS,
    READINGS,
    interval_text,
    labels_of_metrics,
    metric_name,
)
from visionforge.reporting.context import ReportContext, changed_settings, origin_rows
from visionforge.reporting.figures.interactive import Spec, curve_plots, reliability_plots, training_plots
from visionforge.reporting.rendering import Cell, Table
from visionforge.reporting.thumbnails import Thumbnail, thumbnails


@dataclass(frozen=True)
class Card:
    """A number that stands out: its name, its value, and the interval below it, if there is one."""

    name: str
    value: str
    interval: str


@dataclass(frozen=True)
class Section:
    """A section of the report; its parts are shown in this order.

    Attributes:
        anchor: Its name within the page.
        heading: Its heading.
        warning: What must not be overlooked.
        cards: Numbers that stand out.
        notes: Explanations, a paragraph each.
        plots: Interactive figures.
        beside: Whether the figures stand beside each other where there is room.
        matrix: A confusion matrix.
        table: A table.
        pictures: Images of the split.
    """

    anchor: str
    heading: str
    warning: str = ""
    cards: Sequence[Card] = ()
    notes: Sequence[str] = ()
    plots: Sequence[Spec] = ()
    beside: bool = True
    matrix: Matrix | None = None
    table: Table | None = None
    pictures: Sequence[Thumbnail] = ()


def sections_of(evaluation: Evaluation, background: ReportContext) -> list[Section]:
    """Return the sections of a report.

    Args:
        evaluation: The numbers.
        background: Everything else.
    """
    found = [_result(evaluation)]
    if background.epochs:
        found.append(Section("training", "Training", plots=training_plots(background.epochs)))
    return [
        *found,
        _decisions(evaluation),
        Section("curves", "ROC and precision-recall curves", plots=curve_plots(evaluation)),
        _calibration(evaluation),
        _classes(evaluation),
        *_pictures(evaluation, background),
        _settings(background),
        _origin(background),
    ]


def _number(value: Any, digits: int = 4) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def _interval(intervals: Mapping[str, tuple[float, float] | None], name: str, value: float | None) -> str:
    """Return the interval of a metric as text; nothing for one that has none in any case."""
    return interval_text(intervals[name], value) if name in intervals else ""


def _headings(names: Sequence[str]) -> list[Cell]:
    """Return the headings of a table whose columns are numbers, all but the first."""
    return [Cell(name, "number" if place else "") for place, name in enumerate(names)]


def _result(evaluation: Evaluation) -> Section:
    best = evaluation.best.estimate
    cards = [
        Card(
            metric_name(name, evaluation.positive),
            _number(best.overall[name], 3),
            _interval(best.intervals, name, best.overall[name]),
        )
        for name in evaluation.task.headlines
        if name in best.overall
    ]
    rows = []
    labels = labels_of_metrics()
    for name in (name for name in labels if name in evaluation.metrics("without_tta")):
        cells = [Cell(metric_name(name, evaluation.positive))]
        for reading in evaluation.readings:
            value = evaluation.metrics(reading).get(name)
            interval = _interval(evaluation.readings[reading].estimate.intervals, name, value)
            cells.append(Cell(_number(value), "number", interval))
        rows.append(cells)
    for name in ("accuracy", "auc"):
        values = [_number(reading.medmnist[name]) for reading in evaluation.readings.values()]
        rows.append([Cell(f"{labels[name]}, as MedMNIST defines it"), *(Cell(value, "number") for value in values)])
    headings = _headings(["metric", *(READINGS[name] for name in evaluation.readings)])
    warning = "" if evaluation.partial is None else f"Partial: {evaluation.partial}."
    return Section("result", "Result", warning, cards, _notes(evaluation), table=Table(headings, rows))


def _notes(evaluation: Evaluation) -> list[str]:
    """Return what must be known to read the numbers."""
    settings = evaluation.settings
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
    return notes


def _decisions(evaluation: Evaluation) -> Section:
    view = evaluation.task.decision_view(evaluation.labels, evaluation.predicted, evaluation.spec.classes)
    plots, matrix = view.plots, view.matrix
    return Section("decisions", view.heading, notes=view.notes, plots=plots, beside=len(plots) > 1, matrix=matrix)


def _calibration(evaluation: Evaluation) -> Section:
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
    shown = sorted(of_probabilities(evaluation.spec.task), key=lambda name: name != "ece")
    rows = [
        [Cell(f"{READINGS[name]}, {when}"), *(Cell(_number(values[key]), "number") for key in shown)]
        for name, reading in evaluation.readings.items()
        for when, values in (("as given", reading.estimate.overall), ("with temperature", reading.after))
        if values is not None
    ]
    labels = labels_of_metrics()
    table = Table(_headings(["", *(labels[key] for key in shown)]), rows)
    heading = "Can its probabilities be believed?"
    return Section("calibration", heading, notes=[note], plots=reliability_plots(evaluation), table=table)


def _classes(evaluation: Evaluation) -> Section:
    found = evaluation.best.estimate
    shown = [name for name in PER_CLASS if name in found.per_class]
    rows = []
    for k, label in enumerate(evaluation.spec.classes):
        if evaluation.support[k] == 0:
            rows.append([Cell(label), Cell("0", "number"), *(Cell("absent", "number") for _ in shown)])
            continue
        cells = [Cell(label), Cell(f"{evaluation.support[k]:,}", "number")]
        for name in shown:
            value = found.per_class[name][k]
            interval = interval_text(found.class_intervals[name][k], value) if name in found.class_intervals else ""
            cells.append(Cell(_number(value, 3), "number", interval))
        rows.append(cells)
    heading = "{0} by {0}".format(evaluation.task.nouns[0]).capitalize()
    table = Table(_headings(["", "cases", *(PER_CLASS[name] for name in shown)]), rows)
    return Section("classes", heading, table=table)


def _pictures(evaluation: Evaluation, background: ReportContext) -> list[Section]:
    classes = evaluation.spec.classes
    none = [] if background.mistakes else ["There are none: every prediction is right."]
    mistakes = thumbnails(background.mistakes, classes)
    found = [Section("mistakes", "Most confident mistakes", notes=none, pictures=mistakes)]
    if background.uncertain:
        uncertain = thumbnails(background.uncertain, classes)
        found.append(Section("uncertain", "Least certain predictions", pictures=uncertain))
    if background.explained:
        maps = thumbnails(background.explained, classes)
        found.append(Section("explained", "Where the network looked", notes=[background.method], pictures=maps))
    return found


def _as_yaml(value: Any) -> str:
    """Return a value as a configuration file writes it."""
    return value if isinstance(value, str) else json.dumps(value)


def _settings(background: ReportContext) -> Section:
    rows = [
        [Cell(path, "code"), Cell(_as_yaml(value), "code"), Cell(_as_yaml(default))]
        for path, (default, value) in changed_settings(background).items()
    ]
    table = Table([Cell("setting"), Cell("value"), Cell("default")], rows)
    return Section("settings", "Settings that differ from the defaults", table=table)


def _origin(background: ReportContext) -> Section:
    heading = "Data and environment"
    rows: list[list[Cell]] = []
    last = ""
    for group, name, text in origin_rows(background):
        rows.append([Cell(group if group != last else ""), Cell(name), Cell(text, "long")])
        last = group
    if not rows:
        note = "The checkpoint lies in no run folder, so nothing is known of its origin."
        return Section("origin", heading, notes=[note])
    return Section("origin", heading, table=Table([], rows))
