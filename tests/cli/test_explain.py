"""`visionforge explain` writes an overlay per picture and a table of them."""

import csv

import numpy as np
import pytest
from PIL import Image

from visionforge.cli.main import main


@pytest.fixture
def pictures(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name in ("a", "b", "c"):
        Image.fromarray(rng.integers(0, 256, (40, 30, 3), dtype=np.uint8)).save(folder / f"{name}.png")
    (folder / "broken.png").write_text("no picture")
    return folder


def table(folder):
    with (folder / "explanations.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_overlays_and_table(quick_run, pictures, tmp_path, capsys):
    out = tmp_path / "maps"
    assert main(["explain", "--run", str(quick_run), "--images", str(pictures), "--out", str(out)]) == 0
    said = capsys.readouterr()
    assert "3 overlays" in said.out
    assert "broken.png: is no picture" in said.err
    rows = table(out)
    assert [row["path"].rpartition("/")[2] for row in rows] == ["a.png", "b.png", "c.png"]
    for row in rows:
        assert Image.open(out / row["overlay"]).size == (224, 224)
        assert row["explained"] == row["prediction"]
    assert len(list(out.glob("*.png"))) == 3


def test_another_class_gives_another_map(quick_run, pictures, tmp_path):
    maps = []
    for target in ("0", "class 1", "2"):
        out = tmp_path / target
        command = ["explain", "--run", str(quick_run), "--images", str(pictures / "a.png"), "--target", target]
        assert main([*command, "--out", str(out)]) == 0
        (row,) = table(out)
        maps.append(np.asarray(Image.open(out / row["overlay"])))
    assert any((one != maps[0]).any() for one in maps[1:])


def test_limit_and_archive(quick_run, tmp_path, capsys):
    images = np.random.default_rng(0).integers(0, 256, (9, 28, 28), dtype=np.uint8)
    np.savez(tmp_path / "some.npz", images=images)
    out = tmp_path / "maps"
    command = ["explain", "--run", str(quick_run), "--images", str(tmp_path / "some.npz"), "--out", str(out)]
    assert main([*command, "--limit", "4"]) == 0
    assert "the first 4 of 9" in capsys.readouterr().out
    assert len(table(out)) == 4
    assert main([*command, "--overwrite"]) == 0
    assert len(table(out)) == 9
    (out / "mine.png").write_text("mine")
    (out / table(out)[8]["overlay"]).write_text("annotated")
    assert main([*command, "--overwrite", "--limit", "2"]) == 0
    kept = {row["overlay"] for row in table(out)} | {"mine.png", "explanations.csv"}
    assert {path.name for path in out.iterdir()} > kept
    assert len(list(out.iterdir())) == len(kept) + 1, "what an earlier call wrote and nobody changed is removed"
    assert main([*command, "--overwrite"]) == 2
    assert "is not as this command wrote it" in capsys.readouterr().err


def test_long_and_odd_names_of_pictures_and_classes(quick_run, tmp_path):
    name = "猫" * 80 + ".x.png"
    (tmp_path / "in").mkdir()
    Image.fromarray(np.zeros((30, 30, 3), np.uint8)).save(tmp_path / "in" / name)
    Image.fromarray(np.zeros((30, 30, 3), np.uint8)).save(tmp_path / "in" / "=1+1.png")
    command = ["explain", "--run", str(quick_run), "--images", "in/=1+1.png", f"in/{name}", "--out", "maps"]
    assert main(command) == 0
    rows = table(tmp_path / "maps")
    assert [row["path"] for row in rows] == ["in/=1+1.png", f"in/{name}"]
    assert all((tmp_path / "maps" / row["overlay"]).is_file() for row in rows)


def test_probability_is_the_one_that_predict_gives(quick_run, pictures, tmp_path):
    given = ["--run", str(quick_run), "--images", str(pictures)]
    assert main(["explain", *given, "--out", "maps"]) == 0
    assert main(["predict", *given, "--out", "table.csv"]) == 0
    with (tmp_path / "table.csv").open(newline="") as file:
        predicted = {row["path"]: row for row in csv.DictReader(file)}
    for row in table(tmp_path / "maps"):
        wanted = predicted[row["path"]]
        assert row["prediction"] == wanted["prediction"]
        assert float(row["probability"]) == pytest.approx(float(wanted[f"probability_{row['explained']}"]), abs=1e-6)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--target", "nobody"], "--target: nobody is no class"),
        (["--target", "17"], "--target: 17 is no class"),
        (["--limit", "0"], "--limit: 0 is not allowed"),
        (["--images", "nowhere"], "--images: nowhere does not exist"),
        (["--out", "pictures/a.png"], "--out: pictures/a.png is a file"),
        (["--run", "nothing"], "--run: nothing is no folder"),
        (["--ckpt_path", "other"], "--run: other does not exist"),
    ],
)
def test_mistakes(refuse, quick_run, pictures, arguments, said):
    base = {"--run": str(quick_run), "--images": str(pictures)}
    base |= dict(zip(arguments[::2], arguments[1::2], strict=True))
    (line,) = refuse("explain", *(text for pair in base.items() for text in pair))
    assert line.startswith(said)


def test_nothing_readable_leaves_nothing(refuse, quick_run, pictures, tmp_path):
    command = ["explain", "--run", str(quick_run), "--images", str(pictures / "broken.png"), "--out", "maps"]
    (line,) = refuse(*command)
    assert "none of the files could be read" in line
    assert not (tmp_path / "maps").exists()
