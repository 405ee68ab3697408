"""When SLURM is asked to start a job again, and that it is asked until it has heard."""

import os
import signal

import lightning.pytorch as pl
import pytest
from lightning.fabric.plugins.environments import SLURMEnvironment

from visionforge.engine.slurm import requeue
from visionforge.errors import PeerEndedError, TrainingError
from visionforge.runs.signals import Interrupted


@pytest.fixture
def asked(tmp_path, monkeypatch):
    """Put a `scontrol` into the path; the first that is called is ended, as `srun` does; return what they are told."""
    program, told = tmp_path / "bin" / "scontrol", tmp_path / "told"
    program.parent.mkdir()
    program.write_text(f'#!/bin/bash\n[ -e {told} ] || {{ touch {told}; kill -TERM $$; }}\necho "$@" >> {told}\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    return lambda: told.read_text() if told.exists() else None


def trainer(auto: bool = True) -> pl.Trainer:
    plugin = SLURMEnvironment(auto_requeue=auto, requeue_signal=signal.SIGUSR1)
    return pl.Trainer(plugins=[plugin], accelerator="cpu", devices=1, logger=False, enable_progress_bar=False)


def ended(lost: bool) -> PeerEndedError:
    return PeerEndedError("process 1 of 2 has ended", 1, lost=lost)


@pytest.mark.parametrize(
    ("error", "further", "expected"),
    [
        (Interrupted(signal.SIGUSR1), False, True),
        (Interrupted(signal.SIGTERM), True, False),
        (ended(lost=True), True, True),
        (ended(lost=True), False, False),
        (ended(lost=False), True, False),
        (TrainingError("the loss is not finite"), True, False),
    ],
)
def test_a_job_that_can_go_on_is_requeued(asked, error, further, expected):
    requeue(trainer(), error, further)
    assert asked() == ("requeue 7\n" if expected else None)


def test_a_job_is_left_alone_where_the_plugin_says_so(asked):
    requeue(trainer(auto=False), ended(lost=True), True)
    assert asked() is None
