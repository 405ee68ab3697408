"""Runs appear whole, belong to one process at a time, and say how they ended, whatever that was."""

import datetime
import json
import os
import signal
import stat
import subprocess
import sys
import threading

import pytest

from tests.conftest import REPOSITORY
from tests.runs.helpers import CONFIG, HOLD_RUN, create, python, readable_folder, wait_for, without_rights
from visionforge.errors import RunError
from visionforge.runs.files import umask
from visionforge.runs.locks import LockedError
from visionforge.runs.manifest import read_manifest
from visionforge.runs.processes import MARK, RECORD
from visionforge.runs.session import ActiveRun, derived_state
from visionforge.runs.workspace import Workspace


def files(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def test_folder_appears_with_configuration_and_manifest_and_locked(tmp_path):
    run = create(tmp_path / "outputs", parent={"run": "mother"})
    folder = run.workspace.path
    assert folder.name == f"{datetime.date.today():%Y%m%d}_d_m_{run.manifest.hash}"
    assert files(folder) == {"config.yaml", "run.json", ".lock", ".lock.owner", RECORD}
    assert stat.S_IMODE(folder.stat().st_mode) == 0o777 & ~umask()
    stored = read_manifest(run.workspace.manifest)
    assert (stored.state, stored.parent, stored.seeds) == ("running", {"run": "mother"}, {"seed_everything": 42})
    assert stored.owner.pid == os.getpid()
    assert os.environ[MARK] == stored.mark
    assert derived_state(run.workspace, stored) == "running"
    run.finish("complete")
    assert MARK not in os.environ
    assert files(tmp_path / "outputs") == {
        folder.name,
        f"{folder.name}/config.yaml",
        f"{folder.name}/run.json",
        "latest",
    }
    ended = read_manifest(run.workspace.manifest)
    assert (ended.state, ended.error) == ("complete", None)
    assert ended.started <= ended.ended == ended.sessions[0].ended


def test_complete_run_is_kept_and_the_next_has_a_number(tmp_path):
    names = []
    for _ in range(3):
        run = create(tmp_path)
        names.append(run.workspace.path.name[9:].replace(run.manifest.hash, "HASH"))
        assert (tmp_path / "latest").resolve() == run.workspace.path
        run.finish("complete")
    assert names == ["d_m_HASH", "d_m_HASH-2", "d_m_HASH-3"]


def test_interrupted_run_is_offered(tmp_path):
    first = create(tmp_path)
    first.update(progress={"epochs": 3})
    first.finish("interrupted", "interrupted by SIGTERM")
    with pytest.raises(RunError, match=r"interrupted after 3 epochs; continue it with `visionforge fit --resume \S+`"):
        create(tmp_path)
    second = create(tmp_path, past_interrupted=True)
    assert second.workspace.path.name.endswith("-2")
    second.finish("complete")


def test_failed_run_does_not_stand_in_the_way(tmp_path):
    create(tmp_path).finish("failed", "ValueError: no")
    second = create(tmp_path)
    assert second.workspace.path.name.endswith("-2")
    second.finish("complete")


def test_run_in_use_is_refused_with_its_owner(tmp_path):
    with python(HOLD_RUN, tmp_path, cwd=REPOSITORY) as owner:
        with pytest.raises(LockedError) as refused:
            create(tmp_path)
        (line,) = refused.value.problems
        assert f"process {owner.pid} on {os.uname().nodename}, which started 20" in line
        (workspace,) = [Workspace(path) for path in tmp_path.glob("*_d_m_*")]
        with pytest.raises(LockedError, match=f"process {owner.pid} on "):
            ActiveRun.reopen(workspace)
        owner.kill()
        owner.wait()
        with pytest.raises(RunError, match="was interrupted after 0 epochs"):  # the kernel has let go
            create(tmp_path)
        run = ActiveRun.reopen(workspace)
        assert len(run.manifest.sessions) == 2
        assert run.manifest.sessions[0].ended is None
        run.finish("complete")
        with pytest.raises(RunError, match="is complete, so there is nothing to resume"):
            ActiveRun.reopen(workspace)


def test_what_a_killed_process_left_is_removed(tmp_path):
    run = create(tmp_path)
    name = run.workspace.path.name
    run.finish("complete")
    (tmp_path / f".{name}.new-abc" / "x").mkdir(parents=True)
    (tmp_path / f".{name}.lock").write_text("")
    second = create(tmp_path)
    second.finish("interrupted", "x")
    (second.workspace.path / ".metrics.csv.abc.tmp").write_text("half")
    third = ActiveRun.reopen(second.workspace)
    third.finish("complete")
    assert {path.name for path in tmp_path.iterdir()} == {name, f"{name}-2", "latest"}
    assert files(second.workspace.path) == {"config.yaml", "run.json"}


def test_two_threads_of_one_process_do_not_share_a_run(tmp_path):
    made, refused = [], []

    def begin():
        try:
            made.append(create(tmp_path))
        except RunError as error:
            refused.append(error)

    threads = [threading.Thread(target=begin) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1
    assert len(refused) == 5
    made[0].finish("complete")


def test_discarded_run_leaves_nothing(tmp_path):
    outputs = tmp_path / "outputs"
    create(outputs).discard()
    assert not outputs.exists()
    first = create(outputs)
    first.finish("complete")
    create(outputs).discard()
    assert (outputs / "latest").resolve() == first.workspace.path


def test_somebodys_own_folder_named_latest_stays(tmp_path):
    (tmp_path / "latest").mkdir()
    create(tmp_path).finish("complete")
    assert not (tmp_path / "latest").is_symlink()


def test_outputs_that_is_a_file_is_one_line(tmp_path):
    (tmp_path / "outputs").write_text("")
    with pytest.raises(RunError, match="no run folder can be made here"):
        create(tmp_path / "outputs")


def test_outputs_without_permission_is_one_line():
    with readable_folder() as folder:
        folder.chmod(0o555)
        with without_rights(), pytest.raises(RunError, match=r"permission denied.*to a folder that you may write to"):
            create(folder / "outputs")


def test_run_of_somebody_else_is_one_line():
    with readable_folder() as folder:
        run = create(folder)
        run.finish("interrupted", "x")
        with without_rights(), pytest.raises(RunError, match=r"permission denied.*to a folder that you may write to"):
            ActiveRun.reopen(run.workspace)


def test_manifest_of_a_stranger_is_one_line(tmp_path):
    for content in ("{}", "not json", '{"state": "running"'):
        (tmp_path / "run.json").write_text(content)
        with pytest.raises(RunError, match="cannot be read as the manifest") as refused:
            read_manifest(tmp_path / "run.json")
        assert len(refused.value.problems) == 1
    (tmp_path / "run.json").write_bytes(b" " * 5_000_000)
    with pytest.raises(RunError, match="larger than"):
        read_manifest(tmp_path / "run.json")
    with pytest.raises(RunError, match=r"holds no run\.json"):
        read_manifest(tmp_path / "none" / "run.json")


def test_manifest_knows_machine_code_and_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    run = create(tmp_path)
    run.finish("complete")
    (session,) = read_manifest(run.workspace.manifest).sessions
    assert session.environment["OMP_NUM_THREADS"] == "3"
    assert session.scheduler == {"name": "SLURM", "job": "77", "restarts": 0}
    assert session.packages["python"].startswith("3.")
    assert session.packages["torch"]
    assert session.hardware["cores"] >= 1
    assert session.code["version"]
    assert CONFIG["data"]["dataset"] == read_manifest(run.workspace.manifest).dataset


@pytest.mark.parametrize(
    ("argument", "stored"),
    [
        ("postgresql://me:se/c:ret@host:5432/db", "postgresql://me:…@host:5432/db"),
        ("--tune.storage=mysql+pymysql://me:secret@host/db", "--tune.storage=mysql+pymysql://me:…@host/db"),
        ("https://host:443/a.pth#sha256=00", "https://host:443/a.pth#sha256=00"),
        ("project://a@b", "project://a@b"),
    ],
)
def test_passwords_are_not_stored(tmp_path, monkeypatch, argument, stored):
    monkeypatch.setattr(sys, "argv", ["visionforge", argument])
    run = create(tmp_path)
    run.finish("complete")
    assert read_manifest(run.workspace.manifest).sessions[0].command == ["visionforge", stored]


def test_processes_that_are_older_than_the_run_are_none_of_it(tmp_path):
    command = [sys.executable, "-c", "print('ready', flush=True); import time; time.sleep(100)"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as older:
        assert older.stdout.readline() == b"ready\n"
        run = create(tmp_path)
        with subprocess.Popen(command, stdout=subprocess.PIPE) as younger:
            assert younger.stdout.readline() == b"ready\n"
            run._record.write()
            content = json.loads((run.workspace.path / RECORD).read_text())
            assert [each["pid"] for each in content["processes"]] == [os.getpid(), younger.pid]
            younger.kill()
        older.kill()
    run.finish("complete")


@pytest.mark.slow
def test_forked_child_does_not_keep_the_lock(tmp_path):
    """A loader process that outlives a killed fit must not hold its run."""
    code = """
import os, sys, time
from pathlib import Path
from tests.runs.helpers import create
run = create(Path(sys.argv[1]))
pid = os.fork()
if pid == 0:
    time.sleep(100)
    os._exit(0)
Path(sys.argv[2]).write_text(str(pid))
print("ready", flush=True)
time.sleep(100)
"""
    with python(code, tmp_path / "outputs", tmp_path / "pid", cwd=REPOSITORY) as owner:
        child = int((tmp_path / "pid").read_text())
        (folder,) = (tmp_path / "outputs").glob("*_d_m_*")
        wait_for(lambda: str(child) in (folder / RECORD).read_text())
        owner.kill()
        owner.wait()
        os.kill(child, 0)  # it lives
        run = ActiveRun.reopen(Workspace(folder))
        run.finish("complete")
        with pytest.raises(ProcessLookupError):  # and was ended, because the record knew it
            wait_for(lambda: os.kill(child, signal.SIGCONT), 5)
