"""Starts the command line in processes of its own, forked from one that has imported everything already."""

import contextlib
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from tests.conftest import REPOSITORY

SERVER = """
import gc, json, os, sys
gc.disable()
import matplotlib.pyplot, sklearn.metrics
import optuna.storages._rdb.storage, optuna.visualization._plotly_imports
import visionforge.engine.training, visionforge.engine.evaluating, visionforge.reporting.results
import visionforge.models.mini_cnn, visionforge.tasks.multi_class, visionforge.tuning.figures, visionforge.tuning.tuning
from visionforge.cli.main import main

gc.freeze()  # a collection in a child would copy every page that it looks through
gc.enable()
print("ready", flush=True)
for line in sys.stdin:
    job = json.loads(line)
    pid = os.fork()
    if pid == 0:
        os.setsid()
        os.chdir(job["folder"])
        for number, name in ((1, "out"), (2, "err")):
            os.dup2(os.open(job[name], os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.environ.update(job["environment"])
        sys.argv = ["visionforge"]
        try:
            status = main(job["arguments"])
        except BaseException:
            import traceback
            traceback.print_exc()
            status = 1
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    print(pid, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""


@dataclass
class Ended:
    """How a command ended."""

    status: int
    out: str
    err: str
    seconds: float


class Fleet:
    """One command after the other, each in a process of its own that can be killed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._server = subprocess.Popen(
            [sys.executable, "-c", SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY
        )
        assert self._server.stdout.readline() == "ready\n"
        self.pid = 0

    def start(self, *arguments: str, **environment: str) -> int:
        """Start `visionforge ARGUMENTS` and return its pid; `wait` has to follow."""
        if self.pid:  # a test failed before it waited: what the server says next is of that command
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            self.wait()
        for name in ("out", "err"):
            (self.folder / name).write_text("")
        job = {
            "arguments": [str(argument) for argument in arguments],
            "folder": str(self.folder),
            "environment": environment,
            "out": str(self.folder / "out"),
            "err": str(self.folder / "err"),
        }
        self._server.stdin.write(json.dumps(job) + "\n")
        self._server.stdin.flush()
        self._started = time.monotonic()
        self.pid = int(self._server.stdout.readline())
        return self.pid

    def wait(self) -> Ended:
        """Return how the command ended."""
        status = int(self._server.stdout.readline())
        self.pid = 0
        seconds = time.monotonic() - self._started
        return Ended(status, (self.folder / "out").read_text(), (self.folder / "err").read_text(), seconds)

    def run(self, *arguments: str, **environment: str) -> Ended:
        """Start a command and wait for its end."""
        self.start(*arguments, **environment)
        return self.wait()

    def killed_after(self, seconds: float, *arguments: str, number: int = signal.SIGKILL) -> Ended:
        """Start a command and send it a signal after a time, if it still runs."""
        pid = self.start(*arguments)
        with contextlib.suppress(ProcessLookupError):  # it has ended before
            while time.monotonic() - self._started < seconds:
                os.kill(pid, 0)
                time.sleep(0.01)
            os.kill(pid, number)
        return self.wait()

    def close(self) -> None:
        """End the server."""
        self._server.communicate()


def weights(run: Path, name: str) -> dict[str, torch.Tensor]:
    """Return the tensors of a checkpoint."""
    return torch.load(run / "checkpoints" / name, weights_only=True)["state_dict"]


def same_weights(one: Path, two: Path) -> bool:
    """Return whether the last and the best checkpoints of two runs are equal, bit for bit."""
    for name in ("last.ckpt", "best.ckpt"):
        left, right = weights(one, name), weights(two, name)
        if left.keys() != right.keys() or not all(torch.equal(left[key], right[key]) for key in left):
            return False
    return True


def results(run: Path) -> tuple[str, str, list[str]]:
    """Return what two repeats of a run have in common: metrics, predictions, and the epochs without their times."""
    rows = [line.split(",") for line in (run / "metrics.csv").read_text().splitlines()]
    place = rows[0].index("seconds")
    rows = [",".join([*row[:place], *row[place + 1 :]]) for row in rows]
    return (run / "metrics.json").read_text(), (run / "predictions.csv").read_text(), rows


def digests(folder: Path) -> dict[str, str]:
    """Return a checksum of every file below a folder."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }
