"""Folders and tables are taken as their owners mean them, or refused with what to do; nothing is guessed silently."""

import os
import re

import numpy as np
import pytest
from PIL import Image

from visionforge.data.importing import ImportSettings, import_images
from visionforge.data.info import SPLITS
from visionforge.data.registry import dataset_info
from visionforge.data.side_table import read_side_table
from visionforge.errors import DataError, SettingsError

_COUNT = iter(range(1, 1_000_000))


def pictures(*folders, count=10):
    """Write pictures, all different."""
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
        for number in range(count):
            rng = np.random.default_rng(next(_COUNT))
            Image.fromarray(rng.integers(0, 256, (9, 9)).astype(np.uint8)).save(folder / f"{number}.png")


def imported(source, **changes):
    return import_images(
        ImportSettings(**{"source": source, "name": "mine", "resolution": 8, "replace": True, **changes})
    )


def refused(source, error=DataError, **changes) -> list[str]:
    with pytest.raises(error) as caught:
        imported(source, **changes)
    return list(caught.value.problems)


def names(report) -> dict[str, list[str]]:
    return {s: list(read_side_table(report.archive, s, getattr(report.info.splits, s)).names) for s in SPLITS}


# --- folders


@pytest.mark.parametrize("junk", [".ipynb_checkpoints", "__MACOSX", ".git", "@eaDir", "$RECYCLE.BIN"])
@pytest.mark.parametrize("place", ["{}", "cat/{}", "cat/deep/{}/deeper"])
@pytest.mark.parametrize("layout", ["", "train/"])
def test_what_systems_leave_is_no_class_and_no_picture(tmp_path, junk, place, layout):
    for split in ("train/", "val/", "test/") if layout else ("",):
        pictures(tmp_path / split / "cat", tmp_path / split / "dog")
    pictures(tmp_path / layout / place.format(junk))
    (tmp_path / layout / "cat" / "._0.png").write_bytes(b"resource fork")
    (tmp_path / layout / "Thumbs.db").write_bytes(b"none")
    report = imported(tmp_path)
    assert report.info.classes == ("cat", "dog")
    assert report.info.images == (60 if layout else 20)
    assert report.broken == report.notes == []


@pytest.mark.parametrize(
    ("folders", "splits"),
    [
        (("train", "valid", "test"), (20, 20, 20)),
        (("Training", "Validation", "TESTING"), (20, 20, 20)),
        (("TRAIN", "dev", "Test"), (20, 20, 20)),
        (("train", "test"), (18, 2, 20)),
        (("train", "val"), (16, 20, 4)),
        (("train",), (14, 2, 4)),
    ],
)
def test_folders_of_splits_are_recognised_and_completed(tmp_path, folders, splits):
    pictures(*(tmp_path / split / name for split in folders for name in ("cat", "dog")))
    report = imported(tmp_path)
    assert report.info.classes == ("cat", "dog")
    assert tuple(report.info.splits.model_dump().values()) == splits
    assert len(report.notes) == (len(folders) < 3)
    if len(folders) < 3:
        assert "taken from train, by class" in report.notes[0]
        given = {name for part in names(report).values() for name in part}
        assert len(given) == 20 * len(folders)
        made = [s for s in ("val", "test") if not any(name.lower().startswith(s) for name in names(report)[s])]
        assert all(name.startswith("train/") for split in made for name in names(report)[split])


@pytest.mark.parametrize(
    ("folders", "complaint"),
    [
        (("train/cat", "train/dog", "owl"), "holds train (splits?) beside owl (classes?)"),
        (("valid/cat", "validation/cat", "train/cat", "train/dog"), "valid, validation are the same split"),
        (("val/cat", "test/cat"), "but no folder train"),
        (("train", "test"), "no class folders with pictures in its folders test, train"),
    ],
)
def test_folders_that_can_be_taken_in_two_ways_are_refused(tmp_path, folders, complaint):
    pictures(*(tmp_path / folder for folder in folders), count=4)
    (line,) = refused(tmp_path)
    assert complaint in line


