"""`training_summary.xlsx`: the numbers of a run for people who work in spreadsheets; numbers are numbers."""

import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from textwrap import wrap
from typing import Any

from openpyxl import Workbook
from openpyxl.cell import WriteOnlyCell
from openpyxl.styles import Alignment, Font, PatternFill
from openpyxl.utils import get_column_letter

from visionforge.evaluation.evaluation import SplitEvaluation
from visionforge.evaluation.metric_names import (
    NO_INTERVAL,
    PER_CLASS,
    READINGS,
    TOO_FEW,
    labels_of_metrics,
    methods_text,
    metric_name,
)
from visionforge.evaluation.subgroups import Subgroups
from visionforge.evaluation.table_writers import sheet_text
from visionforge.reporting.context import ReportContext, changed_settings, origin_rows
from visionforge.reporting.presentation import Presentation
from visionforge.reporting.sections import rarest_first
from visionforge.runs.files import write_atomic
from visionforge.runs.query import flat

_HEAD = Font(name="Calibri", bold=True, color="FFFFFF")  # that of the other cells; without a name some take another
_HEAD_FILL = PatternFill("solid", fgColor="2F4B7C")
_CHANGED_FILL = PatternFill("solid", fgColor="FFF3CD")
_WIDEST = 60
_HEAD_WIDTH = 16  # characters, after which a heading is broken into lines
_LINE_HEIGHT = 15  # points
_LONGEST_LINE = 90  # characters of a text that runs over the cells beside it
_MOST_COLUMNS = 16  # that are printed on one page
_BOOLEAN = '"TRUE";"TRUE";"FALSE"'  # without which LibreOffice shows 1 and 0
_MEASURED_ROWS = 200  # a column is as wide as what its first rows need
_FACTS = {"": "data set", "at": "resolution"}  # of a report's second line, where they need no names
MAX_ROWS = 1_048_575  # of a worksheet, without the heading

Row = Sequence[Any]


class _Sheet:
    """One worksheet with a frozen, filtered heading, written row by row.

    Args:
        book: Where it goes.
        title: Its name.
        headings: Of the columns.
        rows: What stands below.
        measured: The numbers are measured ones, of which four digits are shown.
    """

    def __init__(
        self, book: Workbook, title: str, headings: Sequence[str], rows: Iterable[Row], measured: bool = True
    ) -> None:
        listed = list(rows)[:MAX_ROWS]
        self._measured = measured
        self._sheet = book.create_sheet(title)
        self._sheet.freeze_panes = "B2"
        lines = 1
        for index, heading in enumerate(headings):
            broken = wrap(heading, _HEAD_WIDTH, break_long_words=False)
            # the last text of a short row runs over the empty cells beside it
            texts = [
                _text(row[index]) for row in listed[:_MEASURED_ROWS] if index < len(row) - (len(row) < len(headings))
            ]
            width = max(map(len, [*broken, *texts])) + 3
            self._sheet.column_dimensions[get_column_letter(index + 1)].width = min(_WIDEST, width)
            lines = max(lines, len(broken))
        self._sheet.row_dimensions[1].height = lines * _LINE_HEIGHT
        self._print_well(len(headings))
        self._sheet.auto_filter.ref = f"A1:{get_column_letter(len(headings))}{len(listed) + 1}"
        self._append(headings, head=True)
        for row in listed:
            self._append(row)

    def _print_well(self, columns: int) -> None:
        """Let the columns be printed beside each other, as long as they can be read, and the heading on every page."""
        self._sheet.print_title_rows = "1:1"
        self._sheet.page_setup.orientation = "landscape"
        if columns <= _MOST_COLUMNS:
            self._sheet.sheet_properties.pageSetUpPr.fitToPage = True
            self._sheet.page_setup.fitToHeight = 0

    def _append(self, row: Row, head: bool = False) -> None:
        self._sheet.append([self._cell(value, head) for value in row])

    def _cell(self, value: Any, head: bool) -> Any:
        if isinstance(value, Changed):
            cell = self._numbered(_plain(value.value))
            cell.fill = _CHANGED_FILL
            return cell
        if head:
            cell = WriteOnlyCell(self._sheet, value)
            cell.font, cell.fill, cell.alignment = _HEAD, _HEAD_FILL, Alignment(vertical="center", wrap_text=True)
            return cell
        plain = _plain(value)
        return self._numbered(plain) if isinstance(plain, bool | float) else plain

    def _numbered(self, value: Any) -> Any:
        """Return a cell in which a number has the form that it is read in."""
        cell = WriteOnlyCell(self._sheet, value)
        if isinstance(value, bool):
            cell.number_format = _BOOLEAN
        elif isinstance(value, float) and self._measured:
            cell.number_format = "0.0000" if 1e-3 <= abs(value) < 1e4 or value == 0 else "0.00E+00"
        return cell


