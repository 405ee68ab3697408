"""Locks hold off other processes, say who holds them, are let go by the kernel, and leave no file."""

import logging
import os
import time

import pytest

from tests.conftest import REPOSITORY
from tests.runs.helpers import python
from visionforge.runs.locks import Lock, LockedError, Mount, held, is_held, mounts, read_owner, shared_only_here

HOLD = """
import sys, time
from pathlib import Path
from visionforge.runs.locks import held
with held(Path(sys.argv[1]), "thing", 0):
    print("ready", flush=True)
    time.sleep(float(sys.argv[2]))
"""


def test_second_process_waits_says_for_whom_and_then_holds(tmp_path, caplog):
    path = tmp_path / "x.lock"
    with python(HOLD, path, 1.0, cwd=REPOSITORY) as owner, caplog.at_level(logging.INFO):
        assert is_held(path)
        started = time.monotonic()
        with held(path, "thing", 30):
            assert time.monotonic() - started > 0.3
            assert read_owner(path).process.pid == os.getpid()
        assert f"thing: waiting for process {owner.pid} on " in caplog.text
    assert not list(tmp_path.iterdir())


def test_wait_has_a_bound(tmp_path):
    path = tmp_path / "x.lock"
    with python(HOLD, path, 100, cwd=REPOSITORY) as owner:
        started = time.monotonic()
        with pytest.raises(LockedError, match=f"thing: in use by process {owner.pid} on "):
            Lock(path, "thing").acquire(0.3)
        assert 0.2 < time.monotonic() - started < 10
        owner.kill()
        owner.wait()
        assert path.exists(), "a killed owner cannot remove it"
        with held(path, "thing", 0):
            pass
    assert not list(tmp_path.iterdir())


def test_question_whether_it_is_held_cleans_up_after_the_dead(tmp_path):
    path = tmp_path / "x.lock"
    with python(HOLD, path, 100, cwd=REPOSITORY) as owner:
        owner.kill()
        owner.wait()
        assert not is_held(path)
    assert not list(tmp_path.iterdir())
    assert not is_held(path)


def test_lock_of_this_process_is_held_too(tmp_path):
    path = tmp_path / "x.lock"
    with held(path, "thing", 0):
        assert is_held(path)
        with pytest.raises(LockedError):
            Lock(path, "thing").acquire()


def test_many_processes_exclude_each_other(tmp_path):
    """Each adds one to a number, which would get lost if two of them did so at the same time."""
    code = """
import sys
from pathlib import Path
from visionforge.runs.locks import held
print("ready", flush=True)
number = Path(sys.argv[2])
for _ in range(30):
    with held(Path(sys.argv[1]), "number", 60):
        number.write_text(str(int(number.read_text()) + 1))
"""
    (tmp_path / "number").write_text("0")
    processes = [python(code, tmp_path / "x.lock", tmp_path / "number", cwd=REPOSITORY) for _ in range(4)]
    for each in [process.__enter__() for process in processes]:
        assert each.wait() == 0
    assert (tmp_path / "number").read_text() == "120"
    assert [path.name for path in tmp_path.iterdir()] == ["number"]


@pytest.mark.parametrize(
    ("kind", "options", "warns"),
    [
        ("ext4", "rw", False),
        ("nfs4", "rw,vers=4.2", False),
        ("nfs", "rw,nolock", True),
        ("nfs", "rw,local_lock=all", True),
        ("lustre", "rw", True),
        ("lustre", "rw,flock", False),
        ("fuse.sshfs", "rw", True),
        ("cifs", "rw", True),
    ],
)
def test_file_systems_whose_locks_stay_on_one_machine(tmp_path, kind, options, warns):
    mounted = [Mount("/", "ext4", frozenset({"rw"})), Mount(str(tmp_path), kind, frozenset(options.split(",")))]
    reason = shared_only_here(tmp_path / "run" / ".lock", mounted)
    assert (reason is not None) == warns
    assert reason is None or str(tmp_path) in reason
    assert shared_only_here(tmp_path.parent / "elsewhere" / ".lock", mounted) is None


def test_mounts_of_this_machine_are_read(tmp_path):
    assert any(mount.point == "/" for mount in mounts())