def test_oddities_of_folders_are_told(tmp_path):
    pictures(tmp_path / "Cat", tmp_path / "cat ", tmp_path / "cat", tmp_path / "owl")
    pictures(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / "again").symlink_to(tmp_path / "owl")
    pictures(tmp_path.parent / "elsewhere")
    (tmp_path / "linked").symlink_to(tmp_path.parent / "elsewhere")
    pictures(tmp_path / ".pool" / "bat")  # hidden itself, but not where a link shows it
    (tmp_path / "bat").symlink_to(tmp_path / ".pool" / "bat")
    report = imported(tmp_path)
    assert report.info.classes == ("Cat", "bat", "cat", "linked", "owl")
    assert report.info.images == 60
    told = "\n".join(report.notes)
    for part in ("Cat and cat differ in case only", "empty holds no pictures", "10 pictures lie in no class folder"):
        assert part in told
    assert told.count("which is listed anyway; left out") == 2
    assert dataset_info(report.info.name).notes == tuple(report.notes)


def test_folder_without_a_name_is_no_class(tmp_path):
    pictures(tmp_path / "cat", tmp_path / " ")
    assert refused(tmp_path)[0].endswith("its name cannot be that of a class; rename it")


def test_what_cannot_be_read_is_told(tmp_path):
    pictures(*(tmp_path / split / name for split in SPLITS for name in ("cat", "dog")))
    (tmp_path / "train" / "owl").mkdir()
    for name in ("0.png", "1.heic", "2.nrrd", "3.nrrd"):
        (tmp_path / "train" / "owl" / name).write_bytes(b"no picture")
    report = imported(tmp_path)
    assert report.info.classes == ("cat", "dog")
    assert report.notes == [
        "3 files in the folders of train are no pictures that are read (.heic, .nrrd); left out",
        "no picture of owl can be read; left out",
    ]
    for path in (tmp_path / "test").rglob("*.png"):
        path.write_bytes(b"no picture")
    assert "none of the 20 pictures of test can be read" in refused(tmp_path)[0]


def test_classes_that_a_split_lacks_are_told(tmp_path):
    pictures(*(tmp_path / split / name for split in SPLITS for name in ("cat", "dog")), tmp_path / "test" / "owl")
    told = imported(tmp_path).notes
    assert told[0].startswith("train has no pictures of owl: nothing can be learnt")
    assert told[1] == "val has no pictures of owl"


# --- tables


def table(folder, text):
    (folder / "list.csv").write_text(text)
    return folder / "list.csv"


@pytest.fixture
def rows(tmp_path):
    """Return the lines of a good table."""
    pictures(tmp_path / "cat", tmp_path / "dog")
    return [f"{name}/{k}.png,{name}" for name in ("cat", "dog") for k in range(10)]


HEADER = "path,label"


@pytest.mark.parametrize(
    ("header", "line", "complaint"),
    [
        (HEADER, "cat/3.png,", "line 5: no label in the column label"),
        (HEADER, "cat/3.png,  ", "line 5: no label in the column label"),
        (HEADER, "cat/3.png,|", "line 5: no label in the column label"),
        (HEADER, "cat/3.png,NaN", "line 5: a label in the column label stands for a missing value"),
        (HEADER, ",cat", "line 5: no path"),
        (HEADER, "cat/3.png", "line 5: not as many cells as the 2 columns"),
        (HEADER, "cat/3.png,cat,more", "line 5: not as many cells as the 2 columns"),
        (HEADER, "cat/3.png," + "x" * 501, "line 5: a label of more than 500 characters"),
        (HEADER, "cat/2.png,dog", "lines 4 and 5: the same picture 2.png with another label"),
        (HEADER, "cat/../cat/2.png,dog", "lines 4 and 5: the same picture 2.png with another label"),
        (HEADER, "loop.png,cat", "loop.png is no path"),
    ],
)
def test_one_wrong_line_is_named(tmp_path, rows, header, line, complaint):
    (tmp_path / "loop.png").symlink_to("loop.png")
    rows[3] = line
    problems = refused(table(tmp_path, "\n".join([header, *rows])))
    assert complaint in problems[0]


def test_lines_with_the_same_mistake_are_told_together(tmp_path, rows):
    rows[2:9] = [line.split(",")[0] + "," for line in rows[2:9]]
    (line,) = refused(table(tmp_path, "\n".join([HEADER, *rows])))
    assert "lines 4, 5, 6, 7, 8 and 2 more: no label" in line
    assert "`task` multi-label" in line


def test_no_label_is_one_of_multi_label_data(tmp_path, rows):
    rows[0] += "|dog"
    rows[3] = "cat/3.png,"
    report = imported(table(tmp_path, "\n".join([HEADER, *rows])), task="multi-label")
    assert report.info.images == 20


