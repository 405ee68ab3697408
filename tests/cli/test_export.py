"""`visionforge export` proves its artifact, describes it, and leaves nothing if it fails."""

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from tests.conftest import REPOSITORY
from tests.runs.helpers import wait_for
from visionforge.cli.main import main
from visionforge.config.schema import Synthetic
from visionforge.data.datamodule import MedMNISTDataModule
from visionforge.exporting import formats, parity
from visionforge.inference import artifacts
from visionforge.inference.artifacts import Runtime, load_onnx

for package in ("onnx", "onnxruntime", "onnxscript"):
    pytest.importorskip(package)


@pytest.fixture
def own_run(quick_run, tmp_path):
    return shutil.copytree(quick_run, tmp_path / "outputs" / quick_run.name, symlinks=True)


@pytest.fixture(scope="module")
def exported(quick_run, tmp_path_factory):
    """An export in ONNX with everything that it can have."""
    folder = tmp_path_factory.mktemp("export") / "onnx"
    assert main(["export", "--run", str(quick_run), "--out", str(folder), "--int8"]) == 0
    return folder


def content_of(folder):
    return json.loads((folder / "export.json").read_text())


def test_folder_is_complete_and_true(exported, quick_run):
    assert {path.name for path in exported.iterdir()} == {
        "model.onnx",
        "model_int8.onnx",
        "export.json",
        "model_card.md",
    }
    content = content_of(exported)
    metrics = json.loads((quick_run / "metrics.json").read_text())
    whole, small = content["artifacts"]
    assert whole["parity"]["largest_deviation"] < 1e-4
    assert whole["parity"]["agreement"] == 1
    assert whole["parity"]["images"] == 32
    assert whole["parity"]["before"]["accuracy"] == pytest.approx(metrics["with_tta"]["accuracy"])
    assert content["inside"]["views"] == ["identity", "shift right", "shift left", "shift down", "shift up"]
    assert {entry["file"] for entry in content["files"]} == {"model.onnx", "model_int8.onnx", "model_card.md"}
    assert small["parity"]["bound"] is None
    assert small["bytes"] < whole["bytes"]
    assert small["calibrated_on"] == "synthetic, val split"
    assert content["config_hash"] == quick_run.name[-6:]
    assert content["output"]["classes"] == ["class 0", "class 1", "class 2", "class 3"]
    card = (exported / "model_card.md").read_text()
    for text in ("Licence", "Intended", "Calibration", content["config_hash"], f"{metrics['with_tta']['auc']:.4f}"):
        assert text in card
    assert "average over 5 views" in card


@pytest.mark.parametrize("kind", ["torch", "safetensors"])
def test_other_formats(own_run, kind):
    assert main(["export", "--run", str(own_run), "--format", kind]) == 0
    content = content_of(own_run / "export" / kind)
    assert content["artifacts"][0]["parity"]["largest_deviation"] < 1e-4
    assert "opset" not in content


@pytest.mark.parametrize("name", ["model.onnx", "model.safetensors"])
def test_predict_needs_no_checkpoint(own_run, tmp_path, name):
    kind = "onnx" if name.endswith("onnx") else "safetensors"
    assert main(["export", "--run", str(own_run), "--format", kind]) == 0
    images = np.random.default_rng(0).integers(0, 256, (20, 40, 30), dtype=np.uint8)
    np.savez(tmp_path / "images.npz", images=images)
    tables = []
    for target in (["--model", str(own_run / "export" / kind / name)], ["--run", str(own_run)]):
        out = tmp_path / f"{len(tables)}.csv"
        assert main(["predict", *target, "--images", str(tmp_path / "images.npz"), "--out", str(out)]) == 0
        with out.open(newline="") as file:
            tables.append(list(csv.reader(file)))
    heading = tables[0][0]  # the raw probabilities, which come last, are not known of an artifact
    assert heading == [name for name in tables[1][0] if not name.startswith("raw_")]
    assert [row[:2] for row in tables[0]] == [row[:2] for row in tables[1]]
    texts = [heading.index(name) for name in ("set", "abstain", "unlike_training")]
    assert [[row[k] for k in texts] for row in tables[0]] == [[row[k] for k in texts] for row in tables[1]]
    numbers = [k for k in range(2, len(heading)) if k not in texts]
    shown, wanted = (np.array([[row[k] for k in numbers] for row in table[1:]], dtype=float) for table in tables)
    np.testing.assert_allclose(shown, wanted, rtol=1e-4, atol=1e-5)


