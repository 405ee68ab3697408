"""`visionforge audit` finds wrong labels, and `datasets import --corrections` makes a data set without them."""

import csv
import json

import numpy as np
import pytest

import visionforge as vf
from tests.data.test_table_files import workbook
from visionforge.cli.main import main
from visionforge.data.registry import dataset_info
from visionforge.data.source import load_split


@pytest.fixture
def audited(tmp_path):
    """An audit of the digits of which each third has a wrong label, as a data set of its own."""
    rows = [["split", "index", "corrected"], *(["train", k, "0"] for k in range(0, 90, 3))]
    write(tmp_path / "flips.csv", rows)
    command = ["datasets", "import", "digits", "--resolution", "8", "--corrections", "flips.csv"]
    assert main([*command, "--name", "d8"]) == 0
    assert main(["audit", "d8", "--out", "found"]) == 0
    return tmp_path / "found"


def write(path, rows):
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)


def table(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_data_set_is_audited_and_corrected(audited, tmp_path, capsys):
    content = json.loads((audited / "audit.json").read_text())
    assert content["model"] == "logistic regression on pixels"
    assert content["images"] == {"train": 1257, "val": 180}
    truth = load_split(dataset_info("digits"), 8, None, "train").labels
    rows = table(audited / "suspicious.csv")
    assert rows[0].keys() == {"split", "index", "name", "label", "suggested", "quality", "corrected"}
    wrong = [row for row in rows if row["split"] == "train" and str(truth[int(row["index"])]) != row["label"]]
    assert len(wrong) / len(rows) > 0.5
    page = (audited / "audit.html").read_text()
    assert page.count("<figure>") == len(rows)
    assert "<script" not in page
    for row in wrong:
        row["corrected"] = str(truth[int(row["index"])])
    wrong[0]["corrected"] = "remove"
    write(tmp_path / "filled.csv", [list(rows[0]), *([*row.values()] for row in rows)])
    capsys.readouterr()
    command = ["datasets", "import", "d8", "--resolution", "8", "--corrections", "filled.csv", "--name", "d9"]
    assert main(command) == 0
    assert f"{len(wrong) - 1} labels corrected and 1 pictures left out by filled.csv" in capsys.readouterr().out
    info = dataset_info("d9")
    assert info.splits.train == 1256
    assert "From d8" in info.description
    new, old = (load_split(dataset_info(name), 8, None, "train").labels for name in ("d9", "d8"))
    kept = np.delete(np.arange(1257), int(wrong[0]["index"]))
    assert (new == truth[kept]).sum() == (old == truth).sum() + len(wrong) - 1
    workbook(tmp_path / "filled.xlsx", [list(rows[0]), *([*row.values()] for row in rows)])  # saved as Excel does
    semicolons = (tmp_path / "filled.csv").read_text().replace(",", ";")
    (tmp_path / "semicolons.csv").write_text(semicolons)
    for name, file in (("d10", "filled.xlsx"), ("d11", "semicolons.csv")):
        assert main([*command[:-3], file, "--name", name]) == 0
        np.testing.assert_array_equal(load_split(dataset_info(name), 8, None, "train").labels, new)


@pytest.mark.slow
def test_settings_change_the_result(audited, tmp_path):
    first = (audited / "suspicious.csv").read_text()
    usual = vf.audit("d8", out="again")
    assert (usual.path / "suspicious.csv").read_text() == first
    assert len(usual.suspicious) == usual.content["suspicious"]
    assert vf.audit("d8", folds=3, out="folds").content != usual.content
    assert vf.audit("d8", seed=1, out="seed").content != usual.content
    assert vf.audit("d8", split=["all"], out="all").content["images"] == {"train": 1257, "val": 180, "test": 360}
    few = vf.audit("d8", limit=2, out="few")
    assert (few.path / "audit.html").read_text().count("<figure>") == 2
    with pytest.raises(vf.SettingsError, match="overwrite"):
        vf.audit("d8", out="few")
    vf.audit("d8", limit=3, out="few", overwrite=True)


def test_a_run_needs_predictions_of_folds(quick_run, refuse):
    assert "fit --folds" in refuse("audit", str(quick_run))[0]
    assert "neither a run nor a data set" in refuse("audit", "digitz")[0]
    assert "--folds: 1 is not allowed" in refuse("audit", "digits", "--folds", "1")[0]
    assert "--limit: 0 is not allowed" in refuse("audit", "digits", "--limit", "0")[0]
    assert "resolution: 9 is not offered" in refuse("audit", "digits", "--resolution", "9")[0]


@pytest.mark.parametrize(
    ("rows", "complaint"),
    [
        ([["split", "index", "corrected"], ["train", "0", "owl"]], "unknown classes"),
        ([["split", "index", "corrected"], ["train", "99999", "1"]], "unknown pictures"),
        ([["split", "index", "corrected"], ["train", "0", "1"], ["train", "0", "2"]], "two ways"),
        ([["split", "index", "corrected"], ["train", "x", "1"]], "is no split and position"),
        ([["split", "index", "corrected"], ["train", "0"]], "not as many cells as the 3 columns"),
        ([["split", "index", "corrected"], ["train", "0", ""]], "no row"),
        ([["split", "index", "label", "corrected"], ["train", "0", "owl", "1"]], "not the one in the table"),
        ([["name", "corrected"], ["a.png", "1"]], "unknown pictures"),
        ([["index", "corrected"], ["0", "1"]], "needs the column"),
    ],
)
def test_corrections_that_do_not_fit_are_one_line(rows, complaint, tmp_path, refuse):
    write(tmp_path / "bad.csv", rows)
    command = ["datasets", "import", "digits", "--resolution", "8", "--corrections", "bad.csv", "--name", "new"]
    (line,) = refuse(*command)
    assert complaint in line


def test_pictures_are_imported_with_corrections_by_name(tmp_path, refuse):
    from PIL import Image

    for label, value in (("cat", 10), ("dog", 200)):
        (tmp_path / "pics" / label).mkdir(parents=True)
        for k in range(20):
            Image.new("L", (16, 16), value + k).save(tmp_path / "pics" / label / f"{k}.png")
    command = ["datasets", "import", "pics", "--resolution", "16", "--name"]
    assert main([*command, "before"]) == 0
    write(tmp_path / "c.csv", [["name", "corrected"], ["cat/3.png", "dog"], ["dog/4.png", "remove"], ["cat/5.png", ""]])
    assert main([*command, "after", "--corrections", "c.csv"]) == 0
    before, after = (dataset_info(name) for name in ("before", "after"))
    assert before.images == after.images + 1
    assert "1 labels corrected and 1 pictures left out" in after.description
    pictures = {}
    for info in (before, after):
        for split in ("train", "val", "test"):
            part = load_split(info, 16, None, split)
            for image, label in zip(part.images, part.labels, strict=True):
                pictures.setdefault(int(image[0, 0]), []).append((split, int(label)))
    assert pictures.pop(204)[1:] == []
    one, other = pictures.pop(13)
    assert one[0] == other[0], "splits stay as they were"
    assert (one[1], other[1]) == (0, 1)
    assert all(one == other for one, other in pictures.values())
