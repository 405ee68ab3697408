"""Tables as CSV, Parquet, JSON Lines or a spreadsheet, written row by row; the file appears whole or not at all."""

import contextlib
import importlib.util
import io
import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal, Protocol

from visionforge.data.side_table import well_formed
from visionforge.distribution import how_to_install
from visionforge.errors import RunError, SettingsError
from visionforge.printable import csv_text
from visionforge.reading import read_text
from visionforge.runs.files import replacing

if TYPE_CHECKING:
    import pandas as pd

Cell = str | int | float
MOST_TABLE_BYTES = 2_000_000_000  # that are read
_FORMULA = tuple("=+-@\t\r")
MOST_ROWS, MOST_LETTERS = 1 << 20, 32_000  # of a spreadsheet, and of one of its cells
_WIDTHS = (14, 40)  # letters, of a column and of the first, which has paths
ROW_GROUP = 8192  # rows of a Parquet row group: what is kept in memory, and what a reader may skip


def cell_safe(text: str) -> str:
    """Return a text that no spreadsheet takes for a formula, and that every encoding can hold.

    One that begins with ``=``, ``+``, ``-``, ``@``, a tab or a carriage return gets an apostrophe in front, as
    spreadsheets write text; so does one that begins with apostrophes and then such a character, so that `cell_text`
    finds the text again.

    >>> cell_safe("=1+1"), cell_safe("1+1")
    ("'=1+1", '1+1')
    """
    text = well_formed(text)
    return f"'{text}" if text.lstrip("'")[:1] in _FORMULA else text


def cell_text(cell: str) -> str:
    """Return the text of which `cell_safe` made a cell."""
    return cell[1:] if cell[:1] == "'" and cell.lstrip("'")[:1] in _FORMULA else cell


def sheet_text(text: str) -> str:
    """Return a text as a cell of a spreadsheet holds it: no formula, no control character, and not too long."""
    from openpyxl.cell.cell import ILLEGAL_CHARACTERS_RE

    return cell_safe(ILLEGAL_CHARACTERS_RE.sub("\N{REPLACEMENT CHARACTER}", text)[:MOST_LETTERS])


def with_texts(table: "pd.DataFrame", texts: Sequence[str]) -> "pd.DataFrame":
    """Return a table whose columns of text, of those that it has, hold the texts of which `cell_safe` made cells."""
    return table.assign(**{name: table[name].map(cell_text) for name in texts if name in table})


def read_table(path: Path, texts: Sequence[str], max_bytes: int = MOST_TABLE_BYTES) -> "pd.DataFrame":
    """Return a CSV table; columns of text hold the texts of which `cell_safe` made their cells.

    Args:
        path: The file.
        texts: Columns of text, of those that it has; none says that all are numbers, and an empty cell is no number.
        max_bytes: The largest that is read.

    Raises:
        RunError: If it is not there, or cannot be read.
    """
    import pandas as pd

    try:
        text = io.StringIO(read_text(path, max_bytes))
        table = pd.read_csv(text, dtype=dict.fromkeys(texts, str), keep_default_na=not texts)
    except (OSError, ValueError) as error:
        raise RunError(f"{path}: cannot be read as a table ({error})") from error
    return with_texts(table, texts)


@dataclass(frozen=True)
class Column:
    """One column of a table.

    Attributes:
        name: Its heading.
        kind: Its cells: text, a whole number, a float32 number, or a truth value.
    """

    name: str
    kind: Literal["text", "integer", "number", "boolean"] = "text"


class TableWriter(Protocol):
    """Takes the rows of a table."""

    def write(self, rows: Sequence[Sequence[Cell]]) -> None:
        """Add rows, each with a cell per column."""

    def close(self) -> None:
        """Write what is still kept; the file itself is left open."""


def require_format(path: Path, where: str = "out") -> None:
    """Check that a table can be written in the format that the file's suffix means.

    Args:
        path: The file.
        where: What it was given as, for messages.

    Raises:
        SettingsError: If the suffix means none, or a package is missing.
    """
    if path.suffix.lower() not in _WRITERS:
        raise SettingsError(
            f"{where}: {path} has the suffix {path.suffix!r}, which means no table; allowed: {', '.join(_WRITERS)}"
        )
    if path.suffix.lower() == ".parquet" and importlib.util.find_spec("pyarrow") is None:
        raise SettingsError(f"{where}: {path} needs the package pyarrow: {how_to_install('parquet')}")


@contextlib.contextmanager
def open_table(path: Path, columns: Sequence[Column]) -> Iterator[TableWriter]:
    """Write a table beside its place, and put it there when the block ends without an error.

    Args:
        path: The file; its suffix chooses the format: `.csv`, `.parquet`, `.jsonl` or `.xlsx`.
        columns: The columns, whose names differ.

    Raises:
        SettingsError: If the suffix means no format, or a package is missing.
        OSError: If the file cannot be written.
    """
    require_format(path)
    with replacing(path) as (file, _):
        writer = _WRITERS[path.suffix.lower()](file, columns)
        try:
            yield writer
        except BaseException:
            with contextlib.suppress(Exception):  # the file is thrown away, and the first error is the one to tell
                writer.close()
            raise
        writer.close()


class CsvWriter:
    """Writes CSV; numbers have the nine digits that a float32 needs, and no text is taken for a formula.

    Args:
        file: Where to write.
        columns: The columns.
    """

    def __init__(self, file: IO[bytes], columns: Sequence[Column]) -> None:
        self._file = file
        self._write_lines([[well_formed(column.name) for column in columns]])

    def write(self, rows: Sequence[Sequence[Cell]]) -> None:
        """Add rows."""
        self._write_lines([[_csv_cell(cell) for cell in row] for row in rows])

    def _write_lines(self, rows: Sequence[Sequence[Cell]]) -> None:
        self._file.write(csv_text(rows).encode("utf-8"))

    def close(self) -> None:
        """Do nothing: no row is kept."""


def _csv_cell(cell: Cell) -> Cell:
    if isinstance(cell, bool):
        return "true" if cell else "false"
    if isinstance(cell, float):
        return f"{cell:.9g}"
    return cell_safe(cell) if isinstance(cell, str) else cell


class JsonLinesWriter:
    """Writes a JSON object per line; numbers that are not finite are refused with ValueError, JSON has none.

    Args:
        file: Where to write.
        columns: The columns.
    """

    def __init__(self, file: IO[bytes], columns: Sequence[Column]) -> None:
        self._file = file
        self._names = [well_formed(column.name) for column in columns]

    def write(self, rows: Sequence[Sequence[Cell]]) -> None:
        """Add rows."""
        for row in rows:
            cells = (float(f"{cell:.9g}") if isinstance(cell, float) else _encodable(cell) for cell in row)
            content = dict(zip(self._names, cells, strict=True))
            self._file.write(f"{json.dumps(content, ensure_ascii=False, allow_nan=False)}\n".encode())

    def close(self) -> None:
        """Do nothing: no row is kept."""


def _encodable(cell: Cell) -> Cell:
    return well_formed(cell) if isinstance(cell, str) else cell


class ParquetWriter:
    """Writes Parquet with row groups of some thousand rows.

    Args:
        file: Where to write.
        columns: The columns.
    """

    def __init__(self, file: IO[bytes], columns: Sequence[Column]) -> None:
        import pyarrow as pa
        from pyarrow import parquet

        kinds = {"text": pa.string(), "integer": pa.int64(), "number": pa.float32(), "boolean": pa.bool_()}
        self._schema = pa.schema(
            [pa.field(well_formed(column.name), kinds[column.kind], nullable=False) for column in columns]
        )
        self._writer = parquet.ParquetWriter(file, self._schema)
        self._rows: list[Sequence[Cell]] = []

    def write(self, rows: Sequence[Sequence[Cell]]) -> None:
        """Add rows."""
        self._rows += [[_encodable(cell) for cell in row] for row in rows]
        while len(self._rows) >= ROW_GROUP:
            self._flush(ROW_GROUP)

    def _flush(self, count: int) -> None:
        import pyarrow as pa

        part, self._rows = self._rows[:count], self._rows[count:]
        cells: list[Sequence[Any]] = list(zip(*part, strict=True))
        arrays = [pa.array(values, field.type) for values, field in zip(cells, self._schema, strict=True)]
        self._writer.write_table(pa.Table.from_arrays(arrays, schema=self._schema), row_group_size=count)

    def close(self) -> None:
        """Write the last rows and the index of the file."""
        try:
            if self._rows:
                self._flush(len(self._rows))
        finally:
            self._writer.close()


class SpreadsheetWriter:
    """Writes an Excel file of one sheet whose headings stay in sight; no text is taken for a formula.

    Args:
        file: Where to write.
        columns: The columns.
    """

    def __init__(self, file: IO[bytes], columns: Sequence[Column]) -> None:
        from openpyxl import Workbook
        from openpyxl.cell import WriteOnlyCell
        from openpyxl.styles import Font
        from openpyxl.utils import get_column_letter

        self._file, self._book, self._rows = file, Workbook(write_only=True), 1
        self._sheet: Any = self._book.create_sheet("predictions")
        self._sheet.freeze_panes = "B2"
        headings = []
        for place, column in enumerate(columns, start=1):
            heading = WriteOnlyCell(self._sheet, _sheet_cell(column.name))
            heading.font = Font(bold=True)
            headings.append(heading)
            width = _WIDTHS[0] if place > 1 else _WIDTHS[1]
            self._sheet.column_dimensions[get_column_letter(place)].width = max(width, len(column.name) + 2)
        self._sheet.append(headings)

    def write(self, rows: Sequence[Sequence[Cell]]) -> None:
        """Add rows.

        Raises:
            RunError: If there are more than such a file holds.
        """
        self._rows += len(rows)
        if self._rows > MOST_ROWS:
            raise RunError(f"a spreadsheet holds {MOST_ROWS - 1:,} rows at most; write .csv, .parquet or .jsonl")
        for row in rows:
            self._sheet.append([_sheet_cell(cell) for cell in row])

    def close(self) -> None:
        """Write the file."""
        self._book.save(self._file)


def _sheet_cell(cell: Cell) -> Cell | None:
    if isinstance(cell, str):
        return sheet_text(cell)
    if isinstance(cell, float):
        return float(f"{cell:.9g}") if math.isfinite(cell) else None
    return cell


_WRITERS: dict[str, Callable[[IO[bytes], Sequence[Column]], TableWriter]] = {
    ".csv": CsvWriter,
    ".parquet": ParquetWriter,
    ".jsonl": JsonLinesWriter,
    ".xlsx": SpreadsheetWriter,
}
FORMATS = (".csv", ".parquet", ".jsonl")  # suffixes of tables of any length and width