class Changed:
    """A value that is not the default; its cell is coloured.

    Args:
        value: The value.
    """

    def __init__(self, value: Any) -> None:
        self.value = value

    def __str__(self) -> str:
        return str(self.value)


def _plain(value: Any) -> Any:
    """Return what a cell can hold: numbers stay numbers, text is never taken for a formula."""
    if value is None or isinstance(value, bool | int | float):
        return value
    return sheet_text(str(value))


def _text(value: Any) -> str:
    return f"{value:.4f}" if isinstance(value, float) else "" if value is None else str(value)


def write_summary(path: Path, evaluation: SplitEvaluation, shown: Presentation) -> None:
    """Write the workbook with the sheets Summary, Per class, Epochs, Predictions, Configuration and Environment.

    Where something is known of the images, there are Subgroups and Subgroup gaps, too.

    Args:
        path: The file.
        evaluation: The numbers.
        shown: What the task shows of them; settings, epochs and origin.
    """
    background = shown.background
    book = Workbook(write_only=True)
    _Sheet(book, "Summary", *_summary(evaluation, background))
    _Sheet(book, "Per class", *_per_class(evaluation))
    if evaluation.subgroups is not None:
        _Sheet(book, "Subgroups", *_subgroups(evaluation, evaluation.subgroups))
        _Sheet(book, "Subgroup gaps", *_gaps(evaluation, evaluation.subgroups))
    _Sheet(book, "Epochs", *_epochs(background.epochs))
    _Sheet(book, "Predictions", *shown.predictions())
    _Sheet(book, "Configuration", *_configuration(background), measured=False)
    _Sheet(book, "Environment", ["group", "name", "value"], origin_rows(background))
    buffer = io.BytesIO()
    book.save(buffer)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, buffer.getvalue())


def _summary(evaluation: SplitEvaluation, background: ReportContext) -> tuple[list[str], list[Row]]:
    headings = ["metric"]
    for name in evaluation.readings:
        headings += [READINGS[name], f"{READINGS[name]}, from", f"{READINGS[name]}, to"]
    rows: list[Row] = []
    labels = labels_of_metrics()
    for metric in labels:
        if metric not in evaluation.metrics("without_tta"):
            continue
        row: list[Any] = [metric_name(metric, evaluation.positive)]
        for name, reading in evaluation.readings.items():
            value, intervals = evaluation.metrics(name).get(metric), reading.estimate.intervals
            row += [value, *_ends(intervals[metric], value)] if metric in intervals else [value, None, None]
        rows.append(row)
    for label, values in (*evaluation.further, *evaluation.tempered):
        row = [label]
        for name in evaluation.readings:
            row += [values[name], None, None]
        rows.append(row)
    facts = {_FACTS.get(name, name): text for name, text in background.facts.items()}
    rows += [[name, text] for name, text in {"run": background.title, **facts}.items()]
    rows.append(["images", len(evaluation.labels)])
    if evaluation.partial is not None:
        rows.append(["partial evaluation", str(evaluation.partial)])
    if evaluation.positive is not None:
        rows.append(["positive class", evaluation.positive])
    if evaluation.some_unknown:
        rows.append([NO_INTERVAL, TOO_FEW.removeprefix(f"{NO_INTERVAL}: ")])
    rows.append(["classes without a case", ", ".join(evaluation.absent) or "none"])
    rows.append(["bootstrap resamples", evaluation.settings.resamples])
    rows.append(["confidence of the intervals", evaluation.settings.confidence])
    if evaluation.settings.resamples:
        first, *more = wrap(methods_text(evaluation.best.estimate.methods), _LONGEST_LINE)
        rows += [["methods of the intervals", first], *([None, line] for line in more)]
    return headings, rows


