"""A run that goes on with another number of processes: the same steps, or one line."""

import json
import os
import shutil
import signal
import subprocess
import sys

import pytest
import torch

from tests.conftest import flags, run_folders
from tests.runs.helpers import wait_for
from visionforge.cli.main import main

PROGRAM = [sys.executable, "-m", "visionforge"]
PLAIN = '''
from torch import nn
from visionforge.models import BackboneEntry, register_backbone


class Plain(nn.Module):
    def __init__(self, in_channels, num_classes, dropout):
        super().__init__()
        self.stem = nn.Conv2d(in_channels, 16, 3, stride=2, padding=1)
        self.second = nn.Sequential(nn.GroupNorm(4, 16), nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.GELU())
        self.head = nn.Sequential(nn.Dropout(dropout), nn.Linear(32, num_classes))

    def forward(self, images):
        return self.head(self.second(self.stem(images)).mean(dim=(2, 3)))


def build_plain(*, in_channels, num_classes, dropout, resolution, scale):
    """Two convolutions."""
    return Plain(in_channels, num_classes, dropout)


register_backbone(BackboneEntry(name="plain", builder=build_plain, stem="stem.weight", head="head.1.",
                                description="Two convolutions", stages=("second",)))
'''
NETWORK = {  # without batch normalisation, with all that draws
    "data__resolution": 28,
    "data__synthetic__train": 160,
    "data__augmentation__operations": "[gaussian_noise]",
    "model__backbone__name": "plain",
    "model__backbone__dropout": 0.2,
    "model__mixup__alpha": 0.4,
    "model__optimizer__learning_rate": 0.02,
    "trainer__max_epochs": 25,
    "trainer__deterministic": "true",
}
TWO, ONE = (["--trainer.devices", str(n), "--trainer.strategy", "ddp" if n == 2 else "auto"] for n in (2, 1))


@pytest.fixture
def network(tmp_path) -> dict[str, object]:
    """Return the settings of a network of one's own, which a file brings."""
    (tmp_path / "plain.py").write_text(PLAIN)
    return {**NETWORK, "import": tmp_path / "plain.py"}


def progress(run):
    return json.loads((run / "run.json").read_text())["progress"].get("epochs", 0)


def trained(run):
    return torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)


def interrupted(outputs, settings, devices):
    """Return a run that was asked to end in its second epoch or a later one."""
    command = [*PROGRAM, "fit", *settings, *devices, "--trainer.default_root_dir", str(outputs)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    wait_for(lambda: any(progress(run) >= 1 for run in run_folders(outputs)), 120)
    os.killpg(process.pid, signal.SIGTERM)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM, said[-3000:]
    (run,) = run_folders(outputs)
    return run


def goes_on(*arguments):
    done = subprocess.run([*PROGRAM, "fit", *map(str, arguments)], capture_output=True, text=True, timeout=300)
    return done.returncode, done.stderr


@pytest.mark.slow
@pytest.mark.skipif(not torch.distributed.is_available(), reason="this torch has no distributed package")
def test_a_run_goes_on_with_more_or_fewer_processes_and_learns_the_same(tmp_path, network):
    settings = flags(**network, data__batch_size=32)
    assert main(["fit", *settings, *ONE, "--trainer.default_root_dir", str(tmp_path / "whole")]) == 0
    (whole,) = run_folders(tmp_path / "whole")
    halves = flags(**network, data__batch_size=16)
    two, one = interrupted(tmp_path / "two", halves, TWO), interrupted(tmp_path / "one", settings, ONE)
    shutil.copytree(two, tmp_path / "copy" / two.name)
    for run, arguments, before, now in (
        (two, ["--resume", two, *ONE], "2 devices", "1 device"),
        (one, ["--resume", one, *TWO], "1 device", "2 devices"),
        (
            tmp_path / "copy" / two.name,  # found by its settings, which share the images otherwise
            [*settings, *ONE, "--resume", "auto", "--trainer.default_root_dir", tmp_path / "copy"],
            "2 devices",
            "1 device",
        ),
    ):
        code, said = goes_on(*arguments)
        assert code == 0, said[-3000:]
        assert said.count(f"goes on with {now} in the place of {before}, on 32 images a step as before") == 1
        stored = json.loads((run / "run.json").read_text())
        assert (stored["state"], stored["progress"]["epochs"]) == ("complete", 25)
        theirs, ours = trained(whole), trained(run)
        assert theirs["global_step"] == ours["global_step"]
        for name, value in theirs["state_dict"].items():
            torch.testing.assert_close(ours["state_dict"][name], value, rtol=0, atol=2e-5)
        rows = [(folder / "metrics.csv").read_text().splitlines() for folder in (whole, run)]
        assert len(rows[0]) == len(rows[1]) == 26


@pytest.mark.slow
@pytest.mark.skipif(not torch.distributed.is_available(), reason="this torch has no distributed package")
def test_what_would_change_the_steps_is_one_line(tmp_path, network):
    run = interrupted(tmp_path / "outputs", flags(**network, data__batch_size=16), TWO)
    before = (run / "run.json").read_text()
    for arguments, line in (
        (["--data.batch_size", "16", *ONE], "data.global_batch_size: 16 given, "),
        (["--data.global_batch_size", "64", *TWO], "data.global_batch_size: 64 given, "),
        (
            ["--trainer.devices", "3", "--trainer.strategy", "ddp"],
            "data.global_batch_size: 32 cannot be divided among 3",
        ),
    ):
        code, said = goes_on("--resume", run, *arguments)
        assert code == 2, said[-3000:]
        assert line in said
        assert "Traceback" not in said
    assert (run / "run.json").read_text() == before
