"""The settings that say how a run is kept, logged and started: each changes what happens, none changes the result."""

import json
import subprocess
import sys
import time

import pytest
import torch

from tests.conftest import REPOSITORY, flags, run_folders
from tests.runs.helpers import python
from visionforge.cli.main import main
from visionforge.runs.paths import cache_folder
from visionforge.training import checkpoints

HOLD_DEVICE = """
import socket, sys, time
from pathlib import Path
from visionforge.runs.locks import held
folder = Path(sys.argv[1])
folder.mkdir(parents=True)
with held(folder / f"{socket.gethostname()}-cpu.lock", "cpu", 0):
    print("ready", flush=True)
    time.sleep(float(sys.argv[2]))
"""


def fit(outputs, *arguments, **changes):
    assert main(["fit", *flags(trainer__default_root_dir=outputs, **changes), *arguments]) == 0
    (run,) = run_folders(outputs)
    return run


def test_log_level_decides_what_the_console_shows_and_not_the_file(tmp_path, capsys):
    shown, logs = {}, {}
    for level in ("debug", "info", "warning"):
        run = fit(tmp_path / level, log_level=level)
        shown[level] = capsys.readouterr().err
        logs[level] = (run / "run.log").read_text()
    assert "epoch 2, loss" in shown["info"]
    assert shown["warning"] == ""
    assert "epoch 2, loss" in logs["warning"]
    assert " DEBUG " in logs["debug"]
    assert " DEBUG " not in logs["info"]


@pytest.mark.slow
def test_console_is_plain_where_it_is_no_terminal(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "visionforge", "fit", *flags(trainer__default_root_dir=tmp_path / "outputs")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "\x1b" not in done.stdout + done.stderr
    assert "\r" not in done.stdout + done.stderr


def test_checkpoint_minutes_saves_within_an_epoch(tmp_path):
    """The one before the last is that of the epoch before, or one within the last epoch."""
    rare = fit(tmp_path / "rare", checkpoint_minutes=100)
    often = fit(tmp_path / "often", checkpoint_minutes=0.0001)
    assert rare.name == often.name, "how often it is saved is no part of what it is"
    steps = [
        torch.load(run / "checkpoints" / "last-previous.ckpt", weights_only=True)["global_step"]
        for run in (rare, often)
    ]
    assert steps == [4, 7]


def test_exclusive_device_waits_with_a_bound_and_names_the_owner(tmp_path, refuse, capsys):
    folder = cache_folder() / "devices"
    with python(HOLD_DEVICE, folder, 100, cwd=REPOSITORY) as owner:
        settings = flags(trainer__default_root_dir=tmp_path / "outputs", device_wait=0.2)
        (line,) = refuse("fit", *settings, "--exclusive-device")
        assert f"exclusive_device: cpu: in use by process {owner.pid} on " in line
        assert main(["fit", *settings]) == 0, "without the flag, nobody waits"


def test_exclusive_device_goes_on_when_the_device_is_free(tmp_path, capsys):
    with python(HOLD_DEVICE, cache_folder() / "devices", 2, cwd=REPOSITORY) as owner:
        started = time.monotonic()
        run = fit(tmp_path / "outputs", "--exclusive-device")
        assert time.monotonic() - started > 0.5
        assert f"waiting for process {owner.pid} on " in (run / "run.log").read_text()
    assert not list((cache_folder() / "devices").iterdir())


@pytest.mark.slow
def test_two_fits_with_the_flag_take_turns(tmp_path):
    begin = [sys.executable, "-m", "visionforge", "fit", "--exclusive-device"]
    processes = [
        subprocess.Popen([*begin, *flags(seed_everything=seed, trainer__default_root_dir=tmp_path / "outputs")])
        for seed in (1, 2)
    ]
    assert [process.wait() for process in processes] == [0, 0]
    assert len(run_folders(tmp_path / "outputs")) == 2


def test_outputs_follow_the_project_and_the_variable(tmp_path, monkeypatch):
    project = tmp_path / "project"
    (project / "sub").mkdir(parents=True)
    (project / "pyproject.toml").write_text("")
    monkeypatch.chdir(project / "sub")
    assert main(["fit", *flags(trainer__max_epochs=1)]) == 0
    (run,) = run_folders(project / "outputs")
    assert main(["test", "--run", run.name]) == 0, "a run is found by its name"
    monkeypatch.setenv("VISIONFORGE_OUTPUTS", str(tmp_path / "mine"))
    assert main(["fit", *flags(trainer__max_epochs=1)]) == 0
    assert [path.name for path in run_folders(tmp_path / "mine")] == [run.name]


def test_saved_paths_are_anchored_and_are_read_back(tmp_path, monkeypatch, archives):
    project = tmp_path / "project"
    (project / "data").mkdir(parents=True)
    (project / "pyproject.toml").write_text("")
    (project / "data" / "breastmnist.npz").symlink_to(archives / "breastmnist.npz")
    monkeypatch.chdir(project)
    few = {"data__dataset": "breastmnist", "data__max_samples": 32, "trainer__max_epochs": 1}
    run = fit(project / "outputs", **few, data__root="data")
    text = (run / "config.yaml").read_text()
    assert "root: project://data" in text
    assert "default_root_dir: outputs://" in text
    assert str(tmp_path) not in text
    (project / "deep").mkdir()
    monkeypatch.chdir(project / "deep")
    assert main(["fit", "--config", str(run / "config.yaml")]) == 0
    assert [path.name for path in run_folders(project / "outputs")] == [run.name, f"{run.name}-2"]


def test_unknown_anchor_is_one_line(refuse):
    (line,) = refuse("fit", *flags(data__root="s3://bucket"))
    assert line.startswith("data.root: s3://bucket: no such anchor; allowed: data://, ")


def test_fit_from_a_checkpoint_is_another_run_than_one_without(quick_run, tmp_path):
    run = fit(tmp_path / "outputs", "--ckpt_path", str(quick_run / "checkpoints" / "last.ckpt"), trainer__max_epochs=3)
    plain = fit(tmp_path / "plain", trainer__max_epochs=3)
    assert run.name != plain.name
    stored = json.loads((run / "run.json").read_text())
    assert stored["sessions"][0]["checkpoint"] == "last.ckpt"
    assert stored["parent"] == {"run": quick_run.name, "reason": "checkpoint"}


@pytest.mark.parametrize(
    ("name", "changes", "told"),
    [
        ("last", {}, "was trained up to epoch 2, and trainer.max_epochs is 2; raise it to train further"),
        ("last", {"trainer__max_epochs": 1}, "was trained up to epoch 2, and trainer.max_epochs is 1; raise it"),
        (
            "last",
            {"trainer__max_epochs": 9, "trainer__max_steps": 8},
            "was trained up to step 8, and trainer.max_steps",
        ),
        ("best", {"trainer__max_epochs": 9}, "holds weights only, from which no training goes on; name the run's last"),
    ],
)
def test_a_checkpoint_that_leaves_nothing_to_train_is_refused(quick_run, refuse, name, changes, told):
    checkpoint = quick_run / "checkpoints" / f"{name}.ckpt"
    (line,) = refuse("fit", *flags(**changes), "--ckpt_path", str(checkpoint))
    assert line.startswith(f"ckpt_path: {checkpoint} {told}")


def test_a_checkpoint_of_an_earlier_epoch_is_trained_to_the_end(quick_run, tmp_path):
    run = fit(tmp_path / "outputs", "--ckpt_path", str(quick_run / "checkpoints" / checkpoints.PREVIOUS))
    assert json.loads((run / "run.json").read_text())["progress"]["epochs"] == 2


def test_previous_checkpoint_has_its_own_content(quick_run):
    folder = quick_run / "checkpoints"
    last, previous = (torch.load(folder / name, weights_only=True) for name in (checkpoints.LAST, checkpoints.PREVIOUS))
    assert (previous["epoch"], last["epoch"]) == (0, 1)
