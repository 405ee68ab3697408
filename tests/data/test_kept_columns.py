"""Columns of a table that an archive keeps: imported, read back, refused where they are none, and told."""

import csv
import json

import numpy as np
import pytest
from PIL import Image

from tests.data.test_listing import imported, refused
from tests.data.test_side_table import SIZES, arrays
from visionforge.cli.main import main
from visionforge.data.archive import structure_problems
from visionforge.data.kept_columns import MAX_CELL, MAX_COLUMNS, RESERVED, headings_problem
from visionforge.data.registry import dataset_info
from visionforge.data.side_table import SideTable, read_headings, read_side_table
from visionforge.errors import DataError, SettingsError


def table(folder, count=40, headings=("path", "label", "age", "sex", "Site"), **changed):
    """Write pictures and a CSV file that lists them; `changed` are cells by row and heading."""
    rng = np.random.default_rng(0)
    rows = []
    for k in range(count):
        Image.fromarray(rng.integers(0, 256, (9, 9)).astype(np.uint8)).save(folder / f"{k}.png")
        row = {"path": f"{k}.png", "label": "ab"[k % 2], "age": str(20 + k), "sex": "fm"[k // 2 % 2], "Site": " north "}
        rows.append({**row, **changed.get(f"row{k}", {})})
    with (folder / "list.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, headings, extrasaction="ignore", restval="x")
        writer.writeheader()
        writer.writerows(rows)
    return folder / "list.csv"


def test_asked_columns_are_kept_as_texts_in_the_order_of_the_images(tmp_path):
    source = table(tmp_path, row3={"age": "", "sex": "n/a \x1b"}, row4={"age": "NaN"})
    report = imported(source, columns="age, sex,site")
    assert report.info.columns == ("age", "sex", "Site")
    assert report.notes == ["2 of 40 pictures have no value in the column age"]
    assert read_headings(report.archive) == ("age", "sex", "Site")
    seen = {}
    for split in ("train", "val", "test"):
        side = read_side_table(report.archive, split, getattr(report.info.splits, split))
        assert list(side.known) == ["name", "age", "sex", "Site"]
        seen |= dict(zip(side.names, zip(*side.columns.values(), strict=True), strict=True))
    assert seen["0.png"] == ("20", "f", "north")
    assert seen["3.png"] == ("missing", "n/a \\x1b", "north")
    assert seen["4.png"][0] == "missing"
    assert len(seen) == 40
    assert dataset_info("mine").columns == ("age", "sex", "Site")


def test_the_commands_keep_and_tell_columns(tmp_path, capsys):
    source = table(tmp_path)
    keep = ["--columns", "age,sex", "--resolution", "8", "--replace"]
    assert main(["datasets", "import", str(source), "--name", "mine", *keep]) == 0
    capsys.readouterr()
    assert main(["datasets", "info", "mine"]) == 0
    assert "age, sex" in capsys.readouterr().out
    assert main(["datasets", "show", "mine", "--output", str(tmp_path / "x.png"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["columns"] == ["age", "sex"]
    assert main(["datasets", "show", "mine", "--output", str(tmp_path / "x.png")]) == 0
    assert "columns: age, sex" in capsys.readouterr().out
    assert main(["datasets", "check", "mine"]) == 0
    assert main(["datasets", "import", str(source), "--name", "mine", "--columns", "agee", "--replace"]) == 2
    assert "has no column agee; it has: path, label, age, sex, Site" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("columns", "line"),
    [
        ("age,age", "columns: names a column more than once; name each once"),
        ("age,label", "columns: label is the column of the labels, which are kept anyway; leave it out"),
        ("path", "columns: path is the column of the paths, which are kept anyway; leave it out"),
        ("Truth", "columns: the table has the heading 'Truth', which tables of predictions have themselves; rename it"),
        ("probability_a", "columns: the table has the heading 'probability_a', which tables of predictions have"),
    ],
)
def test_columns_that_cannot_be_kept_are_refused(tmp_path, columns, line):
    source = table(tmp_path, headings=("path", "label", "age", "Truth", "probability_a"))
    (found,) = refused(source, SettingsError, columns=columns)
    assert found.startswith(line)


def test_a_folder_has_no_columns_and_a_cell_is_bounded(tmp_path):
    source = table(tmp_path, row5={"sex": "x" * (MAX_CELL + 1)})
    (line,) = refused(source, columns="sex")
    assert line.endswith("line 7: a value of more than 256 characters in the column sex, which is to be kept")
    (line,) = refused(tmp_path, SettingsError, columns="age")
    assert line == "columns: a folder has no columns; list the pictures in a table (.csv, .xlsx)"


def test_a_picture_that_stands_there_with_two_values_is_refused(tmp_path):
    source = table(tmp_path, row5={"path": "3.png", "label": "b", "sex": "f"})
    (line,) = refused(source, columns="sex")
    assert "the same picture 3.png with another value of the columns that are kept" in line


def test_headings_are_bounded_printable_and_free():
    assert headings_problem(["age", "sex"]) is None
    assert "at most 32" in headings_problem([f"c{k}" for k in range(MAX_COLUMNS + 1)])
    assert "more than once" in headings_problem(["age", "age"])
    for heading in (*RESERVED, "", " age", "a\nb", "x" * 61, "missing", "raw_tta_probability_0"):
        assert headings_problem([heading]) is not None


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({"column_names": np.array(["age"])}, "has column_names without val_columns"),
        ({"val_columns": np.array([["1"]] * 4)}, "val_columns has the shape (4, 1), expected (4, 0)"),
        (
            {"column_names": np.array(["age"]), "val_columns": np.array([["1"]] * 3)},
            "has the shape (3, 1), expected (4, 1)",
        ),
        ({"column_names": np.array(["age"]), "val_columns": np.array([[1]] * 4)}, "has the type int64, expected text"),
        ({"column_names": np.array(["age"]), "val_columns": np.array([["1" * 300]] * 4)}, "texts of 300 characters"),
        ({"column_names": np.array([["age"]])}, "column_names has the shape (1, 1), expected (C,)"),
        ({"column_names": np.array(["truth"])}, "which tables of predictions have themselves"),
        ({"column_names": np.array(["a"] * 33)}, "has 33 texts, allowed: at most 32"),
        ({"column_names": np.array(["a\x1b"])}, "printable"),
        ({"column_names": np.array([{}])}, "Python objects"),
    ],
)
def test_what_strangers_write_is_bounded_and_checked(tmp_path, given, complaint):
    np.savez(tmp_path / "x.npz", **arrays(**given))
    with pytest.raises(DataError, match=r"x\.npz") as caught:
        read_side_table(tmp_path / "x.npz", "val", 4)
    assert complaint in caught.value.problems[0]
    splits = dataset_info("digits").splits.model_copy(update=SIZES)
    info = dataset_info("breastmnist").model_copy(update={"splits": splits})
    assert any(
        complaint.split(" has the shape (4")[0] in problem
        for problem in structure_problems(tmp_path / "x.npz", info, 28)
    )


def test_an_archive_without_the_columns_of_its_entry_is_told(tmp_path):
    np.savez(tmp_path / "x.npz", **arrays())
    splits = dataset_info("digits").splits.model_copy(update=SIZES)
    info = dataset_info("breastmnist").model_copy(update={"splits": splits, "columns": ("age",)})
    assert structure_problems(tmp_path / "x.npz", info, 28)[0] == "train has the columns none, not age"


def test_values_from_strangers_are_printable_and_follow_positions(tmp_path):
    cells = np.array([["1", "a\x1b[31m"], ["2", "b"], ["3", "c"], ["4", "d"]])
    every = {f"{split}_columns": np.resize(cells, (n, 2)) for split, n in SIZES.items()}
    np.savez(tmp_path / "x.npz", **arrays(column_names=np.array(["age", "site"]), **every))
    side = read_side_table(tmp_path / "x.npz", "val", 4)
    assert side.columns["site"][0] == "a\\x1b[31m"
    assert side.at(np.array([2, 0])) == SideTable(None, None, {"age": ("3", "1"), "site": ("c", "a\\x1b[31m")})
