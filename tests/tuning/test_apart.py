"""Trials on several devices: all processes obey the search, and no side outlives the other."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import optuna
import psutil
import pytest
import torch
from optuna.trial import TrialState

import visionforge as vf
from tests.conftest import EXHAUSTIVE, flags, run_folders
from tests.runs.helpers import wait_for
from visionforge.errors import SettingsError
from visionforge.tuning.trials import RUN, counted

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not torch.distributed.is_available(), reason="this torch has no distributed package"),
]
SEARCH = {
    "tune__preset": "quick",
    "tune__n_trials": 3,
    "tune__target": "null",
    "tune__study": "s",
    "tune__epochs": 3,
    "trainer__strategy": "ddp",
    "trainer__deterministic": "true",
    "data__global_batch_size": 16,
    "data__batch_size": 128,
}


def command(folder: Path, **changes) -> list[str]:
    settings = flags(**{**SEARCH, "trainer__default_root_dir": folder, **changes})
    return [sys.executable, "-m", "visionforge", "tune", *settings]


def tune(folder: Path, **changes) -> str:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command(folder, **changes), capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stderr


def study(folder: Path) -> optuna.Study:
    return optuna.load_study(study_name="s", storage=f"sqlite:///{folder}/studies/s/database/study.db")


def test_values_are_those_of_one_device(tmp_path):
    found = []
    for devices in (1, 2):
        tune(tmp_path / str(devices), trainer__devices=devices, tune__n_trials=1)
        trials = study(tmp_path / str(devices)).trials
        assert [trial.state for trial in trials] == [TrialState.COMPLETE]
        assert all(len(trial.intermediate_values) == 3 for trial in trials)
        assert all(Path(trial.user_attrs[RUN]).is_dir() for trial in trials)
        found.append([(trial.params, trial.value) for trial in trials])
    assert [params for params, _ in found[0]] == [params for params, _ in found[1]]
    runs = run_folders(tmp_path / "2" / "studies" / "s" / "trials")
    assert len(runs) == 1
    assert {json.loads((run / "run.json").read_text())["state"] for run in runs} == {"complete"}


@EXHAUSTIVE
@pytest.mark.parametrize("pruner", ["median", "halving"])
def test_all_processes_end_where_the_search_says_so(tmp_path, pruner):
    more = {"tune__n_warmup_epochs": 1, "tune__n_startup_trials": 1, "tune__n_trials": 4, "tune__epochs": 4}
    tune(tmp_path, trainer__devices=2, tune__pruner=pruner, **more)
    trials = study(tmp_path).trials
    assert len(counted(trials)) == 4
    early = [trial for trial in trials if trial.state == TrialState.PRUNED]
    assert early
    assert all(0 < len(trial.intermediate_values) < 4 for trial in early)
    assert max(len(trial.intermediate_values) for trial in trials) == 4


def test_too_few_images_for_all_devices_are_one_line(tmp_path):
    few = command(tmp_path, trainer__devices=2, data__synthetic__train=20, data__global_batch_size=64)
    done = subprocess.run(few, capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr[-3000:]
    assert "leaves no training step" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("kind", [signal.SIGKILL, pytest.param(signal.SIGTERM, marks=EXHAUSTIVE)])
def test_a_search_that_ends_takes_its_processes_along(tmp_path, kind):
    long = {"trainer__devices": 2, "tune__epochs": 60, "data__synthetic__train": 320, "tune__n_trials": 1}
    process = subprocess.Popen(command(tmp_path, **long), stderr=subprocess.PIPE, text=True)
    wait_for(
        lambda: any((run / "metrics.csv").exists() for run in run_folders(tmp_path / "studies" / "s" / "trials")), 120
    )
    children = psutil.Process(process.pid).children(recursive=True)
    assert len(children) >= 2
    process.send_signal(kind)
    said = process.communicate(timeout=60)[1]
    limit = time.monotonic() + 30
    while any(child.is_running() and child.status() != "zombie" for child in children) and time.monotonic() < limit:
        time.sleep(0.1)
    assert not [child for child in children if child.is_running() and child.status() != "zombie"], said
    (run,) = run_folders(tmp_path / "studies" / "s" / "trials")
    assert json.loads((run / "run.json").read_text())["state"] == "interrupted"
    assert (run / "checkpoints" / "last.ckpt").is_file()


def test_several_machines_are_refused():
    with pytest.raises(SettingsError, match=r"trainer\.num_nodes: 2 is not allowed; a trial runs on one machine"):
        vf.tune(**{"data.dataset": "synthetic", "data.batch_size": 16, "trainer.devices": 2, "trainer.num_nodes": 2})
