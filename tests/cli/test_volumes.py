"""Volumes through the commands: trained, tested, predicted, explained, exported; resumed to the same weights."""

import csv
import json
import os
import signal

import numpy as np
import pytest
from PIL import Image

from tests.cli.test_interruption import has_ended_like, only_run, state, trained
from tests.runs.helpers import wait_for
from visionforge.cli.main import main

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


@pytest.mark.slow
def test_a_killed_training_with_volumes_ends_with_the_same_weights(volumes, fleet, tmp_path):
    several = ["--data.root", str(volumes), "--trainer.max_epochs", "4", "--trainer.deterministic", "true"]
    several += [
        "--model.tta",
        "off",
        "--evaluation.report",
        "false",
        "--checkpoint_minutes",
        "0.001",
        "--model.backbone.dropout",
        "0.2",
    ]
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


def probabilities(path):
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    return np.array([[float(row[name]) for name in row if name.startswith("probability")] for row in rows])
