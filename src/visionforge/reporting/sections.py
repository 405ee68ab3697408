"""What a report shows of an evaluation, section by section: cards, notes, figures, tables and pictures."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from visionforge.evaluation.evaluation import SplitEvaluation
from visionforge.evaluation.metric_names import (
    PER_CLASS,
    READINGS,
    TOO_FEW,
    interval_text,
    labels_of_metrics,
    methods_text,
    metric_name,
)
from visionforge.evaluation.plain_words import in_words
from visionforge.reporting.context import ReportContext, changed_settings, origin_rows
from visionforge.reporting.figures.interactive import training_plots
from visionforge.reporting.presentation import Card, Presentation, Section
from visionforge.reporting.rendering import Cell, Table
from visionforge.runs.manifest import NOTICED, Manifest

FEW = 30  # validation images; the accuracy of so many varies by 9 percentage points where half are right


def sections_of(evaluation: SplitEvaluation, shown: Presentation) -> list[Section]:
    """Return the sections of a report.

    Args:
        evaluation: The numbers.
        shown: What the task shows of them, and everything else.
    """
    background = shown.background
    result = _result(evaluation)
    found = [replace(result, notes=[*result.notes, *_chosen_by_few(background), *_noticed(background.manifest)])]
    if background.epochs:
        found.append(Section("training", "Training", plots=training_plots(background.epochs)))
    if background.candidates:
        found.append(_candidates(background.candidates))
    return [*found, *shown.sections(), _settings(background), _origin(background)]


def _candidates(rows: Sequence[Mapping[str, str]]) -> Section:
    """Return the table of a probe's candidates, in the order in which they were tried, from the simplest on."""
    names = [name for name in rows[0] if name != "chosen"]
    cells = [
        [*(Cell(row[name], "number") for name in names), Cell("✓" if row["chosen"] == "True" else "")] for row in rows
    ]
    table = Table([*(Cell(name, "number") for name in names), Cell("chosen")], cells)
    notes = ["Each was fitted to the features of the training split and looked at on the validation split."]
    return Section("candidates", "Candidates of the classifier", notes=notes, table=table)


def number(value: Any, digits: int = 4) -> str:
    """Return a value as text; a dash for None."""
    return "–" if value is None else f"{value:.{digits}f}"


def _interval(intervals: Mapping[str, tuple[float, float] | None], name: str, value: float | None) -> str:
    """Return the interval of a metric as text; nothing for one that has none in any case."""
    return interval_text(intervals[name], value) if name in intervals else ""


def headings(names: Sequence[str]) -> list[Cell]:
    """Return the headings of a table whose columns are numbers, all but the first."""
    return [Cell(name, "number" if place else "") for place, name in enumerate(names)]


def _result(evaluation: SplitEvaluation) -> Section:
    best = evaluation.best.estimate
    cards = [
        Card(
            metric_name(name, evaluation.positive),
            number(best.overall[name], 3),
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
            cells.append(Cell(number(value), "number", interval))
        rows.append(cells)
    for label, values in evaluation.further:
        rows.append([Cell(label), *(Cell(number(values[name]), "number") for name in evaluation.readings)])
    table = Table(headings(["metric", *(READINGS[name] for name in evaluation.readings)]), rows)
    warnings = [] if evaluation.partial is None else [f"Partial: {evaluation.partial}."]
    warnings += [f"{line[:1].upper()}{line[1:]}." for line in evaluation.warnings]
    return Section("result", "Result", " ".join(warnings), cards, _notes(evaluation), table=table)


def _notes(evaluation: SplitEvaluation) -> list[str]:
    """Return what must be known to read the numbers."""
    settings = evaluation.settings
    notes = [] if (words := in_words(evaluation)) is None else [words]
    if settings.resamples:
        notes.append(
            f"Ranges are {settings.confidence:.0%} intervals. They say how much the result depends on which images "
            "were in the split; another seed of the training varies it further. How they were made: "
            f"{methods_text(evaluation.best.estimate.methods)} Resamples: {settings.resamples:,} of the "
            f"{len(evaluation.labels):,} images{evaluation.drawn_text}."
        )
        if evaluation.some_unknown:
            notes.append(f"{TOO_FEW}.")
    if evaluation.positive is not None:
        notes.append(f"The positive class is {evaluation.positive}.")
    notes += evaluation.reading_notes
    if evaluation.absent:
        notes.append(f"Without a case, so in no average: {', '.join(evaluation.absent)}.")
    if len(evaluation.readings) > 1:
        notes.append("The numbers on top are those with test-time augmentation (TTA), which the predictions follow.")
    return notes


def _noticed(manifest: Manifest | None) -> list[str]:
    """Return what the import of the data has told, as a paragraph."""
    told = None if manifest is None else manifest.data.get(NOTICED)
    return [f"When the pictures became a data set: {told}."] if told else []


def _chosen_by_few(background: ReportContext) -> list[str]:
    """Return that few validation images chose the best epoch; nothing where a fold did, or nobody knows."""
    images = None if background.manifest is None else background.manifest.data.get("images")
    count = images.get("val") if isinstance(images, Mapping) else None
    data = background.config.get("data")
    folds = data.get("folds") if isinstance(data, Mapping) else None
    if not isinstance(count, int) or count >= FEW or folds is not None:
        return []
    return [
        f"The best epoch was chosen by {count:,} validation images, which is mostly chance, and so is the temperature; "
        "`visionforge fit --folds 5` validates on every image."
    ]


def class_table(evaluation: SplitEvaluation) -> Section:
    """Return the section with the metrics of each class, the rarest first unless they are grades; absent ones last."""
    found = evaluation.best.estimate
    shown = [name for name in PER_CLASS if name in found.per_class]
    rows = []
    absent = evaluation.absent
    graded = "grades" in evaluation.task.forms
    for k in range(len(evaluation.support)) if graded else rarest_first(evaluation.support):
        label = evaluation.spec.classes[k]
        if label in absent:
            rows.append([Cell(label), Cell("0", "number"), *(Cell("absent", "number") for _ in shown)])
            continue
        cells = [Cell(label), Cell(f"{evaluation.support[k]:,}", "number")]
        for name in shown:
            value = found.per_class[name][k]
            interval = interval_text(found.class_intervals[name][k], value) if name in found.class_intervals else ""
            cells.append(Cell(number(value, 3), "number", interval))
        rows.append(cells)
    heading = "{0} by {0}".format(evaluation.task.nouns[0]).capitalize()
    table = Table(headings(["", "cases", *(PER_CLASS[name] for name in shown)]), rows)
    notes = [] if graded else ["The rarest come first: an average says least of them."]
    return Section("classes", heading, notes=notes, table=table)


def rarest_first(cases: Sequence[int]) -> list[int]:
    """Return the numbers of classes by rising number of cases; those without any come last."""
    return sorted(range(len(cases)), key=lambda k: (cases[k] == 0, cases[k]))


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
