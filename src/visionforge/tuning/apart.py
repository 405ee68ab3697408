"""A trial on several devices: a training of its own processes, which tells the search of its epochs.

The search starts the first process of a trial, which starts the others as every fit does. They are told what to train
by a file; the first one and the search talk over a socket, in lines of JSON: the run that it has made, the value of
every epoch, and back whether the trial ends there, which all processes then do. When either side goes, the other ends.
"""

import contextlib
import json
import os
import queue
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import optuna
from lightning.pytorch.callbacks import Callback

from visionforge.config.environment import keep_freed_memory
from visionforge.config.imports import import_modules
from visionforge.config.schema import RunSettings
from visionforge.engine.fit import Origin, Request, TrialPart, fit
from visionforge.engine.worker_processes import EXIT_MISTAKE, end_workers, threads_for
from visionforge.errors import TrainingError, VisionForgeError
from visionforge.inference.trust import training_config
from visionforge.runs.signals import Interrupted, Interruption
from visionforge.runs.workspace import Workspace
from visionforge.streams import warn
from visionforge.training.checkpoints import LastCheckpoint

SOCKET = "VISIONFORGE_TRIAL_SOCKET"  # number of the file descriptor, in the first process of a trial
MODULE = "visionforge.tuning.apart"
POLL_S = 0.2
LONGEST_LINE = 1 << 20  # bytes


@dataclass(frozen=True)
class Watch:
    """What the search does with a trial's epochs.

    Attributes:
        begun: Called with the run folder.
        ended: Called with the number of an epoch from 0 and its value; returns whether the trial is to end.
        pauses: It ends after the epoch's checkpoint, so that it can go on later.
        waits: It ends at once, after the checkpoint that it goes on with.
        metric: What the search goes by.
    """

    begun: Callable[[Path], None]
    ended: Callable[[int, float], bool]
    pauses: bool
    waits: bool
    metric: str


def fit_apart(
    settings: RunSettings,
    processes: int,
    run: Workspace | None,
    parent: Mapping[str, Any],
    watch: Watch,
    interruption: Interruption,
) -> Path:
    """Run a trial in processes of its own, and return the run folder.

    Args:
        settings: Those of the trial.
        processes: How many there are.
        run: The run that it goes on with; None for a new one.
        parent: What the manifest says of its origin.
        watch: Is told of the epochs.
        interruption: Handles the signals.

    Raises:
        optuna.TrialPruned: If the watch has ended it.
        TrainingError: If it failed.
        Interrupted: If a signal asked to end.
    """
    job = {
        "settings": settings.model_dump(mode="json", exclude_unset=True),
        "run": None if run is None else str(run.path),
        "parent": dict(parent),
        "metric": watch.metric,
        "pauses": watch.pauses,
        "waits": watch.waits,
    }
    with tempfile.TemporaryDirectory(prefix="visionforge-trial-") as folder:  # nobody else may look into it
        path = Path(folder) / "trial.json"
        path.write_text(json.dumps(job), encoding="utf-8")
        ours, theirs = socket.socketpair()
        environment = {**os.environ, SOCKET: str(theirs.fileno())}
        environment.pop("SLURM_NTASKS", None)  # by which Lightning would wait for processes that srun starts
        environment.setdefault("OMP_NUM_THREADS", str(threads_for(processes)))
        with ours:
            with theirs:
                process = subprocess.Popen(
                    [sys.executable, "-m", MODULE, str(path)],
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    pass_fds=[theirs.fileno()],
                    start_new_session=True,
                )
            try:
                return _watched(ours, watch, interruption)
            finally:
                ours.close()  # whoever still trains hears that nobody listens
                with interruption.deferred():
                    _wait_or_end(process)


def _wait_or_end(process: subprocess.Popen[bytes]) -> None:
    """Give a process that has said its last word the time to part from the others; otherwise ask it to end."""
    try:
        process.wait(5.0 if sys.exc_info()[0] is not Interrupted else 0.0)
    except subprocess.TimeoutExpired:
        end_workers([process])
    with contextlib.suppress(OSError):  # whoever it has started, and could not end
        os.killpg(process.pid, signal.SIGKILL)


def _watched(link: socket.socket, watch: Watch, interruption: Interruption) -> Path:
    """Answer a trial to its end."""
    link.settimeout(POLL_S)
    for said in _lines(link, interruption):
        if "run" in said:
            watch.begun(Path(said["run"]))
        elif "epoch" in said:
            end = bool(watch.ended(int(said["epoch"]), float(said["value"])))
            with contextlib.suppress(OSError):  # it has gone, which is read next
                link.sendall(json.dumps({"end": end}).encode() + b"\n")
        elif "done" in said:
            return Path(said["done"])
        elif "pruned" in said:
            raise optuna.TrialPruned(said["pruned"])
        elif "failed" in said:
            raise TrainingError(said["failed"])
    raise TrainingError("the processes of the trial ended without a word; see its run folder")


