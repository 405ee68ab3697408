"""Volumes through the commands: trained, tested, predicted, explained, exported; resumed to the same weights."""

import csv
import json
import os
import signal

import numpy as np
import pytest
import torch
from PIL import Image

from tests.cli.test_interruption import has_ended_like, only_run, state, trained
from tests.conftest import run_folders
from tests.runs.helpers import wait_for
from visionforge.cli.main import main
from visionforge.config.schema import Backbone
from visionforge.data.info import TaskSpec
from visionforge.training.classifier import ImageClassifier

SETTINGS = [
    *("--data.dataset", "adrenalmnist3d", "--data.batch_size", "16", "--data.max_samples", "32"),
    *("--data.force_rgb", "false", "--model.backbone.name", "mini_cnn", "--model.backbone.pretrained", "false"),
    *(
        "--model.optimizer.name",
        "adamw",
        "--model.tta",
        "light",
        "--trainer.accelerator",
        "cpu",
        "--trainer.enable_progress_bar",
        "false",
    ),
]

SHORT = [  # where only that a command works, or how it ends, is looked at
    *("--trainer.limit_val_batches", "2", "--trainer.limit_test_batches", "2"),
    *("--model.tta", "off", "--evaluation.report", "false", "--evaluation.figures", "false"),
]


@pytest.fixture(scope="module")
def volumes(archives):
    if not (archives / "adrenalmnist3d.npz").is_file():
        pytest.skip(f"no adrenalmnist3d.npz in {archives}")
    return archives


def fit(volumes, folder, *flags):
    assert main(["fit", *SETTINGS, "--data.root", str(volumes), "--trainer.default_root_dir", str(folder), *flags]) == 0
    (run,) = (path for path in folder.iterdir() if path.is_dir() and not path.is_symlink())
    return run


@pytest.mark.slow
def test_every_command_of_a_run_takes_volumes(volumes, tmp_path, capsys):
    run = fit(volumes, tmp_path / "outputs", "--trainer.max_epochs", "1")
    assert json.loads((run / "metrics.json").read_text())["images"] == 298
    assert Image.open(run / "figures" / "explanations.png").width > 1000
    assert main(["test", "--run", str(run)]) == 0
    archive = volumes / "adrenalmnist3d.npz"
    table = tmp_path / "said.csv"
    assert main(["predict", "--run", str(run), "--images", str(archive), "--out", str(table)]) == 0
    said, tested = (probabilities(path) for path in (table, run / "predictions.csv"))
    np.testing.assert_allclose(said, tested, atol=1e-6)
    assert (
        main(["explain", "--run", str(run), "--images", str(archive), "--limit", "2", "--out", str(tmp_path / "x")])
        == 0
    )
    assert main(["export", "--run", str(run), "--format", "onnx"]) == 0
    assert "100.00% have the same prediction" in capsys.readouterr().out

    given = [*SETTINGS, "--data.root", str(volumes), "--trainer.max_epochs", "1", *SHORT]
    assert main(["fit", *given, "--seeds", "1,2", "--trainer.default_root_dir", str(tmp_path / "seeds")]) == 0
    seeds = run_folders(tmp_path / "seeds")
    assert main(["runs", "compare", *map(str, seeds)]) == 0
    assert main(["reproduce", str(seeds[0])]) == 0
    search = ("--tune.n_trials", "1", "--tune.space", '{"data.batch_size": null}')
    assert main(["tune", *given, *search, "--trainer.default_root_dir", str(tmp_path / "study")]) == 0


@pytest.mark.slow
def test_a_killed_training_with_volumes_ends_with_the_same_weights(volumes, fleet, tmp_path):
    several = ["--data.root", str(volumes), "--trainer.max_epochs", "4", "--trainer.deterministic", "true", *SHORT]
    several += ["--checkpoint_minutes", "0.001", "--model.backbone.dropout", "0.2"]
    ended = fleet.run("fit", *SETTINGS, *several, "--trainer.default_root_dir", tmp_path / "whole")
    assert ended.status == 0, ended.err
    pid = fleet.start("fit", *SETTINGS, *several, "--trainer.default_root_dir", tmp_path / "killed")
    wait_for(trained(tmp_path / "killed", 2))
    os.kill(pid, signal.SIGKILL)
    fleet.wait()
    killed = only_run(tmp_path / "killed")
    assert state(killed)["state"] != "complete"
    again = fleet.run("fit", "--resume", killed)
    assert again.status == 0, again.err
    has_ended_like(killed, only_run(tmp_path / "whole"))


@pytest.fixture
def untrained(tmp_path):
    """The checkpoint of a network for volumes of 16 voxels a side."""
    spec = TaskSpec(classes=2, channels=1, spatial_dims=3, resolution=16)
    torch.manual_seed(1)
    model = ImageClassifier(Backbone(name="mini_cnn", pretrained=False), spec=spec)
    model.configure_model()
    path = tmp_path / "x.ckpt"
    content = {"state_dict": model.state_dict(), "hyper_parameters": {**model.hparams, "restoring": True}}
    torch.save({**content, "pytorch-lightning_version": "2.6.0"}, path)
    return path


def test_a_scan_is_predicted_and_explained_as_its_array(untrained, tmp_path, refuse, monkeypatch):
    nibabel = pytest.importorskip("nibabel")
    (tmp_path / "scans").mkdir()
    volume = np.random.default_rng(0).integers(0, 256, (16,) * 3, dtype=np.uint8)
    np.save(tmp_path / "scans" / "a.npy", volume)
    to_the_left_and_back = np.diag([-1.0, -1, 1, 1])
    nibabel.save(nibabel.Nifti1Image(volume.transpose(2, 1, 0), to_the_left_and_back), tmp_path / "scans" / "b.nii.gz")
    nibabel.save(nibabel.Nifti1Image(volume, to_the_left_and_back), tmp_path / "scans" / "c.nii")
    (tmp_path / "scans" / "d.nii").write_bytes(b"no scan")
    flags = ["--ckpt_path", str(untrained), "--images", str(tmp_path / "scans"), "--accelerator", "cpu"]
    table = tmp_path / "said.csv"
    assert main(["predict", *flags, "--out", str(table)]) == 0
    array, scan, turned = probabilities(table)
    np.testing.assert_allclose(scan, array, atol=1e-6)
    assert np.abs(turned - array).max() > 1e-6
    with (tmp_path / "said.errors.csv").open(newline="") as file:
        (failure,) = csv.DictReader(file)
    assert failure["path"].endswith("d.nii")
    assert failure["reason"] == "does not begin as a NIfTI file does"
    assert main(["explain", *flags, "--out", str(tmp_path / "maps")]) == 0
    assert len(list((tmp_path / "maps").glob("*.png"))) == 3
    monkeypatch.setattr("visionforge.data.nifti.find_spec", lambda name: None)
    (line,) = refuse("predict", *flags, "--out", str(table), "--overwrite")
    assert line.endswith('b.nii.gz needs the package nibabel: pip install "visionforge-lightning[nifti]"')


def probabilities(path):
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    return np.array([[float(row[name]) for name in row if name.startswith("probability")] for row in rows])
