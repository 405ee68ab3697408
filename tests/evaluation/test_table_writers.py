"""Tables are the same in every format, whole or not there, and as long as one likes."""

import csv
import importlib.util
import json

import numpy as np
import openpyxl
import pandas as pd
import pytest
from pyarrow import parquet

from visionforge.errors import RunError, SettingsError
from visionforge.evaluation import table_writers
from visionforge.evaluation.table_writers import (
    ROW_GROUP,
    Column,
    cell_safe,
    cell_text,
    open_table,
    read_table,
    require_format,
)
from visionforge.printable import csv_text

COLUMNS = [Column("path"), Column("prediction", "integer"), Column("probability_a b", "number")]
FORMATS = ("csv", "parquet", "jsonl", "xlsx")
NAMES = ['a,"b".png', "naïve/猫.png", "two\nlines.png", "=1+1.png", ""]


def rows(count):
    values = np.random.default_rng(0).random(count, dtype=np.float32)
    return [[NAMES[k % len(NAMES)], k, float(value)] for k, value in enumerate(values)]


def written(path, content, step=100):
    with open_table(path, COLUMNS) as table:
        for start in range(0, len(content), step):
            table.write(content[start : start + step])
    return path


def read(path):
    if path.suffix == ".csv":
        return pd.read_csv(path, keep_default_na=False)
    if path.suffix == ".xlsx":
        return pd.read_excel(path, keep_default_na=False)
    return pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_json(path, lines=True)


@pytest.mark.parametrize("suffix", FORMATS)
def test_every_format_gives_back_what_was_written(tmp_path, suffix):
    content = rows(503)
    table = read(written(tmp_path / f"x.{suffix}", content))
    assert list(table.columns) == [column.name for column in COLUMNS]
    paths = [cell_text(cell) for cell in table["path"]] if suffix in ("csv", "xlsx") else table["path"].tolist()
    assert paths == [row[0] for row in content]
    assert table["prediction"].tolist() == [row[1] for row in content]
    assert table["probability_a b"].astype(np.float32).tolist() == [row[2] for row in content]  # bit for bit
    assert [path.name for path in tmp_path.iterdir()] == [f"x.{suffix}"]


@pytest.mark.parametrize("suffix", FORMATS)
def test_empty_table_has_its_columns(tmp_path, suffix):
    path = written(tmp_path / f"x.{suffix}", [])
    if suffix == "jsonl":
        assert path.read_bytes() == b""
    else:
        assert list(read(path).columns) == [column.name for column in COLUMNS]


def test_parquet_keeps_a_row_group_at_most(tmp_path):
    count = 2 * ROW_GROUP + 5
    file = parquet.ParquetFile(written(tmp_path / "x.parquet", rows(count), step=1000))
    assert [file.metadata.row_group(k).num_rows for k in range(file.num_row_groups)] == [ROW_GROUP, ROW_GROUP, 5]
    assert [str(field.type) for field in file.schema_arrow] == ["string", "int64", "float"]


def test_json_lines_are_json(tmp_path):
    lines = written(tmp_path / "x.jsonl", rows(5)).read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["path"] for line in lines] == NAMES
    assert "猫" in lines[1]


def test_csv_is_read_by_the_standard_library(tmp_path):
    with written(tmp_path / "x.csv", rows(5)).open(newline="", encoding="utf-8") as file:
        paths = [row["path"] for row in csv.DictReader(file)]
    assert [cell_text(path) for path in paths] == NAMES
    assert "'=1+1.png" in paths  # no spreadsheet takes it for a formula


def test_no_line_begins_within_a_cell(tmp_path):
    name = "a\r=1+1.png"  # a file may be called so
    with open_table(tmp_path / "x.csv", COLUMNS) as table:
        table.write([[name, *rows(1)[0][1:]]])
    with (tmp_path / "x.csv").open(newline="", encoding="utf-8") as file:
        (row,) = csv.DictReader(file)
    assert row["path"] == name
    assert read_table(tmp_path / "x.csv", ["path"])["path"].tolist() == [name]
    assert csv_text([["a\nb", None, 1.5], ['"', "a,b", "c\r\nd"]]) == '"a\nb",,1.5\n"""","a,b","c\r\nd"\n'


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@x", "\tx", "\rx", "'=1", "''-1", "'x", "x=1", "", "a\udcffb"])
def test_no_cell_begins_a_formula_and_every_text_is_found_again(text):
    cell = cell_safe(text)
    assert cell[:1] not in ("=", "+", "-", "@", "\t", "\r")
    assert cell_text(cell) == text.replace("\udcff", "\\udcff")
    cell.encode("utf-8")


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_nothing_is_left_of_an_interrupted_table(tmp_path, suffix, error):
    path = tmp_path / f"x.{suffix}"
    path.write_text("what was there before")
    with pytest.raises(error, match="stop"), open_table(path, COLUMNS) as table:  # noqa: PT012
        table.write(rows(20_000))
        raise error("stop")
    assert [(each.name, each.read_text()) for each in tmp_path.iterdir()] == [(path.name, "what was there before")]


@pytest.mark.parametrize(
    ("suffix", "row", "complaint"),
    [
        ("jsonl", ["a", 1, float("nan")], "not JSON compliant"),
        ("jsonl", ["a", 1, 0.5, 0.5], "longer"),
        ("parquet", ["a", "one", 0.5], "convert"),
        ("parquet", ["a", 1, 0.5, 0.5], "shorter"),
    ],
)
def test_row_that_does_not_fit_is_refused(tmp_path, suffix, row, complaint):
    with pytest.raises(ValueError, match=complaint):
        written(tmp_path / f"x.{suffix}", [row])
    assert not list(tmp_path.iterdir())


def test_a_spreadsheet_says_how_much_it_holds(tmp_path, monkeypatch):
    monkeypatch.setattr(table_writers, "MOST_ROWS", 50)
    written(tmp_path / "fits.xlsx", rows(49), step=7)
    with pytest.raises(RunError, match=r"a spreadsheet holds 49 rows at most; write .csv, .parquet or .jsonl"):
        written(tmp_path / "x.xlsx", rows(50), step=7)
    assert [path.name for path in tmp_path.iterdir()] == ["fits.xlsx"]


def test_a_spreadsheet_has_plain_cells(tmp_path):
    path = written(tmp_path / "x.xlsx", [["=1+1\x07", 3, float("nan")]])
    sheet = openpyxl.load_workbook(path).active
    assert [cell.value for cell in sheet[2]] == ["'=1+1\N{REPLACEMENT CHARACTER}", 3, None]
    assert sheet.freeze_panes == "B2"
    assert sheet["A1"].font.bold


@pytest.mark.parametrize("name", ["x.txt", "x", "x.csv.gz"])
def test_unknown_suffix_is_one_line(tmp_path, name):
    with pytest.raises(SettingsError) as caught:
        require_format(tmp_path / name)
    (line,) = caught.value.problems
    assert line.endswith("allowed: .csv, .parquet, .jsonl, .xlsx")


def test_missing_pyarrow_is_one_line(monkeypatch, tmp_path):
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "pyarrow" else real(name))
    require_format(tmp_path / "x.csv")
    with pytest.raises(SettingsError) as caught:
        require_format(tmp_path / "x.parquet")
    (line,) = caught.value.problems
    assert line.endswith('needs the package pyarrow: pip install "visionforge-lightning[parquet]"')