def _lines(link: socket.socket, interruption: Interruption) -> Iterator[dict[str, Any]]:
    """Yield what the other side says until it goes; signals are looked for meanwhile."""
    kept = b""
    while True:
        interruption.check()
        try:
            received = link.recv(1 << 16)
        except TimeoutError:
            continue
        except OSError:
            return
        if not received:
            return
        *whole, kept = (kept + received).split(b"\n")
        for line in whole:
            yield json.loads(line)


# --- in the processes of the trial


class Link:
    """The first process's end of the socket; it ends the training when the search goes.

    Args:
        end: The socket.
    """

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        self._answers: queue.Queue[dict[str, Any]] = queue.Queue()
        self._over = False
        threading.Thread(target=self._listen, daemon=True, name="trial").start()

    def _listen(self) -> None:
        with contextlib.suppress(OSError, ValueError), self._end.makefile("rb") as lines:
            while line := lines.readline(LONGEST_LINE):
                self._answers.put(json.loads(line))
        if not self._over:
            self._answers.put({"end": False})  # the signal ends it, as a run that can go on
            os.kill(os.getpid(), signal.SIGTERM)  # as if the search had asked for it

    def say(self, **said: Any) -> None:
        """Tell the search."""
        with contextlib.suppress(OSError):
            self._end.sendall(json.dumps(said).encode() + b"\n")

    def conclude(self, **said: Any) -> None:
        """Tell the search how it has ended, the last word."""
        self._over = True
        self.say(**said)

    def ask(self, **said: Any) -> bool:
        """Tell of an epoch, and return whether the trial ends."""
        self.say(**said)
        return bool(self._answers.get()["end"])


class Told(Callback):
    """Tells the search of every epoch; all processes end where it says so.

    Args:
        link: To the search, in the first process.
        metric: What the search goes by.
        pauses: End after the epoch's checkpoint.
        waits: End after the checkpoint that it goes on with.
    """

    def __init__(self, link: Link | None, metric: str, pauses: bool, waits: bool) -> None:
        self._link, self._metric, self._pauses = link, metric, pauses
        self._ends = waits

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Say where the run lies."""
        for callback in trainer.checkpoint_callbacks:
            if self._link is not None and isinstance(callback, LastCheckpoint):
                self._link.say(run=str(callback.path.parent.parent))

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Say what came out, and hear whether to end.

        Raises:
            optuna.TrialPruned: If it ends at once.
        """
        if trainer.sanity_checking:
            return
        value = float(trainer.callback_metrics[self._metric])
        end = self._link is not None and self._link.ask(epoch=trainer.current_epoch, value=value)
        self._ends = bool(trainer.strategy.broadcast(end))
        if not self._pauses:
            self._end(f"ended after epoch {trainer.current_epoch + 1}")

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """End here if the trial is to wait: the epoch before has its checkpoint now.

        Raises:
            optuna.TrialPruned: If it is.
        """
        self._end(f"paused after {trainer.current_epoch} epochs")

    def _end(self, how: str) -> None:
        if self._ends:
            raise optuna.TrialPruned(how)


@contextmanager
def _telling(link: Link | None) -> Iterator[None]:
    """Tell the search how it has ended."""
    try:
        yield
    except optuna.TrialPruned as pruned:
        if link is not None:
            link.conclude(pruned=str(pruned))
    except VisionForgeError as error:
        if link is not None:
            link.conclude(failed=list(error.problems))
        raise
    except Exception as error:
        if link is not None:
            link.conclude(failed=f"{type(error).__name__}: {' '.join(str(error).split())}")
        raise


def main(path: Path) -> int:
    """Train as one of the processes of a trial, and return the exit status."""
    keep_freed_memory()
    job = json.loads(path.read_text(encoding="utf-8"))
    number = os.environ.pop(SOCKET, None)  # the other processes, which the first one starts, have none
    link = None if number is None else Link(socket.socket(fileno=int(number)))
    try:
        with _telling(link), Interruption() as interruption:
            import_modules(job["settings"].get("imports", ()))
            settings = RunSettings.model_validate(job["settings"])
            run = None if job["run"] is None else Workspace(Path(job["run"]))
            stored = None if run is None else training_config(run, None, "trial")
            told = Told(link, job["metric"], job["pauses"], job["waits"])
            part = TrialPart([told], optuna.TrialPruned, job["metric"])
            made = fit(Request(settings, {}, run=run, stored=stored), interruption, Origin(job["parent"], part))
            if link is not None:
                link.conclude(done=str(made.path))
    except VisionForgeError as error:
        if link is None:
            for problem in error.problems:
                warn(f"error: {problem}")
        return EXIT_MISTAKE
    except Interrupted as interrupted:
        return 0 if link is None else interrupted.exit_status  # another's would make its launcher kill the first
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
