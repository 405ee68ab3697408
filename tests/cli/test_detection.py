"""Rendered shapes with boxes through every command of a run, and killed in the middle it ends with the same weights."""

import csv
import json
import statistics
from functools import partial

import numpy as np
import pytest
from PIL import Image

import visionforge as vf
from tests.cli.test_interruption import ends_alike_though_killed
from tests.conftest import EXHAUSTIVE, flags, run_folders
from tests.scoring.boxes import scored_by_coco
from visionforge.cli.main import main

pytestmark = pytest.mark.slow


def settings(outputs, **changes):
    usual = {
        "data__dataset": "synthetic",
        "data__resolution": 32,
        "data__batch_size": 16,
        "data__synthetic__task": "detection",
        "data__synthetic__classes": 2,
        "data__synthetic__train": 64,
        "data__synthetic__val": 16,
        "data__synthetic__test": 16,
        "model__backbone__name": "mini_cnn",
        "model__backbone__pretrained": "false",
        "model__detector__width": 32,
        "trainer__max_epochs": 2,
        "trainer__accelerator": "cpu",
        "trainer__default_root_dir": outputs,
    }
    return flags(**{**usual, **changes})


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    outputs = tmp_path_factory.mktemp("boxes")
    assert main(["fit", *settings(outputs)]) == 0
    (found,) = run_folders(outputs)
    return found


def test_a_run_has_its_results(run):
    content = json.loads((run / "metrics.json").read_text())
    assert content["task"] == "detection"
    assert {"map", "map_50", "map_75", "mar_100"} <= set(content["with_tta"])
    assert {"predictions.csv", "predictions.json", "truth.json"} <= {path.name for path in run.iterdir()}
    with (run / "predictions.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(json.loads((run / "predictions.json").read_text()))


@pytest.mark.parametrize("stage", ["validate", "test", "predict"])
def test_every_stage_of_a_trained_network(run, stage):
    assert main([stage, "--run", str(run)]) == 0
    folder = run / "evaluations" / f"{stage}_best"
    assert (folder / "predictions.csv").is_file()
    for name in ("predictions.json", "truth.json"):
        assert ((folder / name).read_bytes() == (run / name).read_bytes()) == (stage != "validate")


def test_what_is_not_there_is_one_line(run, tmp_path, capsys):
    pictures = ["--images", str(tmp_path / "a.png")]
    asked = {
        "explain": ([*pictures, "--out", str(tmp_path / "maps")], "`visionforge predict --images` shows what it says"),
        "export": (["--format", "torch"], "--format: torch is not allowed for detection"),
    }
    Image.new("RGB", (32, 32)).save(tmp_path / "a.png")
    for command, (given, message) in asked.items():
        capsys.readouterr()
        assert main([command, "--run", str(run), *given]) == 2
        (line,) = [each for each in capsys.readouterr().err.splitlines() if "error" in each]
        assert message in line


def test_pictures_have_the_same_boxes_by_a_run_and_its_exports(run, tmp_path, capsys):
    pytest.importorskip("onnxruntime")
    for seed, size in enumerate([(32, 32), (64, 40)]):
        pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{seed}.png")
    tables = []
    sources = [("run", ["--run", str(run)])]
    for kind, name in (("onnx", "model.onnx"), ("safetensors", "model.safetensors")):
        assert main(["export", "--run", str(run), "--format", kind, "--out", str(tmp_path / kind)]) == 0
        assert "100.00% have the same prediction" in capsys.readouterr().out
        sources.append((kind, ["--model", str(tmp_path / kind / name)]))
    for name, given in sources:
        out = tmp_path / f"{name}.csv"
        assert main(["predict", *given, "--images", str(tmp_path), "--out", str(out)]) == 0
        assert out.with_name(f"{name}.coco.json").is_file()
        with out.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        tables.append([[float(row[key]) for key in ("score", "x1", "y1", "x2", "y2")] for row in rows])
    assert len(tables[0]) > 3
    for other in tables[1:]:
        np.testing.assert_allclose(sorted(other), sorted(tables[0]), atol=2e-3)


def test_pycocotools_scores_what_lies_in_a_run(run):
    expected = json.loads((run / "metrics.json").read_text())["with_tta"]
    assert scored_by_coco(run) == pytest.approx([expected[name] for name in ("map", "map_50", "map_75", "mar_100")])


def test_runs_are_compared_picture_by_picture(run, tmp_path, capsys):
    assert main(["fit", *settings(tmp_path, model__optimizer__learning_rate=0.1)]) == 0
    (other,) = run_folders(tmp_path)
    capsys.readouterr()
    assert main(["runs", "compare", str(run), str(other), "--resamples", "200", "--json"]) == 0
    found = {row["metric"]: row for row in json.loads(capsys.readouterr().out)["differences"]}
    values = [json.loads((each / "metrics.json").read_text())["with_tta"] for each in (other, run)]
    assert {"with_tta.map", "with_tta.map_50", "with_tta.mar_100"} <= set(found)
    for name, row in found.items():
        one, two = (each[name.removeprefix("with_tta.")] for each in values)
        assert row["value"] == pytest.approx(one - two)
    differences = vf.compare([run, other], resamples=200).differences
    assert set(differences["metric"]) == set(found)
    content = json.loads((other / "truth.json").read_text())
    content["info"]["test_time_views"] = False
    (other / "truth.json").write_text(json.dumps(content))
    assert main(["runs", "compare", str(run), str(other)]) == 0
    line = "no differences: the predictions of some runs are with test-time views, those of others without"
    assert line in " ".join(capsys.readouterr().out.split())
    (other / "truth.json").unlink()
    assert main(["runs", "compare", str(run), str(other)]) == 0
    assert "truth.json: is not there, as in runs of earlier versions" in " ".join(capsys.readouterr().out.split())


def test_what_else_is_made_of_a_run(run, tmp_path):
    assert main(["reproduce", str(run)]) == 0
    assert main(["tune", *settings(tmp_path / "t", trainer__max_epochs=1), "--tune.n_trials", "1"]) == 0


@pytest.mark.parametrize(
    ("detector", "changes"),
    [
        pytest.param(  # what it looks at is drawn at random
            "faster_rcnn", {"model__mixup__cutmix_alpha": 1.0}, marks=EXHAUSTIVE
        ),
        ("fcos", {"data__augmentation__preset": "standard", "model__optimizer__name": "adamw"}),
    ],
)
def test_killed_it_ends_with_the_same_weights(fleet, tmp_path, detector, changes):
    usual = {"trainer__max_epochs": 6, "trainer__deterministic": "true", "checkpoint_minutes": 0.001}
    made = partial(settings, model__detector__name=detector, **usual, **changes)
    ends_alike_though_killed(fleet, tmp_path, made)


def test_several_seeds_are_told_together(tmp_path, capsys):
    changes = {"data__synthetic__train": 400, "trainer__max_epochs": 4, "model__optimizer__name": "adamw"}
    given = settings(tmp_path, **changes, model__optimizer__learning_rate=0.003)
    assert main(["fit", *given, "--seeds", "1,2"]) == 0
    said = capsys.readouterr().out
    runs = run_folders(tmp_path)
    assert len(runs) == 2
    _, told = said.split("mean ± standard deviation over seeds")
    means = {cells[0]: cells[1:] for line in told.splitlines() if len(cells := line.split()) == 4}
    contents = [json.loads((run / "metrics.json").read_text()) for run in runs]
    for reading in ("without_tta", "with_tta"):
        for name in ("map", "map_50", "map_75", "mar_100"):
            values = [content[reading][name] for content in contents]
            shown = [f"{statistics.fmean(values):.4f}", "±", f"{statistics.stdev(values):.4f}"]
            assert means[f"{reading}.{name}"] == shown
    assert min(content["with_tta"]["map_50"] for content in contents) > 0  # both have learnt something
    assert main(["fit", *given, "--seeds", "2,1"]) == 0
    assert capsys.readouterr().out.count("complete already") == 2
    assert run_folders(tmp_path) == runs