@pytest.mark.parametrize(
    ("column", "cells", "complaint"),
    [
        ("split", ["train"] * 19 + [""], "line 21: no split in the column split"),
        ("split", ["train"] * 19 + ["holdout"], "split 'holdout' is unknown; allowed: train, training, val"),
        ("split", ["val", "test"] * 10, "no pictures for train"),
        ("patient", ["a"] * 10 + ["b"] * 10, "choose `group_column` patient, or `no_groups`"),
        ("Patient ID", ["a"] * 10 + ["b"] * 10, "choose `group_column` Patient ID, or `no_groups`"),
        ("slideId", ["a"] * 10 + ["b"] * 10, "choose `group_column` slideId, or `no_groups`"),
        ("label", ["x"] * 20, "has the column label more than once"),
    ],
)
def test_further_columns(tmp_path, rows, column, cells, complaint):
    lines = [f"{HEADER},{column}", *(f"{row},{cell}" for row, cell in zip(rows, cells, strict=True))]
    problems = refused(table(tmp_path, "\n".join(lines)))
    assert complaint in problems[0]


@pytest.mark.parametrize(
    ("column", "cells"),
    [
        ("patient", [f"p{k}" for k in range(20)]),  # all different: they group nothing
        ("study", ["one"] * 20),  # all the same
        ("age", [30, 40] * 10),
        ("case_notes", ["x", "y"] * 10),
    ],
)
def test_columns_that_group_nothing_do_not_stop(tmp_path, rows, column, cells):
    lines = [f"{HEADER},{column}", *(f"{row},{cell}" for row, cell in zip(rows, cells, strict=True))]
    assert imported(table(tmp_path, "\n".join(lines))).info.images == 20


def test_given_splits_that_tear_groups_apart_are_refused(tmp_path, rows):
    lines = [f"{HEADER},Split,case"]
    lines += [f"{row},{SPLITS[k % 3]},{'ABCDEFG'[k % 7]}" for k, row in enumerate(rows)]
    source = table(tmp_path, "\n".join(lines))
    (line,) = refused(source, group_column="case")
    assert "7 of 7 groups of the column case lie in several splits: A (train, val, test)" in line
    assert imported(source, no_groups=True).info.splits.train == 7
    assert "beside `group_column`" in refused(source, SettingsError, group_column="case", no_groups=True)[0]


def test_missing_splits_are_made_of_whole_groups(tmp_path, rows):
    lines = [f"{HEADER},split,case"]
    lines += [f"{row},{'test' if k >= 16 else 'Training'},c{k // 2}" for k, row in enumerate(rows)]
    report = imported(table(tmp_path, "\n".join(lines)), group_column="case")
    sides = {s: read_side_table(report.archive, s, getattr(report.info.splits, s)) for s in SPLITS}
    assert set(sides["test"].groups) == {"c8", "c9"}
    assert sides["val"].groups
    assert not set(sides["train"].groups) & set(sides["val"].groups)
    for side in sides.values():
        for name, group in zip(side.names, side.groups, strict=True):
            folder, _, file = name.partition("/")
            number = int(file.removesuffix(".png")) + (10 if folder == "dog" else 0)
            assert group == f"c{number // 2}"  # each row keeps its own
    assert "by whole groups" in report.notes[0]


def test_names_survive_as_they_are_written(tmp_path, rows):
    odd = tmp_path / "cat" / os.fsdecode(b"\xff \xc3\xa9.png")
    (tmp_path / "cat" / "0.png").rename(odd)
    report = imported(tmp_path)
    kept = {name for part in names(report).values() for name in part}
    assert "cat/\\udcff é.png" in kept
    assert len(kept) == 20
    assert report.info.images == 20


def test_pictures_in_two_splits_are_told_by_name(tmp_path, rows):
    for number in range(3):
        (tmp_path / "cat" / f"copy{number}.png").write_bytes((tmp_path / "cat" / f"{number}.png").read_bytes())
    lines = [f"{HEADER},split", *(f"{row},train" for row in rows[:10]), *(f"{row},test" for row in rows[10:])]
    lines += [f"cat/copy{k}.png,cat,val" for k in range(3)]
    report = imported(table(tmp_path, "\n".join(lines)))
    assert any(
        "train and val share 3 pictures with equal pixels (cat/0.png = cat/copy0.png, cat/1.png" in note
        for note in report.notes
    )


def test_the_same_line_twice_is_taken_once(tmp_path, rows):
    report = imported(table(tmp_path, "\n".join([HEADER, *rows, rows[0], "", rows[5]])))
    assert report.info.images == 20
    assert report.notes == ["lines 22, 24 name a picture again; each picture is taken once"]


def test_labels_are_trimmed_and_numbers_are_any_text(tmp_path, rows):
    rows = [line.replace(",cat", ", cat ") if k % 2 else line for k, line in enumerate(rows)]
    assert imported(table(tmp_path, "\n".join([HEADER, *rows]))).info.classes == ("cat", "dog")
    rows = [line.replace(",cat", ",²").replace(", cat ", ",²").replace(",dog", ",--1") for line in rows]
    assert imported(table(tmp_path, "\n".join([HEADER, *rows]))).info.classes == ("--1", "²")


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "Ü"},
        {"name": "a" * 61},
        {"name": ""},
        {"name": "a/b"},
        {"seed": -1},
        {"seed": 1 << 40},
        {"fractions": (float("nan"), 0.5, 0.5)},
        {"resolution": 4},
        {"positive": "owl"},
        {"group_column": "case"},
    ],
)
def test_settings_out_of_range_are_one_line(tmp_path, rows, changes):
    assert len(refused(tmp_path, SettingsError, **changes)) == 1


@pytest.mark.parametrize("between", [",", ";", "\t"])
def test_cells_may_be_divided_as_spreadsheets_do(tmp_path, rows, between):
    content = "\n".join(line.replace(",", between) for line in [HEADER, *rows])
    report = imported(table(tmp_path, f"{content}\n"))
    assert report.info.classes == ("cat", "dog")
    assert sum(map(len, names(report).values())) == 20
    several = content.replace(f"cat/0.png{between}cat", f'cat/0.png{between}"cat;dog"')
    assert imported(table(tmp_path, several), task="multi-label", replace=True).info.task == "multi-label"
    told = refused(table(tmp_path, f"{content}\na{between}b{between}c"), replace=True)
    assert told[0].endswith(
        f"put texts with { {',': 'commas', ';': 'semicolons'}.get(between, 'tabs') } into quotation marks"
    )


def test_paths_of_another_system_are_found(tmp_path, rows):
    content = "\n".join([HEADER, *(line.replace("/", "\\") for line in rows)])
    assert names(imported(table(tmp_path, content)))["train"][0].startswith(("cat/", "dog/"))


@pytest.mark.parametrize(
    ("column", "told"), [("smear_id", True), ("smear id", True), ("site_id", False), ("id", False)]
)
def test_columns_of_identifiers_that_repeat_may_keep_pictures_together(tmp_path, rows, column, told):
    lines = [f"{line},{number // 4}" for number, line in enumerate(rows)]
    source = table(tmp_path, "\n".join([f"{HEADER},{column}", *lines]))
    if told:
        assert f"the column {column} may say which pictures belong together" in refused(source)[0]
        assert imported(source, group_column=column).info.splits.train
    else:
        assert imported(source).info.splits.train


def test_a_column_of_labels_of_another_name_is_asked_for(tmp_path, rows):
    source = table(tmp_path, "\n".join(["path,Befund", *rows]))
    assert refused(source)[0].endswith("it has: path, Befund; `label_column` says which of them holds the labels")


def test_a_table_as_a_spreadsheet_of_another_country_writes_it(tmp_path, rows):
    lines = [f"{line};{number},5".replace(",", ";", 1) for number, line in enumerate(rows)]
    text = "\n".join(["path;Bef\u00fcnd;Alter", *lines])
    (tmp_path / "list.csv").write_bytes(text.encode("cp1252"))
    report = imported(tmp_path / "list.csv", label_column="Bef\u00fcnd", columns="Alter")
    assert report.notes[-1].endswith("is not in UTF-8; it was read as cp1252: look at names with accents")
    side = read_side_table(report.archive, "train", report.info.splits.train)
    assert all(re.fullmatch(r"\d+\.5", value) for value in side.columns["Alter"])


def test_a_table_in_no_encoding_says_what_to_do(tmp_path, rows):
    (tmp_path / "list.csv").write_bytes("\n".join([HEADER, *rows, "cat/"]).encode() + b"\x81\xff.png,cat")
    assert refused(tmp_path / "list.csv")[0].endswith("; save it as CSV UTF-8")


def test_column_that_was_asked_for_has_to_be_there(tmp_path, rows):
    source = table(tmp_path, "\n".join([HEADER, *rows]))
    assert "has no column fold" in refused(source, split_column="fold")[0]
