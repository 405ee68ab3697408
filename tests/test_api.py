"""Predictions, explanations and exports from Python: the same files as the commands write, and objects as results."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import visionforge as vf
from tests.conftest import QUICK
from visionforge.cli.main import main
from visionforge.errors import DataError, RunError, SettingsError


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of one epoch; do not change it."""
    settings = {**QUICK, "trainer.max_epochs": 1, "evaluation.resamples": 0}
    return vf.fit(**settings, **{"trainer.default_root_dir": str(tmp_path_factory.mktemp("api") / "outputs")})


@pytest.fixture
def own_run(trained, tmp_path):
    """A copy of it."""
    shutil.copytree(trained.path, tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture
def photos(tmp_path):
    """Six pictures of noise, and a file that is none."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for number, image in enumerate(np.random.default_rng(7).integers(0, 256, (6, 28, 28, 3), dtype=np.uint8)):
        Image.fromarray(image).save(folder / f"{number}.png")
    (folder / "broken.png").write_bytes(b"no picture")
    return folder


@pytest.fixture
def silent(capsys):
    """Nothing is printed to standard output."""
    yield
    assert capsys.readouterr().out == ""


# --- predictions


def test_predictions_are_those_of_the_command(trained, photos, tmp_path, capsys):
    assert main(["predict", "--run", str(trained.path), "--images", str(photos), "--out", "command.csv"]) == 0
    said = capsys.readouterr().out
    predictions = vf.predict(trained, photos, out="python.csv")
    assert capsys.readouterr().out == ""
    for ours, theirs in (("python.csv", "command.csv"), ("python.errors.csv", "command.errors.csv")):
        assert (tmp_path / ours).read_bytes() == (tmp_path / theirs).read_bytes()
    assert f"{predictions!r}\n" == said.replace("command", "python")


@pytest.mark.usefixtures("silent")
def test_predictions_as_objects(own_run, photos, caplog):
    predictions = vf.predict(own_run, photos)
    folder = vf.open_run(own_run).path / "evaluations" / "predict_best_images"
    assert (predictions.path, predictions.errors) == (folder / "predictions.csv", folder / "predictions.errors.csv")
    assert (predictions.images, predictions.failed) == (6, 1)
    assert predictions.table["path"].tolist() == [str(photos / f"{number}.png") for number in range(6)]
    for kind in ("probability_", "raw_probability_", "raw_tta_probability_"):
        probabilities = predictions.table.filter(regex=f"^{kind}").to_numpy()
        np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)
    assert "broken.png" in caplog.text


@pytest.mark.usefixtures("silent")
@pytest.mark.parametrize("suffix", ["parquet", "jsonl", "xlsx"])
def test_predictions_in_every_format(trained, photos, suffix):
    if suffix == "parquet":
        pytest.importorskip("pyarrow")
    ours = [photos / "0.png", photos / "1.png"]
    plain = vf.predict(trained, ours, out="x.csv")
    assert plain.errors is None
    other = vf.predict(trained.workspace.checkpoints / "best.ckpt", ours, out=f"x.{suffix}")
    pd.testing.assert_frame_equal(plain.table, other.table, check_dtype=False)


def test_cells_that_a_spreadsheet_would_run_are_texts_again(trained, photos, monkeypatch):
    monkeypatch.chdir(photos)
    (photos / "0.png").rename("=1.png")
    predictions = vf.predict(trained, "=1.png", out="x.csv")
    assert "'=1.png" in predictions.path.read_text()
    assert predictions.table["path"].tolist() == ["=1.png"]


@pytest.mark.parametrize("kind", ["onnx", "safetensors"])
def test_an_exported_file_predicts_as_its_network(trained, photos, tmp_path, capsys, kind):
    if kind == "onnx":
        for package in ("onnx", "onnxruntime", "onnxscript"):
            pytest.importorskip(package)
    vf.export(trained, kind, out="artifact")
    artifact = tmp_path / "artifact" / f"model.{kind}"
    ours = vf.predict(artifact, photos, out="python.csv")
    assert capsys.readouterr().out == ""
    assert main(["predict", "--model", str(artifact), "--images", str(photos), "--out", "command.csv"]) == 0
    for one, other in (("python.csv", "command.csv"), ("python.errors.csv", "command.errors.csv")):
        assert (tmp_path / one).read_bytes() == (tmp_path / other).read_bytes()
    network = vf.predict(trained, photos, out="network.csv").table
    shared = list(ours.table)
    assert shared == [name for name in network if not name.startswith("raw_")]
    pd.testing.assert_frame_equal(ours.table, network[shared], rtol=1e-6, atol=1e-5)


@pytest.mark.usefixtures("silent")
def test_without_pictures_it_is_the_test_split(own_run):
    result = vf.predict(own_run, config={"trainer": {"accelerator": "cpu"}})
    assert isinstance(result, vf.EvaluationResult)
    assert result.images == len(result.predictions) == 32


@pytest.mark.parametrize(
    ("arguments", "error", "said"),
    [
        ({"pictures": "nowhere"}, DataError, "pictures: nowhere does not exist"),
        ({"pictures": []}, SettingsError, "pictures: name a folder"),
        ({"pictures": "photos", "out": "x.txt"}, SettingsError, "out: x.txt has the suffix"),
        ({"pictures": "photos", "out": "none/x.csv"}, RunError, "out: "),
        ({"pictures": "photos", "out": "x.csv", "batch_size": 0}, SettingsError, "batch_size: 0 is not allowed"),
        ({"pictures": "photos", "out": "x.csv", "split": "all"}, SettingsError, "split: all is not allowed"),
        ({"pictures": "photos", "out": "x.csv", "accelerator": "tpu"}, SettingsError, "--accelerator: tpu is not"),
        ({"pictures": "photos", "data": {}}, SettingsError, "data: is for the test split"),
        ({"out": "x.csv"}, SettingsError, "out: is for pictures"),
        ({"run": "nothing", "pictures": "photos"}, RunError, "--run: nothing is no folder"),
        ({"run": "x.ckpt", "checkpoint": "last"}, SettingsError, "checkpoint: last was named"),
        ({"run": "x.onnx", "pictures": "photos"}, RunError, "artifact: x.onnx does not exist"),
        ({"run": "x.onnx", "pictures": "photos", "tta": True}, SettingsError, "tta: an artifact has its views"),
        ({"run": "x.onnx", "pictures": "photos", "checkpoint": "last"}, SettingsError, "checkpoint: last was named"),
        ({"run": "x.onnx"}, SettingsError, "pictures: x.onnx is an exported file"),
        ({"run": "photos/0.png.pt2", "pictures": "photos"}, RunError, "artifact: photos/0.png.pt2 does not exist"),
    ],
)
@pytest.mark.usefixtures("photos", "silent")
def test_mistakes_of_predictions(trained, arguments, error, said):
    with pytest.raises(error) as caught:
        vf.predict(**{"run": trained, **arguments})
    assert caught.value.problems[0].startswith(said)


# --- explanations


def test_explanations_are_those_of_the_command(trained, photos, tmp_path, capsys):
    command = ["explain", "--run", str(trained.path), "--images", str(photos), "--target", "1", "--limit", "4"]
    assert main([*command, "--out", "command"]) == 0
    capsys.readouterr()
    explanations = vf.explain(trained, [photos], target=1, limit=4, out="python")
    assert capsys.readouterr().out == ""
    names = sorted(path.name for path in (tmp_path / "command").glob("*.*"))
    assert sorted(path.name for path in explanations.path.glob("*.*")) == names
    for name in names:
        assert (tmp_path / "python" / name).read_bytes() == (tmp_path / "command" / name).read_bytes()


@pytest.mark.usefixtures("silent")
def test_explanations_as_objects(own_run, photos, caplog):
    explanations = vf.explain(own_run, photos)
    assert explanations.path == vf.open_run(own_run).path / "evaluations" / "explain_best"
    assert (explanations.images, explanations.found) == (6, 7)
    assert len(explanations.table) == 6
    assert all(path.is_file() for path in explanations.overlays)
    assert explanations._repr_html_().count("<img ") == 6
    assert repr(explanations).startswith("6 overlays: ")
    assert "broken.png" in caplog.text


@pytest.mark.parametrize(
    ("arguments", "error", "said"),
    [
        ({"limit": 0}, SettingsError, "limit: 0 is not allowed"),
        ({"target": "dog"}, SettingsError, "target: dog is no class"),
        ({"out": "photos/0.png"}, SettingsError, "out: photos/0.png is a file"),
        ({"checkpoint": "none.ckpt"}, RunError, "--run: none.ckpt does not exist"),
    ],
)
@pytest.mark.usefixtures("silent")
def test_mistakes_of_explanations(trained, photos, arguments, error, said):
    with pytest.raises(error) as caught:
        vf.explain(trained, photos, **{"out": "x", **arguments})
    assert caught.value.problems[0].startswith(said)


# --- exports


@pytest.mark.usefixtures("silent")
def test_export_as_an_object(own_run):
    run = vf.open_run(own_run)
    exported = vf.export(run, "safetensors")
    assert exported.path == run.path / "export" / "safetensors"
    assert exported.content == json.loads((exported.path / "export.json").read_text())
    assert exported.artifacts == [exported.path / "model.safetensors"]
    assert "32 images (synthetic, test split): 100.00% have the same prediction" in repr(exported)
    assert callable(vf.export)  # importing a module of that name would have hidden it


def test_export_is_that_of_the_command(trained, photos, tmp_path, capsys):
    command = ["export", "--run", str(trained.path), "--format", "safetensors", "--images", str(photos)]
    assert main([*command, "--out", "command"]) == 0
    said = capsys.readouterr().out.splitlines()
    exported = vf.export(trained, "safetensors", pictures=photos, out="python")
    assert capsys.readouterr().out == ""
    assert exported.proofs() == said[:1]
    theirs = json.loads((tmp_path / "command" / "export.json").read_text())
    assert exported.content.keys() == theirs.keys()
    assert exported.content["artifacts"][0]["parity"] == theirs["artifacts"][0]["parity"]  # weights in any order


@pytest.mark.parametrize(
    ("arguments", "error", "said"),
    [
        ({"format": "h5"}, SettingsError, "format: h5 is not allowed; allowed: onnx, torch, safetensors"),
        ({"format": "torchscript"}, SettingsError, "format: torchscript is deprecated"),
        ({"input": "int8"}, SettingsError, "input: int8 is not allowed; allowed: uint8, float32"),
        ({"format": "torch", "int8": True}, SettingsError, "int8: is a form of ONNX"),
        ({"pictures": "nowhere", "format": "safetensors"}, DataError, "pictures: nowhere does not exist"),
        ({"run": "nothing", "format": "safetensors"}, RunError, "--run: nothing is no folder"),
    ],
)
@pytest.mark.usefixtures("silent")
def test_mistakes_of_exports(trained, tmp_path, arguments, error, said):
    with pytest.raises(error) as caught:
        vf.export(**{"run": trained, "out": "x", **arguments})
    assert caught.value.problems[0].startswith(said)
    assert not (tmp_path / "x").exists()
