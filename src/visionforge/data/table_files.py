"""Tables that anybody has made, as rows of texts: CSV as spreadsheets write it, and Excel workbooks."""

import csv
import datetime
import warnings
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any
from xml.parsers import expat

from visionforge.data.listing import MAX_PROBLEMS, some
from visionforge.errors import DataError
from visionforge.printable import printable

WORKBOOK = ".xlsx"
TABLES = (".csv", WORKBOOK)  # suffixes
BETWEEN = {",": "commas", ";": "semicolons", "\t": "tabs"}  # cells, the first that the first line has
ENCODINGS = ("utf-8-sig", "cp1252")  # the second is what spreadsheets write that write no UTF-8
MAX_BYTES = 1 << 28  # of the file, and of what is packed in a workbook; some millions of rows
MAX_COLUMNS = 1_000  # of a workbook, whose rows are filled up to their last cell
MAX_ROWS = 1 << 20  # of a sheet, as many as Excel has
MAX_ELEMENTS = 100_000  # of XML in a row, in a text, or in what stands around them; each takes hundreds of bytes


@dataclass
class Row:
    """One row: the number of its line, and its cells by column."""

    line: int
    cells: dict[str, str]


@dataclass
class Problems:
    """What is wrong: lines of their own, kinds of which only the numbers of the lines are told, and paths outside."""

    lines: list[str] = field(default_factory=list)
    kinds: dict[str, list[int]] = field(default_factory=dict)
    outside: list[tuple[int, str]] = field(default_factory=list)  # number of the line, and its path

    def add(self, kind: str, line: int) -> None:
        """Note a problem of a line."""
        self.kinds.setdefault(kind, []).append(line)

    def told(self, source: Path) -> list[str]:
        """Return a line for every problem, or kind of problem."""
        grouped = [
            f"{source}, line{'s' if len(lines) > 1 else ''} {some(lines)}: {kind}" for kind, lines in self.kinds.items()
        ]
        if self.outside:
            line, path = self.outside[0]
            lie = "s lie" if len(self.outside) > 1 else " lies"
            grouped.append(
                f"{source}: {len(self.outside):,} path{lie} outside the folder of the table (the first, line {line}: "
                f"{path}); move the table to a folder above all pictures, and write the paths from there"
            )
        return [*grouped, *self.lines][:MAX_PROBLEMS]


@dataclass(frozen=True)
class TableFile:
    """What a table holds.

    Attributes:
        rows: Its rows below the heading; empty ones are skipped.
        decimal_commas: Whether its numbers may have commas, as commas divide no cells.
        notes: What must be known of how it was read.
    """

    rows: list[Row]
    decimal_commas: bool = False
    notes: list[str] = field(default_factory=list)


def read_table(source: Path) -> TableFile:
    """Return the rows of a CSV file or of the first sheet of a workbook, by the names in its first line.

    What is between the cells of a CSV file is a comma, or what stands in a first line without one: a semicolon or a
    tab. It is in UTF-8, or else in Windows-1252. Of a workbook, numbers, dates and results of formulas are texts.

    Args:
        source: The file, which may come from anybody.

    Raises:
        DataError: If it cannot be read, a column is there twice, or rows do not have the cells of the heading.
    """
    try:
        if not source.is_file():
            raise DataError(f"{source}: {'is no file' if source.exists() else 'no such file'}")
        size = source.stat().st_size
        if size > MAX_BYTES:
            raise DataError(f"{source}: has {size:,} bytes, more than {MAX_BYTES:,}")
        found = _workbook(source) if source.suffix.lower() == WORKBOOK else _csv(source)
    except OSError as error:
        raise DataError(f"{source}: cannot be read ({error})") from error
    if not found.rows:
        raise DataError(f"{source}: has no rows")
    return found


def _rows(source: Path, lines: Iterable[tuple[int, list[str]]], hint: str) -> Iterator[Row]:
    """Yield the rows below the heading.

    Args:
        source: The table.
        lines: Number and cells of every line.
        hint: What to do where there are not as many cells as columns.
    """
    lines = iter(lines)
    first = next((cells for _, cells in lines if any(cell.strip() for cell in cells)), [])
    header = [name.strip() for name in first]
    named = [name for name in header if name]
    twice = sorted({name for name in named if named.count(name) > 1})
    if twice:
        raise DataError(f"{source}: has the column {', '.join(twice)} more than once; rename one of them")
    problems = Problems()
    for number, cells in lines:
        if not any(cell.strip() for cell in cells):
            continue
        if len(cells) < len(header) or any(cell.strip() for cell in cells[len(header) :]):
            problems.add(f"not as many cells as the {len(header)} columns; {hint}", number)
            continue
        yield Row(number, {name: cell for name, cell in zip(header, cells, strict=False) if name})
    if told := problems.told(source):
        raise DataError(told)


