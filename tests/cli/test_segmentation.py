"""Pictures with masks through every command of a run, and killed in the middle it ends with the same weights."""

import csv
import json
import os
from functools import partial

import numpy as np
import pytest
from PIL import Image

from tests.cli.test_interruption import ends_alike_though_killed
from tests.conftest import flags, run_folders
from visionforge.cli.main import main
from visionforge.data.shapes import render_shapes

pytestmark = pytest.mark.slow
COUNT = 120


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    """A folder of pictures with masks, of which some pixels do not count."""
    folder = tmp_path_factory.mktemp("source") / "shapes"
    scenes = render_shapes(np.random.default_rng(0), COUNT, 2, 40, 3)
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True)
    for number, (image, mask) in enumerate(zip(scenes.images, scenes.masks, strict=True)):
        mask[0, :3] = 255
        Image.fromarray(image).save(folder / "images" / f"{number:03d}.png")
        Image.fromarray(mask).save(folder / "masks" / f"{number:03d}.png")
    return folder


@pytest.fixture
def settings(shapes, tmp_path, monkeypatch):
    """Return settings of a fit on the imported pictures, whose archive lies in this test's own folder."""
    data = tmp_path / "data"
    monkeypatch.setenv("VISIONFORGE_CATALOG", str(tmp_path / "catalog"))
    given = ["--name", "shapes", "--resolution", "32", "--classes", "background,disc,square", "--ignore", "255"]
    assert main(["datasets", "import", str(shapes), *given, "--root", str(data)]) == 0

    def made(outputs, **changes):
        usual = {
            "data__dataset": "shapes",
            "data__root": data,
            "data__resolution": 32,
            "data__cache": "mmap",
            "model__decoder__width": 8,
            "trainer__deterministic": "true",
            "trainer__max_epochs": 3,
            "trainer__default_root_dir": outputs,
        }
        return flags(**{**usual, **changes})

    return made


def rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def masks(table, said):
    return [np.asarray(Image.open(table.parent / row["mask"])) for row in said]


def test_every_command_of_a_run_takes_masks(settings, shapes, tmp_path, refuse, capsys):
    outputs = tmp_path / "o"
    assert main(["fit", *settings(outputs, evaluation__report="true", evaluation__figures="true")]) == 0
    (run,) = run_folders(outputs)
    content = json.loads((run / "metrics.json").read_text())
    assert content["chosen_by"] == "val/mean_dice"
    assert set(content["per_class"]["with_tta"]) == {"background", "disc", "square"}
    assert (run / "report.html").is_file()
    assert {path.name for path in (run / "figures").iterdir()} >= {"lowest_dice.png", "sample_predictions.png"}

    assert main(["test", "--run", str(run)]) == 0
    (again,) = (run / "evaluations").iterdir()
    tested = json.loads((again / "metrics.json").read_text())
    assert all(tested[key] == content[key] for key in ("with_tta", "without_tta", "per_class", "intervals"))
    assert (again / "predictions.csv").read_bytes() == (run / "predictions.csv").read_bytes()

    capsys.readouterr()
    assert main(["predict", "--run", str(run)]) == 0
    (table,) = (run / "evaluations").glob("predict*/predictions.csv")
    own, expected = rows(table), rows(run / "predictions.csv")
    names = [f"predicted_pixels_{name}" for name in ("disc", "square")]
    for row, mask in zip(own, masks(table, own), strict=True):
        assert mask.shape == (32, 32)
        assert np.bincount(mask.ravel(), minlength=3)[1:].tolist() == [int(row[name]) for name in names]
    assert [row["name"] for row in own] == [row["name"] for row in expected]
    assert [row["confidence"] for row in own] == [row["confidence"] for row in expected]

    pictures, said, exported = str(shapes / "images"), tmp_path / "said.csv", tmp_path / "exported.csv"
    assert main(["predict", "--run", str(run), "--images", pictures, "--out", str(said)]) == 0
    capsys.readouterr()
    assert main(["export", "--run", str(run), "--format", "onnx"]) == 0
    assert "have the same prediction" in capsys.readouterr().out
    artifact = str(run / "export" / "onnx" / "model.onnx")
    assert main(["predict", "--model", artifact, "--images", pictures, "--out", str(exported)]) == 0
    ours, theirs = rows(said), rows(exported)
    assert len(ours) == COUNT
    equal = [one == two for one, two in zip(masks(said, ours), masks(exported, theirs), strict=True)]
    assert all(each.shape == (40, 40) for each in equal)
    assert np.mean(equal) > 0.9999
    assert [row["views"] for row in ours] == [row["views"] for row in theirs] == ["1"] * COUNT

    (line,) = refuse("explain", "--run", str(run), "--images", pictures, "--limit", "1", "--out", str(tmp_path / "m"))
    assert "segmentation" in line

    assert main(["reproduce", str(run)]) == 0
    few = settings(tmp_path / "s", trainer__max_epochs=1)
    assert main(["fit", *few, "--seeds", "1,2"]) == 0
    capsys.readouterr()
    assert main(["runs", "compare", *map(str, run_folders(tmp_path / "s")), "--json"]) == 0
    compared = json.loads(capsys.readouterr().out)
    assert {difference["metric"].partition(".")[2] for difference in compared["differences"]} >= {"mean_dice"}
    assert main(["runs", "show", str(run)]) == 0
    search = ("--tune.n_trials", "1")
    assert main(["tune", *settings(tmp_path / "t", trainer__max_epochs=1), *search]) == 0


def test_killed_it_ends_with_the_same_weights(settings, fleet, tmp_path):
    known = {name: os.environ[name] for name in ("VISIONFORGE_CATALOG", "XDG_CACHE_HOME", "XDG_DATA_HOME")}
    changes = {
        "trainer__max_epochs": 5,
        "checkpoint_minutes": 0.001,
        "model__decoder__dropout": 0.2,
        "model__mixup__cutmix_alpha": 1.0,
    }
    ends_alike_though_killed(fleet, tmp_path, partial(settings, **changes), **known)
