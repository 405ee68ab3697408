"""Runs that a command finds by itself, which anybody may have put there: nothing that their folder names is built."""

import json
import os
import shutil
import zipfile

import pytest
import torch
import yaml

from tests.conftest import flags
from visionforge.cli.main import main

pytestmark = pytest.mark.slow

STARTED = "STARTED"
SHELL = {"class_path": "subprocess.Popen", "init_args": {"args": f"touch {STARTED}", "shell": True}}
UNCOUNTED = {  # flags by which a run is not told from another
    "accelerator": "theirs",
    "logger": [SHELL],
    "profiler": "evil.Profiler",
    "strategy": SHELL,
    "default_root_dir": "/tmp/theirs",
}
SAME = {"trainer__deterministic": "true"}  # as plain_run
WAYS = {"auto": ["--resume", "auto"], "seeds": ["--seeds", "1"], "requeued": []}
JOB = {"SLURM_JOB_ID": "7", "SLURM_RESTART_COUNT": "1"}


@pytest.fixture
def found(plain_run, tmp_path, monkeypatch):
    """A stranger's interrupted run of the settings that are given, in the user's outputs folder."""
    folder = tmp_path / "outputs" / plain_run.name
    shutil.copytree(plain_run, folder)
    config = yaml.safe_load((folder / "config.yaml").read_text())
    config["trainer"] |= UNCOUNTED
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    manifest = json.loads((folder / "run.json").read_text())
    manifest["sessions"][-1]["scheduler"] = {"name": "SLURM", "job": "7", "restarts": 0}
    (folder / "run.json").write_text(json.dumps({**manifest, "state": "interrupted"}))
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / STARTED)!r}, 'w')\n")
    monkeypatch.syspath_prepend(tmp_path)
    return folder


@pytest.fixture(params=WAYS)
def command(request, tmp_path, monkeypatch):
    """A fit of the same settings that takes up what it finds."""
    if request.param == "requeued":
        for name, value in JOB.items():
            monkeypatch.setenv(name, value)
    return ["fit", *flags(trainer__default_root_dir=tmp_path / "outputs", **SAME), *WAYS[request.param]]


def test_it_goes_on_with_the_settings_that_were_given(found, command, tmp_path):
    assert main(command) == 0
    manifest = json.loads((found / "run.json").read_text())
    assert manifest["state"] == "complete"
    assert [session["checkpoint"] for session in manifest["sessions"]] == [None, "last.ckpt"]
    assert not (tmp_path / STARTED).exists()
    assert [path.name for path in (tmp_path / "outputs").glob("[!.l]*")] == [found.name]


def test_what_was_found_is_still_a_strangers_afterwards(found, command, refuse):
    """Its configuration stays as it is, and going on from it has not made it one's own."""
    assert main(command) == 0
    lines = refuse("reproduce", str(found), keeps=("matplotlib",))
    assert any("trainer.strategy: subprocess.Popen" in line and "--trust" in line for line in lines)


def test_a_pickle_in_its_checkpoint_is_not_run(found, command, tmp_path, capsys):
    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / STARTED),)

    (found / "checkpoints" / "last-previous.ckpt").unlink(missing_ok=True)
    torch.save({"state_dict": {}, "x": Trap()}, found / "checkpoints" / "last.ckpt")
    assert zipfile.is_zipfile(found / "checkpoints" / "last.ckpt")
    assert main(command) == 2
    told = capsys.readouterr().err
    assert "cannot be read as a checkpoint" in told
    assert "Traceback" not in told
    assert not (tmp_path / STARTED).exists()


@pytest.mark.parametrize("table", ["epoch\nx\n", "epoch\n0.5\n", "epoch\nnan\n", "a\n1\n", "epoch\n1,2,3\n"])
def test_its_table_of_epochs_is_refused_in_a_line(found, table, tmp_path, capsys):
    (found / "metrics.csv").write_text(table)
    assert main(["fit", *flags(trainer__default_root_dir=tmp_path / "outputs", **SAME), "--resume", "auto"]) == 2
    told = capsys.readouterr().err
    assert "cannot be read as the table of epochs" in told
    assert "Traceback" not in told