# --- CSV


def _csv(source: Path) -> TableFile:
    try:
        try:
            return _decoded(source, ENCODINGS[0])
        except UnicodeDecodeError:
            found = _decoded(source, ENCODINGS[1])
    except UnicodeDecodeError as error:
        raise DataError(f"{source}: is not in UTF-8 ({error.reason}); save it as CSV UTF-8") from error
    except csv.Error as error:
        raise DataError(f"{source}: cannot be read as CSV ({error})") from error
    found.notes.append(f"{source} is not in UTF-8; it was read as {ENCODINGS[1]}: look at names with accents")
    return found


def _decoded(source: Path, encoding: str) -> TableFile:
    with source.open(newline="", encoding=encoding) as file:
        first = file.readline(csv.field_size_limit())
        file.seek(0)
        between = next((sign for sign in BETWEEN if sign in first), ",")
        reader = csv.reader(file, delimiter=between)
        lines = ((reader.line_num, cells) for cells in reader)
        hint = f"put texts with {BETWEEN[between]} into quotation marks"
        return TableFile(list(_rows(source, lines, hint)), between != ",")


# --- workbooks


def _workbook(source: Path) -> TableFile:
    """Return the rows of the first sheet that is shown."""
    import openpyxl

    try:
        with zipfile.ZipFile(source) as packed:
            unpacked = sum(entry.file_size for entry in packed.infolist())
            if unpacked > MAX_BYTES:
                raise DataError(f"{source}: holds {unpacked:,} bytes, more than {MAX_BYTES:,}")
            for entry in packed.infolist():
                if entry.filename.endswith((".xml", ".rels")):
                    with packed.open(entry) as part:
                        _Bounds(source).check(part)
        with warnings.catch_warnings(action="ignore"):  # of colours and lists of choices, which are not read
            book = openpyxl.load_workbook(source, read_only=True, data_only=True, keep_links=False)
            try:
                sheets = [sheet for sheet in book.worksheets if sheet.sheet_state == "visible"] or book.worksheets
                rows = list(_rows(source, _lines(source, sheets[0]), "give every column with values a heading"))
                notes = [f"of the {len(sheets)} sheets of {source} the first was read, {printable(sheets[0].title)}"]
                return TableFile(rows, notes=notes if len(sheets) > 1 else [])
            finally:
                book.close()
    except (DataError, OSError, MemoryError):
        raise
    except Exception as error:  # a damaged or foreign file makes openpyxl and the XML parser raise almost anything
        raise DataError(f"{source}: cannot be read as a workbook ({type(error).__name__}); save it as CSV") from error


class _Bounds:
    """Looks through XML before it is built: how much of it is held at a time, and that it names no entities."""

    def __init__(self, source: Path) -> None:
        self._source = source
        self._inside = self._rows = 0

    def check(self, part: IO[bytes]) -> None:
        """Raise DataError if it is more than a workbook has."""
        parser = expat.ParserCreate()
        parser.StartElementHandler = self._element
        parser.StartDoctypeDeclHandler = self._refuse
        parser.ParseFile(part)

    def _element(self, name: str, _: object) -> None:
        self._inside += 1
        if name.rpartition(":")[2] in ("row", "si"):  # what is read and forgotten, one after the other
            self._inside, self._rows = 0, self._rows + 1
        if self._inside > MAX_ELEMENTS or self._rows > MAX_ROWS:
            self._refuse()

    def _refuse(self, *_: object) -> None:
        raise DataError(f"{self._source}: holds more than a table has; save it as CSV")


def _lines(source: Path, sheet: Any) -> Iterator[tuple[int, list[str]]]:
    sheet.reset_dimensions()  # which a file may state as it likes
    width = 0
    for number, cells in enumerate(sheet.iter_rows(values_only=True), start=1):
        if len(cells) > MAX_COLUMNS:
            raise DataError(f"{source}, line {number}: {len(cells):,} columns, more than {MAX_COLUMNS:,}")
        texts = [_text(cell) for cell in cells]
        while texts and not texts[-1]:
            texts.pop()
        width = width or len(texts)
        yield number, texts + [""] * (width - len(texts))


def _text(value: Any) -> str:
    """Return what a cell shows, as a CSV file of it would say it."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).upper()
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    if isinstance(value, datetime.datetime) and value.time() == datetime.time():
        return value.date().isoformat()
    return str(value)