def _per_class(evaluation: SplitEvaluation) -> tuple[list[str], list[Row]]:
    readings = evaluation.readings
    metrics = [name for name in PER_CLASS if name in readings["without_tta"].estimate.per_class]
    headings = ["class", "cases"]
    for name in readings:
        for metric in metrics:
            label = f"{PER_CLASS[metric]}, {READINGS[name]}"
            headings += [label, f"{label}, from", f"{label}, to"]
    rows: list[Row] = []
    absent = evaluation.absent
    for k, label in enumerate(evaluation.spec.classes):
        row: list[Any] = [label, evaluation.support[k]]
        for reading in readings.values():
            for metric in metrics:
                ends, value = reading.estimate.class_intervals.get(metric), reading.estimate.per_class[metric][k]
                if label not in absent:
                    row += [value, *((None, None) if ends is None else _ends(ends[k], value))]
                else:
                    row += ["absent", None, None]
        rows.append(row)
    return headings, rows


def _subgroups(evaluation: SplitEvaluation, found: Subgroups) -> tuple[list[str], list[Row]]:
    """Return a row for each metric of a subgroup, and for the recall of each class in it, the rarest class first."""
    headings = ["column", "subgroup", "images", "metric", "class", "cases", "value", "from", "to"]
    recall = PER_CLASS[found.recall]
    rows: list[Row] = []
    for column in found.columns:
        for each in column.subgroups:
            key, known = [column.column, each.name, each.images], each.estimate
            for name in found.metrics:
                value, intervals = known.overall[name], known.intervals
                ends = _ends(intervals[name], value) if name in intervals else (None, None)
                rows.append([*key, metric_name(name, evaluation.positive), None, each.images, value, *ends])
            for k in rarest_first(evaluation.support):
                value, by_class = known.per_class[found.recall][k], known.class_intervals.get(found.recall)
                ends = (None, None) if by_class is None else _ends(by_class[k], value)
                rows.append([*key, recall, evaluation.spec.classes[k], each.cases[k], value, *ends])
    rows += [[column, reason] for column, reason in found.left_out.items()]
    return headings, rows


def _gaps(evaluation: SplitEvaluation, found: Subgroups) -> tuple[list[str], list[Row]]:
    headings = ["column", "metric", "lowest", "highest", "gap", "from", "to", "gap by chance", "p", "p (Holm)"]
    rows: list[Row] = []
    for column, gap in found.gaps:
        ends = _ends(gap.interval, gap.value) if found.permutations else (None, None)
        names = [column.column, metric_name(gap.metric, evaluation.positive), gap.lowest, gap.highest]
        rows.append([*names, gap.value, *ends, gap.by_chance, gap.p, gap.adjusted])
    return headings, rows


def _ends(ends: tuple[float, float] | None, value: float | None) -> tuple[Any, Any]:
    """Return the two cells of an interval; see `interval_text`."""
    return ends or ((None, None) if value is None else (NO_INTERVAL, NO_INTERVAL))


def _epochs(rows: Sequence[Mapping[str, float]]) -> tuple[list[str], list[Row]]:
    columns = list(dict.fromkeys(name for row in rows for name in row)) or ["epoch"]
    return columns, [[int(row["epoch"]) + 1, *(row.get(name) for name in columns if name != "epoch")] for row in rows]


def _configuration(background: ReportContext) -> tuple[list[str], list[Row]]:
    changed = changed_settings(background)
    rows: list[Row] = []
    for path, value in flat(background.config):
        shown = value if isinstance(value, bool | int | float | None) else str(value)
        default = changed[path][0] if path in changed else shown
        default = default if isinstance(default, bool | int | float | None) else str(default)
        rows.append([path, Changed(shown) if path in changed else shown, default])
    return ["setting", "value", "default"], rows
