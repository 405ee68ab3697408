"""Processes that torchrun or srun has started: the first decides, all end together, and a lost one leaves its run."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from tests.conftest import EXHAUSTIVE, flags, run_folders
from tests.runs.helpers import wait_for

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not torch.distributed.is_available(), reason="this torch has no distributed package"),
]
SECONDS = 10.0  # in which all have to end
TWO = ["--trainer.devices", "2", "--trainer.strategy", "ddp"]
LONG = {"data__synthetic__train": 320, "trainer__max_epochs": 30, "trainer__deterministic": "true"}


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


class Job:
    """Two processes as a launcher starts them; the second may have other arguments, and come later."""

    def __init__(self, launcher: str, *arguments: object, second: tuple[object, ...] | None = None, restarts: int = 0):
        port = free_port()
        self.processes = []
        for rank, given in enumerate((arguments, arguments if second is None else second)):
            if launcher == "torch":
                own = {"RANK": rank, "WORLD_SIZE": 2, "LOCAL_RANK": rank, "LOCAL_WORLD_SIZE": 2, "GROUP_RANK": 0}
                own |= {"TORCHELASTIC_RUN_ID": "none", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
            else:
                own = {"SLURM_JOB_ID": 15, "SLURM_JOB_NAME": "night", "SLURM_NTASKS": 2, "SLURM_NTASKS_PER_NODE": 2}
                own |= {"SLURM_PROCID": rank, "SLURM_LOCALID": rank, "SLURM_NODEID": 0, "SLURM_NODELIST": "127.0.0.1"}
                own |= {"SLURM_STEP_ID": 0, "SLURM_RESTART_COUNT": restarts, "MASTER_PORT": port}
                own |= {"PATH": str(Path(sys.executable).parent)}  # where there is no `scontrol`
            environment = {**os.environ, "OMP_NUM_THREADS": "1", **{name: str(value) for name, value in own.items()}}
            command = [sys.executable, "-m", "visionforge", "fit", *map(str, given)]
            pipe = subprocess.PIPE
            self.processes.append(subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=environment))

    def end(self, within: float = 300.0) -> tuple[list[int], str]:
        """Return the exit statuses, and what was said; none may end more than ten seconds after another."""
        limit, ends = time.monotonic() + within, {}
        while len(ends) < 2 and time.monotonic() < limit:
            for process in self.processes:
                if process not in ends and process.poll() is not None:
                    ends[process] = time.monotonic()
            time.sleep(0.05)
        hung = [process for process in self.processes if process not in ends]
        for process in hung:
            process.kill()
        said = "".join(process.communicate()[1] for process in self.processes)
        assert not hung, said[-3000:]
        assert max(ends.values()) - min(ends.values()) < SECONDS, said[-3000:]
        return [process.returncode for process in self.processes], said


def errors(said: str) -> list[str]:
    return [line for line in said.splitlines() if line.startswith("error:") or "Traceback" in line]


def state(run):
    return json.loads((run / "run.json").read_text())


@pytest.mark.parametrize(
    ("launcher", "whom"),
    [("slurm", 1), *(pytest.param(*case, marks=EXHAUSTIVE) for case in (("slurm", 0), ("torch", 0), ("torch", 1)))],
)
def test_a_lost_process_ends_the_others_and_the_run_goes_on_by_itself(tmp_path, launcher, whom):
    settings = [*flags(**LONG, trainer__default_root_dir=tmp_path), *TWO]
    job = Job(launcher, *settings)
    wait_for(lambda: any(state(run)["progress"].get("epochs", 0) >= 1 for run in run_folders(tmp_path)), 120)
    job.processes[whom].send_signal(signal.SIGKILL)
    statuses, said = job.end()
    assert statuses[whom] == -signal.SIGKILL
    assert statuses[1 - whom] == 1, said[-3000:]
    assert errors(said) == [f"error: process {whom} of 2 was lost"]
    (run,) = run_folders(tmp_path)
    if whom == 1:  # the first has written how it ended
        assert (state(run)["state"], state(run)["error"]) == ("interrupted", "process 1 of 2 was lost")
    more = ["--trainer.max_epochs", "30"]
    again = Job(launcher, *settings, *more, *(["--resume", "auto"] if launcher == "torch" else []), restarts=1)
    statuses, said = again.end()
    assert statuses == [0, 0], said[-3000:]
    assert run_folders(tmp_path) == [run]
    assert (state(run)["state"], state(run)["progress"]["epochs"]) == ("complete", 30)
    assert said.count("continues from ") == 1
    assert len((run / "metrics.csv").read_text().splitlines()) == 31


MISTAKES = {
    "all": (["--model.optimizer.name", "nothing"], None, "error: model.optimizer.name: 'nothing' is not allowed"),
    "the first": (["--resume", "missing"], [], "error: --resume: missing"),
    "the second": ([], ["--data.synthetic.train", "1"], "error: data.batch_size: 16 on each of 2 devices leaves no"),
}


@pytest.mark.parametrize(
    ("launcher", "who"),
    [
        ("torch", "all"),
        ("slurm", "the second"),
        pytest.param("slurm", "all", marks=EXHAUSTIVE),
        *(pytest.param("torch", who, marks=EXHAUSTIVE) for who in ("the first", "the second")),
        ("slurm", "the first"),
    ],
)
def test_a_refusal_is_one_line_and_one_status(tmp_path, launcher, who):
    settings = [*flags(**LONG, trainer__default_root_dir=tmp_path), *TWO]
    more, of_second, line = MISTAKES[who]
    began = time.monotonic()
    second = None if of_second is None else (*settings, *of_second)
    statuses, said = Job(launcher, *settings, *more, second=second).end(60)
    assert statuses == [2, 2], said[-3000:]
    (told,) = errors(said)
    assert told.startswith(line)
    assert time.monotonic() - began < 45
    assert run_folders(tmp_path) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=EXHAUSTIVE)])
def test_a_signal_to_one_that_waits_ends_both(tmp_path, number):
    settings = [*flags(**LONG, trainer__default_root_dir=tmp_path), *TWO]
    job = Job("slurm", *settings)
    wait_for(lambda: any((run / "run.rank1.log").exists() for run in run_folders(tmp_path)), 60)
    job.processes[1].send_signal(number)
    statuses, said = job.end(60)
    assert set(statuses) <= {0, 128 + number}, said[-3000:]
    assert "Traceback" not in said
    assert all(state(run)["state"] == "interrupted" for run in run_folders(tmp_path))


def test_torchrun_itself_and_one_result(tmp_path):
    settings = [*flags(trainer__default_root_dir=tmp_path), *TWO]
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "visionforge", "fit"]
    done = subprocess.run([*command, *settings], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    (run,) = run_folders(tmp_path)
    assert state(run)["state"] == "complete"
    assert state(run)["sessions"][0]["hardware"]["processes"] == 2
    assert done.stdout.count("predictions.csv") == 1