def test_one_image_has_one_probability(own_run, tmp_path):
    """In every table of a test, from the network, and from what was exported of it."""
    checkpoint = own_run / "checkpoints" / "best.ckpt"
    content = torch.load(checkpoint, weights_only=True)
    calibration = {"images": 32, "temperature": 0.3, "temperature_tta": 0.5, "thresholds_tta": None}
    torch.save({**content, "calibration": calibration}, checkpoint)
    run = str(own_run)
    assert main(["test", "--run", run]) == 0
    assert main(["predict", "--run", run]) == 0
    data = MedMNISTDataModule("synthetic", resolution=28, synthetic=Synthetic(train=64, val=32, test=32))
    data.setup("test")
    images = data.dataset_for("test").images.permute(0, 2, 3, 1).numpy()
    np.savez(tmp_path / "test.npz", test_images=images)
    given = ["--images", "test.npz", "--out"]
    assert main(["predict", "--run", run, *given, "network.csv"]) == 0
    for kind, flags in (("onnx", []), ("safetensors", []), ("torch", ["--no-tta"])):
        assert main(["export", "--run", run, "--format", kind, *flags]) == 0
    for name in ("onnx/model.onnx", "safetensors/model.safetensors"):
        assert main(["predict", "--model", f"{run}/export/{name}", *given, f"{Path(name).suffix[1:]}.csv"]) == 0
    tested = own_run / "evaluations" / "test_best"
    tables = {
        "test": pd.read_csv(tested / "predictions.csv"),
        "spreadsheet": pd.read_excel(tested / "reports" / "training_summary.xlsx", "Predictions"),
        "predict of the split": pd.read_csv(own_run / "evaluations" / "predict_best" / "predictions.csv"),
        **{name: pd.read_csv(f"{name}.csv") for name in ("network", "onnx", "safetensors")},
    }
    columns = [f"probability_class {k}" for k in range(4)]
    wanted = tables["test"]
    for name, table in tables.items():
        np.testing.assert_allclose(table[columns], wanted[columns], atol=1e-5, err_msg=name)
        assert table["prediction"].tolist() == wanted["prediction"].tolist(), name
    for kind in ("raw_probability", "raw_tta_probability"):
        raw = wanted[[f"{kind}_class {k}" for k in range(4)]].to_numpy()
        assert np.abs(raw - wanted[columns].to_numpy()).max() > 0.01
    assert content_of(own_run / "export" / "torch")["inside"]["views"] == ["identity"]
    assert content_of(own_run / "export" / "torch")["inside"]["temperature"] == 0.3
    assert content_of(own_run / "export" / "onnx")["inside"]["temperature"] == 0.5


