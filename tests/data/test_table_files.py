"""Tables are texts by column, whether a CSV file or a workbook says so; those of strangers are bounded."""

import datetime
import io
import zipfile

import openpyxl
import pytest

from tests.data.test_listing import imported, pictures
from tests.security.harness import attack, refused
from visionforge.data import table_files
from visionforge.data.table_files import read_table
from visionforge.errors import DataError


def workbook(path, rows, sheets=(), hidden=False):
    """Write a workbook; what stands on further sheets says nothing."""
    book = openpyxl.Workbook()
    sheet = book.active
    if hidden:
        sheet.sheet_state = "hidden"
        sheet.append(["these", "are", "notes"])
        sheet = book.create_sheet("data")
    for row in rows:
        sheet.append(row)
    for name in sheets:
        book.create_sheet(name).append(["another", "table"])
    book.save(path)
    return path


def cells(path):
    return [row.cells for row in read_table(path).rows]


def test_cells_are_what_a_csv_file_would_say(tmp_path):
    heading = ["path", "label", "age", "weight", "seen", "at", "smoker", "note", None]
    day, moment = datetime.datetime(2024, 3, 1), datetime.datetime(2024, 3, 1, 8, 30)
    path = workbook(tmp_path / "t.xlsx", [[], heading, ["a.png", " cat", 61, 70.5, day, moment, True, "=1+1", None]])
    assert cells(path) == [
        {
            **{"path": "a.png", "label": " cat", "age": "61", "weight": "70.5", "seen": "2024-03-01"},
            **{"at": "2024-03-01 08:30:00", "smoker": "TRUE", "note": ""},  # of a formula that nobody has computed
        }
    ]
    assert read_table(path).rows[0].line == 3


def test_the_first_sheet_that_is_shown_is_read(tmp_path):
    rows = [["path", "label"], ["a.png", "cat"], [], ["b.png"]]
    for hidden in (False, True):
        path = workbook(tmp_path / "t.xlsx", rows, ("other",), hidden)
        assert cells(path) == [{"path": "a.png", "label": "cat"}, {"path": "b.png", "label": ""}]
        (note,) = read_table(path).notes
        assert note.startswith("of the 2 sheets of ")
        assert note.endswith(f"the first was read, {'data' if hidden else 'Sheet'}")


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ([], "has no rows"),
        ([["path", "label"]], "has no rows"),
        ([["path", "path"], ["a", "b"]], "has the column path more than once; rename one of them"),
        (
            [["path", "label"], ["a", "b", "c"]],
            "line 2: not as many cells as the 2 columns; give every column with values a heading",
        ),
    ],
)
def test_sheets_that_are_no_tables_are_told(tmp_path, rows, told):
    path = workbook(tmp_path / "t.xlsx", rows)
    with pytest.raises(DataError) as caught:
        read_table(path)
    assert told in str(caught.value)


def test_an_import_of_a_workbook_is_that_of_the_same_csv_file(tmp_path):
    pictures(tmp_path / "pics", count=30)
    rows = [["file", "Label", "patient", "age"]]
    rows += [[f"pics\\{k}.png", "cat" if k % 2 else "dog", k // 3, 40 + k] for k in range(30)]
    (tmp_path / "t.csv").write_text("\n".join(",".join(map(str, row)) for row in rows))
    workbook(tmp_path / "t.xlsx", rows)
    reports = [imported(tmp_path / f"t.{kind}", group_column="patient", columns="age") for kind in ("csv", "xlsx")]
    one, two = (report.info.model_dump(exclude={"made_from", "description"}) for report in reports)
    assert one == two  # the sum of the archive is part of it


def damaged_workbook(kind, path):
    whole = workbook(path, [["path", "label"], ["a.png", "cat"]]).read_bytes()
    sheet = "xl/worksheets/sheet1.xml"
    begin = '<worksheet xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main">'
    replaced = {
        "far": f'{begin}<sheetData><row r="1048576"><c r="XFD1048576"><v>1</v></c></row></sheetData></worksheet>',
        "rows": f"{begin}<sheetData>" + "<row/>" * 3_000_000 + "</sheetData></worksheet>",
        "many": f"{begin}<sheetData>" + "<row>" + "<c><v>1</v></c>" * 3_000_000 + "</row></sheetData></worksheet>",
        "laughs": '<!DOCTYPE w [<!ENTITY a "aaaaaaaaaa">'
        + "".join(
            f'<!ENTITY {name} "{f"&{before};" * 10}">' for before, name in zip("abcdefgh", "bcdefghi", strict=True)
        )
        + f"]>{begin}<sheetData><row><c t='str'><v>&i;</v></c></row></sheetData></worksheet>",
        "outside": '<!DOCTYPE w [<!ENTITY a SYSTEM "file:///etc/passwd">]>'
        + f"{begin}<sheetData><row><c t='str'><v>&a;</v></c></row></sheetData></worksheet>",
    }
    if kind == "cut":
        path.write_bytes(whole[: len(whole) // 2])
    elif kind == "text":
        path.write_text("path,label\na.png,cat\n")
    else:
        with zipfile.ZipFile(io.BytesIO(whole)) as source, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as target:
            for entry in source.infolist():
                content = replaced[kind].encode() if entry.filename == sheet else source.read(entry)
                target.writestr(entry.filename, content)


@pytest.mark.parametrize("kind", ["cut", "text", "far", "many", "rows", "laughs", "outside"])
def test_workbooks_of_strangers_are_refused_in_a_line(tmp_path, kind):
    damaged_workbook(kind, tmp_path / "t.xlsx")
    outcome = attack("datasets", "import", "t.xlsx", "--name", "mine", folder=tmp_path, memory_mb=1_500, timeout_s=60)
    refused(outcome)
    assert "root:" not in outcome.out + outcome.err


def test_what_is_packed_is_bounded_before_it_is_unpacked(tmp_path, monkeypatch):
    path = workbook(tmp_path / "t.xlsx", [["path", "label"], ["a.png", "cat"]])
    monkeypatch.setattr(table_files, "MAX_BYTES", path.stat().st_size + 1)
    with pytest.raises(DataError, match=r"t\.xlsx: holds [\d,]+ bytes, more than"):
        read_table(path)
