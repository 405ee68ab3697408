"""The log file holds every line from the first on, once."""

import logging
import warnings

import pytest
from lightning.fabric.plugins.environments import slurm

from visionforge.runs.logfile import RunLog


def test_lines_before_and_after_the_file_exists(tmp_path, capsys):
    log = RunLog()
    log.start()
    try:
        logging.getLogger("visionforge.a").info("before")
        logging.getLogger("lightning.pytorch.b").info("quiet")
        log.attach(tmp_path / "run.log")
        logging.getLogger("visionforge.a").info("after")
        warnings.warn("careful\nsecond line\n", UserWarning, stacklevel=1)
    finally:
        log.stop()
    logging.getLogger("visionforge.a").info("too late")
    lines = (tmp_path / "run.log").read_text().splitlines()
    assert [line.split(": ", 1)[1] for line in lines[:3]] == ["before", "quiet", "after"]
    assert len(lines) == 4
    assert "careful second line" in lines[3]
    shown = capsys.readouterr().err
    assert "before" in shown
    assert "after" in shown
    assert "quiet" not in shown
    assert len([line for line in shown.splitlines() if "careful" in line]) == 1


def test_stop_restores_the_loggers():
    logger = logging.getLogger("visionforge")
    before = (logger.handlers[:], logger.level, logger.propagate)
    log = RunLog()
    log.start()
    log.stop()
    assert (logger.handlers, logger.level, logger.propagate) == before


@pytest.mark.parametrize(("tasks", "told"), [(None, False), ("1", False), ("2", True)])
def test_srun_is_asked_for_only_in_a_job_of_several_tasks(tmp_path, monkeypatch, capsys, tasks, told):
    """Lightning's own check, on a host that has the program."""
    monkeypatch.setattr(slurm.shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.delenv("SLURM_NTASKS", raising=False)
    if tasks is not None:
        monkeypatch.setenv("SLURM_NTASKS", tasks)
        monkeypatch.setenv("SLURM_JOB_NAME", "interactive")
    with RunLog() as log, warnings.catch_warnings():
        warnings.simplefilter("always")
        log.attach(tmp_path / "run.log")
        slurm.SLURMEnvironment._validate_srun_used()
    assert ("srun" in capsys.readouterr().err) == told
    assert ("srun" in (tmp_path / "run.log").read_text()) == told