def test_the_example_of_the_docs_predicts(exported, tmp_path):
    page = (REPOSITORY / "docs" / "export.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert len(code.splitlines()) <= 30
    assert set(re.findall(r"^(?:import|from) (\w+)", code, re.MULTILINE)) == {"json", "sys", "numpy", "onnxruntime"}
    (tmp_path / "example.py").write_text(code)
    images = np.random.default_rng(0).integers(0, 256, (5, 28, 28), dtype=np.uint8)
    np.savez(tmp_path / "images.npz", images=images)
    command = [sys.executable, str(tmp_path / "example.py"), str(exported / "model.onnx"), str(tmp_path / "images.npz")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    runtime = load_onnx(exported / "model.onnx")
    wanted = runtime.run(np.repeat(images[:, None], 3, axis=1))
    classes = runtime.contract.spec.classes
    assert done.stdout.splitlines() == [f"{classes[row.argmax()]} {row.max():.4f}" for row in wanted]


@pytest.mark.slow
def test_other_images_prove_it_too(own_run, tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (9, 50, 40, 3), dtype=np.uint8)
    np.savez(tmp_path / "images.npz", images=images)
    assert main(["export", "--run", str(own_run), "--images", str(tmp_path / "images.npz"), "--input", "float32"]) == 0
    content = content_of(own_run / "export" / "onnx")
    assert content["artifacts"][0]["parity"]["images"] == 9
    assert content["artifacts"][0]["parity"]["before"] == {}
    assert content["input"]["type"] == "float32"


@pytest.mark.slow
def test_benchmark(own_run, capsys, monkeypatch):
    from visionforge.exporting import speed

    monkeypatch.setattr(speed, "SECONDS", 0.001)
    monkeypatch.setattr(speed, "ROUNDS", 2)
    monkeypatch.setattr(torch, "compile", lambda module, dynamic: module)  # needs a compiler, and half a minute
    assert main(["export", "--run", str(own_run), "--benchmark"]) == 0
    rows = content_of(own_run / "export" / "onnx")["speed"]
    assert {row["batch"] for row in rows} == {1, 32, 256}
    assert {row["runtime"] for row in rows} == {"PyTorch", "PyTorch, compiled", "ONNX Runtime"}
    assert "ms per batch" in capsys.readouterr().out


def test_an_artifact_that_is_not_the_network_is_not_kept(own_run, monkeypatch, capsys):
    def wrong(path):
        runtime = load_onnx(path)
        return Runtime(
            runtime.contract,
            lambda images: runtime.answers(images) | {"probabilities": runtime.run(images) + np.float32(0.001)},
        )

    monkeypatch.setattr(artifacts, "load_onnx", wrong)
    before = sorted(own_run.rglob("*"))
    assert main(["export", "--run", str(own_run)]) == 2
    assert "deviates by 0.001 from the network (allowed: 0.0001)" in capsys.readouterr().err
    assert sorted(own_run.rglob("*")) == before


@pytest.mark.slow
def test_again_needs_overwrite_and_replaces_only_when_it_worked(own_run, monkeypatch, capsys):
    assert main(["export", "--run", str(own_run)]) == 0
    first = content_of(own_run / "export" / "onnx")
    assert main(["export", "--run", str(own_run)]) == 2
    assert "--overwrite" in capsys.readouterr().err
    monkeypatch.setattr(parity, "BOUND", 0.0)
    assert main(["export", "--run", str(own_run), "--overwrite"]) == 2
    assert content_of(own_run / "export" / "onnx") == first
    monkeypatch.undo()


def test_files_of_the_user_stay(own_run, tmp_path, capsys):
    project = tmp_path / "project"
    (project / "thesis").mkdir(parents=True)
    (project / "thesis" / "text.txt").write_text("three years")
    command = ["export", "--run", str(own_run), "--format", "safetensors", "--overwrite", "--out"]
    assert main([*command, str(project)]) == 0
    (project / "model.onnx").write_text("mine")
    assert main([*command, str(project)]) == 0
    names = {"model.safetensors", "export.json", "model_card.md", "model.onnx", "thesis", "text.txt"}
    assert {path.name for path in project.rglob("*")} == names
    (project / "model_card.md").write_text("edited")
    assert main([*command, str(project)]) == 2
    assert "model_card.md is not as this command wrote it" in capsys.readouterr().err
    before = sorted(own_run.rglob("*"))
    assert main([*command, str(own_run)]) == 2
    assert "is the folder of a run" in capsys.readouterr().err
    assert sorted(own_run.rglob("*")) == before


@pytest.mark.slow
def test_two_exports_into_one_folder(fleet, own_run, capsys):
    """The second is refused; what the first leaves when it is interrupted is nothing, and a finished one stays."""
    command = ["export", "--run", str(own_run), "--format", "torch"]
    before = sorted(own_run.rglob("*"))
    pid = fleet.start(*command)
    wait_for(lambda: (own_run / "export" / "torch" / ".export.json.lock.owner").exists())
    assert main(command) == 2
    assert f"in use by process {pid}" in capsys.readouterr().err
    os.kill(pid, signal.SIGTERM)
    ended = fleet.wait()
    assert (ended.status, ended.err) == (128 + signal.SIGTERM, "interrupted by SIGTERM\n")
    assert sorted(own_run.rglob("*")) == before
    assert main(command) == 0
    whole = {path: path.stat().st_mtime_ns for path in own_run.rglob("*") if path.is_file()}
    pid = fleet.start(*command, "--overwrite")
    wait_for(lambda: (own_run / "export" / "torch" / ".export.json.lock.owner").exists())
    os.kill(pid, signal.SIGINT)
    assert fleet.wait().status == 128 + signal.SIGINT
    assert {path: path.stat().st_mtime_ns for path in own_run.rglob("*") if path.is_file()} == whole


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--format", "torchscript"], "--format: torchscript is deprecated"),
        (["--format", "h5"], "export: argument --format"),
        (["--opset", "9"], "--opset: 9 is not allowed"),
        (["--int8", "--format", "torch"], "--int8: is a form of ONNX"),
        (["--opset", "19", "--format", "torch"], "--opset: belongs to ONNX"),
        (["--run", "nothing"], "--run: nothing is no folder"),
        (["--images", "nowhere"], "--images: nowhere does not exist"),
        (["--ckpt_path", "missing"], "--run: missing does not exist"),
    ],
)
def test_mistakes(refuse, quick_run, tmp_path, arguments, said):
    (line,) = refuse("export", "--run", str(quick_run), "--out", str(tmp_path / "x" / "y"), *arguments)
    assert line.startswith(said)


def test_a_run_without_a_checkpoint(refuse, own_run):
    shutil.rmtree(own_run / "checkpoints")
    (line,) = refuse("export", "--run", str(own_run))
    assert "no checkpoint, so it was not trained" in line


def test_a_missing_extra_is_named(refuse, quick_run, tmp_path, monkeypatch):
    real = formats.find_spec
    monkeypatch.setattr(formats, "find_spec", lambda name: None if name == "onnxscript" else real(name))
    (line,) = refuse("export", "--run", str(quick_run), "--out", str(tmp_path / "x"))
    assert line == '--format: onnx needs onnxscript: pip install "visionforge-lightning[onnx]"'


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--model", "none.onnx"], "--model: none.onnx does not exist"),
        (["--model", "m.onnx", "--run", "r"], "--model: is given instead of"),
        (["--model", "m.onnx", "--tta"], "--tta: an artifact has its views inside, or none"),
        (["--model", "m.onnx", "--accelerator", "gpu"], "--accelerator: artifacts run on the CPU"),
    ],
)
def test_mistakes_of_predict(refuse, tmp_path, arguments, said):
    np.savez(tmp_path / "images.npz", images=np.zeros((2, 28, 28), np.uint8))
    (line,) = refuse("predict", "--images", str(tmp_path / "images.npz"), *arguments)
    assert line.startswith(said)
