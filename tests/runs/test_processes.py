"""Processes of dead runs are known by the run's own record, never by name, and only those are ended."""

import json
import math
import os
import subprocess
import sys

import psutil
import pytest

from tests.runs.helpers import create, wait_for
from visionforge.runs.locks import read_owner
from visionforge.runs.processes import (
    MARK,
    RECORD,
    ProcessId,
    end_processes,
    leftovers,
    machine,
    this_process,
)
from visionforge.runs.session import clear_leftovers
from visionforge.runs.signature import PROCESSES, canonical_content, sign
from visionforge.runs.workspace import Workspace

SLEEP = [sys.executable, "-c", "import time; print('ready', flush=True); time.sleep(100)"]
DEAF = [
    sys.executable,
    "-c",
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready', flush=True); time.sleep(100)",
]
POLITE = """
import pathlib, signal, sys, time
def leave(*_):
    pathlib.Path(sys.argv[1]).write_text("left")
    sys.exit(0)
signal.signal(signal.SIGTERM, leave)
print('ready', flush=True)
time.sleep(100)
"""


@pytest.fixture
def start():
    processes = []

    def run(command=SLEEP, mark=None):
        environment = {key: value for key, value in os.environ.items() if key != MARK}
        if mark is not None:
            environment[MARK] = mark
        process = subprocess.Popen(command, stdout=subprocess.PIPE, env=environment)
        assert process.stdout.readline() == b"ready\n"
        processes.append(process)
        return process

    yield run
    for process in processes:
        process.kill()
        process.wait()


def dead():
    return {**this_process().as_dict(), "pid": 2**22 - 1, "created": 1.0}


def record(folder, *processes, mark="mine", main=None, signed=True):
    entries = [ProcessId.of(psutil.Process(process.pid)).as_dict() for process in processes]
    folder.mkdir(exist_ok=True)
    write({"mark": mark, "processes": [main or dead(), *entries]}, folder, signed)


def write(content, folder, signed=True):
    signature = sign(canonical_content(content), PROCESSES) if signed else "0" * 32
    (folder / RECORD).write_text(json.dumps({**content, "signature": signature}))


def pids(folder):
    return {process.pid for process in leftovers(folder)}


def test_a_record_of_a_stranger_names_nobody(tmp_path, start):
    innocent, marked = start(), start(mark="mine")
    for number, signed in enumerate((False, True)):
        record(tmp_path / str(number), innocent, signed=signed)
    assert pids(tmp_path / "0") == set()
    assert pids(tmp_path / "1") == {innocent.pid, marked.pid}
    path = tmp_path / "1" / RECORD
    path.write_text(path.read_text().replace("mine", "other"))  # changed after it was signed
    assert pids(tmp_path / "1") == set()


def test_recorded_and_marked_processes_are_found(tmp_path, start):
    recorded, marked, other, stranger = start(), start(mark="mine"), start(mark="other"), start()
    record(tmp_path, recorded, other)
    assert pids(tmp_path) == {recorded.pid, marked.pid}
    assert stranger.pid not in pids(tmp_path)


LINUX = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux says when since its boot")


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        pytest.param({"since_boot": -60.0}, False, marks=LINUX, id="the pid was given to another process"),
        pytest.param({"since_boot": -0.01}, False, marks=LINUX, id="at once"),
        pytest.param({"created": -3600.0}, True, marks=LINUX, id="the clock was set"),
        pytest.param({"since_boot": None}, True, id="record of an earlier version"),
        pytest.param({"since_boot": None, "created": -60.0}, False, id="and the pid was given to another"),
    ],
)
def test_a_process_is_known_by_its_pid_and_when_it_was_created(tmp_path, start, changes, found):
    process = start()
    record(tmp_path, process)
    content = json.loads((tmp_path / RECORD).read_text())
    del content["signature"]
    entry = content["processes"][1]
    for key, by in changes.items():
        if by is None:
            del entry[key]
        else:
            entry[key] += by
    write(content, tmp_path)
    assert pids(tmp_path) == ({process.pid} if found else set())


@LINUX
def test_a_living_process_is_not_dead_because_the_clock_was_set(monkeypatch):
    """The kernel tells the time of the boot in whole seconds, so a correction of a microsecond can be one of them."""
    known = ProcessId.from_dict(json.loads(json.dumps(this_process().as_dict())))
    monkeypatch.setattr(psutil.Process, "create_time", lambda process: known.created + 1.0)
    assert known.may_live()
    assert this_process().key == known.key


@pytest.mark.parametrize(
    "changes", [{"pid": math.inf}, {"pid": -5}, {"pid": None}, {"created": "today"}, {"since_boot": []}, {"host": ...}]
)
def test_what_a_stranger_calls_a_process_is_one_or_none(tmp_path, changes):
    content: dict = {**this_process().as_dict(), **changes}
    if content["host"] is ...:
        del content["host"]
    with pytest.raises(ValueError, match="describes no process"):
        ProcessId.from_dict(content)
    lock = tmp_path / "run.lock"
    (tmp_path / "run.lock.owner").write_text(json.dumps({**content, "since": "yesterday"}))
    assert read_owner(lock) is None


def test_record_of_another_machine_or_boot_names_nothing(tmp_path, start):
    process = start()
    record(tmp_path, process)
    content = (tmp_path / RECORD).read_text()
    (tmp_path / RECORD).write_text(content.replace(machine(), "elsewhere/1/2"))
    assert pids(tmp_path) == set()


def test_living_run_has_no_leftovers(tmp_path, start):
    process = start()
    record(tmp_path, process, main=this_process().as_dict())
    assert pids(tmp_path) == set()


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"mark": 1, "processes": [{}]}', '{"mark": "mine", "processes": []}']
)
def test_damaged_record_names_nothing(tmp_path, content):
    (tmp_path / RECORD).write_text(content)
    assert pids(tmp_path) == set()


def test_they_are_asked_first_and_killed_then(tmp_path, start):
    note = tmp_path / "note"
    polite, deaf = start([sys.executable, "-c", POLITE, str(note)]), start(DEAF)
    record(tmp_path, polite, deaf)
    assert end_processes(leftovers(tmp_path), wait_s=2.0) == []
    assert note.read_text() == "left"
    assert not psutil.pid_exists(polite.pid)
    assert not psutil.pid_exists(deaf.pid)


def test_under_a_scheduler_they_are_only_told_of(tmp_path, start, monkeypatch, caplog):
    process = start()
    record(tmp_path, process)
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    clear_leftovers(Workspace(tmp_path))
    assert f"processes {process.pid} were left behind by the run; under SLURM they are not ended" in caplog.text
    assert process.poll() is None
    monkeypatch.delenv("SLURM_JOB_ID")
    clear_leftovers(Workspace(tmp_path))
    assert not psutil.pid_exists(process.pid)


def test_record_follows_the_processes(tmp_path, start):
    run = create(tmp_path)
    process = start(mark=run.manifest.mark)
    path = run.workspace.path / RECORD

    def recorded():
        run._record.write()
        return {entry["pid"] for entry in json.loads(path.read_text())["processes"]}

    assert {os.getpid(), process.pid} <= recorded()
    process.kill()
    process.wait()
    wait_for(lambda: process.pid not in recorded())
    run.finish("complete")
    assert not path.exists()


def test_process_is_found_again_only_as_itself(start):
    process = start()
    found = psutil.Process(process.pid)
    known = ProcessId(process.pid, found.create_time(), "host", machine())
    assert known.find() == found
    assert known.may_live()
    process.kill()
    process.wait()
    assert known.find() is None
