"""A fit that is stopped, killed or runs out of room goes on where it was, and ends with the same weights."""

import json
import os
import random
import shutil
import signal
import time
import zipfile
from functools import partial

import psutil
import pytest

from tests.cli.fleet import digests, results, same_weights
from tests.conftest import flags, run_folders
from tests.runs.helpers import small_disk, wait_for

LONG = {
    "data__synthetic__train": 320,
    "trainer__max_epochs": 6,
    "trainer__deterministic": "true",
    "checkpoint_minutes": 0.001,  # with every step or two
    "model__backbone__dropout": 0.2,
}
KILLS = 50 if os.environ.get("VISIONFORGE_EXHAUSTIVE") else 8
SEED = 20261124


def settings(outputs, **changes):
    return flags(**{**LONG, **changes}, trainer__default_root_dir=outputs)


@pytest.fixture(scope="module")
def whole(fleet, tmp_path_factory):
    """A run that was never interrupted."""
    outputs = tmp_path_factory.mktemp("whole")
    ended = fleet.run("fit", *settings(outputs))
    assert ended.status == 0, ended.err
    (run,) = run_folders(outputs)
    return run, ended.seconds


def only_run(outputs):
    (run,) = run_folders(outputs)
    return run


def state(run):
    return json.loads((run / "run.json").read_text())


def trained(outputs, epochs):
    """Return a function that tells whether so many epochs are finished."""
    return lambda: any(state(run)["progress"].get("epochs", 0) >= epochs for run in run_folders(outputs))


def has_ended_like(run, whole, locked=False):
    """`locked` where it was killed between its last write and letting go: the next command takes the lock."""
    assert state(run)["state"] == "complete"
    assert same_weights(run, whole)
    assert results(run) == results(whole)
    hidden = [path for path in run.parent.rglob(".*") if path.parent != run.parent or path.name != ".gitignore"]
    hidden = [path for path in hidden if not (locked and path.name in (".lock", ".lock.owner"))]
    assert not hidden, "a lock or a temporary file is left"


def ends_alike_though_killed(fleet, folder, settings, **environment):
    """Train once as a whole and once with a SIGKILL in the middle, and compare how both end.

    Args:
        fleet: Runs the commands.
        folder: For the runs.
        settings: Returns the settings of a run whose outputs lie in a folder.
        **environment: Variables of the commands.
    """
    ended = fleet.run("fit", *settings(folder / "whole"), **environment)
    assert ended.status == 0, ended.err
    pid = fleet.start("fit", *settings(folder / "killed"), **environment)
    wait_for(trained(folder / "killed", 2))
    os.kill(pid, signal.SIGKILL)
    assert fleet.wait().status == -signal.SIGKILL
    killed = only_run(folder / "killed")
    again = fleet.run("fit", "--resume", killed, **environment)
    assert again.status == 0, again.err
    assert "continues from " in again.err
    has_ended_like(killed, only_run(folder / "whole"))


@pytest.mark.slow
def test_killed_while_images_are_resized_it_ends_with_the_same_weights(fleet, tmp_path):
    changes = {"data__resize__size": 40, "data__resize__mode": "bicubic", "trainer__max_epochs": 5}
    ends_alike_though_killed(fleet, tmp_path, partial(settings, **changes))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGUSR1"])
def test_signal_ends_after_a_step_and_the_run_goes_on(fleet, whole, tmp_path, name):
    number = getattr(signal, name)
    for attempt in range(5):
        outputs = tmp_path / str(attempt)
        pid = fleet.start("fit", *settings(outputs))
        wait_for(trained(outputs, 2))
        os.kill(pid, number)
        ended = fleet.wait()
        assert ended.status == 128 + number, ended.err
        assert f"interrupted by {name}" in ended.err
        assert "Traceback" not in ended.err
        run = only_run(outputs)
        stored = state(run)
        assert (stored["state"], stored["error"]) == ("interrupted", f"interrupted by {name}")
        if stored["progress"]["steps"] % 20:
            break
    else:
        pytest.fail("it was never stopped within an epoch")
    again = fleet.run("fit", "--resume", run)
    assert again.status == 0, again.err
    assert "continues from " in again.err
    has_ended_like(run, whole[0])
    assert [session["checkpoint"] for session in state(run)["sessions"]] == [None, "last.ckpt"]
    log = (run / "run.log").read_text()
    assert log.count("Seed set to 42") == 2
    for epoch in range(1, 7):
        assert log.count(f"epoch {epoch}, loss") == 1


def test_second_interrupt_does_not_wait(fleet, tmp_path):
    """For those who press Ctrl-C twice: at once, with the checkpoint that is there."""
    pid = fleet.start("fit", *settings(tmp_path, data__synthetic__train=6400, checkpoint_minutes=100))
    wait_for(lambda: run_folders(tmp_path))
    time.sleep(0.5)
    os.kill(pid, signal.SIGINT)
    os.kill(pid, signal.SIGINT)
    assert fleet.wait().status == 130
    assert state(only_run(tmp_path))["state"] == "interrupted"


@pytest.mark.slow
def test_same_command_offers_to_resume_and_auto_does(fleet, whole, tmp_path):
    pid = fleet.start("fit", *settings(tmp_path))
    wait_for(trained(tmp_path, 1))
    os.kill(pid, signal.SIGKILL)
    assert fleet.wait().status == -signal.SIGKILL
    run = only_run(tmp_path)
    assert state(run)["state"] == "running", "nobody could write how it ended"
    offered = fleet.run("fit", *settings(tmp_path))
    assert offered.status == 2
    assert f"--resume {run}`" in offered.err
    assert fleet.run("fit", *settings(tmp_path), "--resume", "auto").status == 0
    has_ended_like(run, whole[0])
    fresh = fleet.run("fit", *settings(tmp_path), "--resume", "auto")
    assert fresh.status == 0, "there is nothing to resume any more, so it begins a new run"
    assert [path.name for path in run_folders(tmp_path)] == [run.name, f"{run.name}-2"]


@pytest.mark.slow
def test_resume_never_begins_anew(fleet, tmp_path):
    pid = fleet.start("fit", *settings(tmp_path))
    wait_for(trained(tmp_path, 1))
    os.kill(pid, signal.SIGKILL)
    fleet.wait()
    assert fleet.run("fit", *settings(tmp_path), "--resume", "never").status == 0
    first, second = run_folders(tmp_path)
    assert second.name == f"{first.name}-2"
    assert state(first)["state"] == "running"
    assert state(second)["state"] == "complete"


def test_resumed_run_keeps_its_settings(fleet, whole, tmp_path):
    shutil.copytree(whole[0], tmp_path / whole[0].name)
    run = tmp_path / whole[0].name
    content = {**state(run), "state": "interrupted"}
    (run / "run.json").write_text(json.dumps(content))
    ended = fleet.run("fit", "--resume", run, "--model.optimizer.learning_rate", "0.5", "--trainer.max_epochs", "9")
    assert ended.status == 2
    lines = [line for line in ended.err.splitlines() if not line.startswith("help: ")]
    assert len(lines) == 2
    assert lines[0].startswith("error: model.optimizer.learning_rate: 0.5 given, ")
    assert "was begun with 0.008; a resumed run keeps its settings" in lines[0]
    assert lines[1].startswith("error: trainer.max_epochs: 9 given, ")
    # where it runs and how it loads may change, and it may have been moved
    assert fleet.run("fit", "--resume", run, "--data.num_workers", "1", "--log_level", "warning").status == 0
    has_ended_like(run, whole[0])


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--resume", "nowhere"], "--resume: nowhere is no folder"),
        (["--resume", "."], "holds no config.yaml, so it is no run of a fit"),
        (["--resume"], "--resume: needs a value"),
    ],
)
def test_what_cannot_be_resumed_is_one_line(fleet, arguments, line):
    ended = fleet.run("fit", *arguments)
    assert ended.status == 2
    (told,) = [each for each in ended.err.splitlines() if not each.startswith("help: ")]
    assert line in told


def test_complete_run_is_not_resumed(fleet, whole):
    before = digests(whole[0])
    ended = fleet.run("fit", "--resume", whole[0])
    assert ended.status == 2
    assert "is complete, so there is nothing to resume" in ended.err
    assert digests(whole[0]) == before


@pytest.fixture
def interrupted(fleet, tmp_path):
    """A run that was killed after two epochs."""
    pid = fleet.start("fit", *settings(tmp_path))
    wait_for(trained(tmp_path, 2))
    os.kill(pid, signal.SIGKILL)
    fleet.wait()
    return only_run(tmp_path)


def damage(path):
    """Change a byte of the largest tensor; what lies between the members of the file is only there to align them."""
    with zipfile.ZipFile(path) as archive:
        member = max(archive.infolist(), key=lambda each: each.file_size)
    content = bytearray(path.read_bytes())
    name, extra = (int.from_bytes(content[member.header_offset + at :][:2], "little") for at in (26, 28))
    content[member.header_offset + 30 + name + extra + member.file_size // 2] ^= 1
    path.write_bytes(content)


def test_damaged_checkpoint_is_passed_over_for_the_one_before(fleet, whole, interrupted):
    damage(interrupted / "checkpoints" / "last.ckpt")
    ended = fleet.run("fit", "--resume", interrupted)
    assert ended.status == 0, ended.err
    assert "last.ckpt (" in ended.err
    assert "is damaged, so the run continues from the one before, last-previous.ckpt" in ended.err
    assert state(interrupted)["sessions"][-1]["checkpoint"] == "last-previous.ckpt"
    has_ended_like(interrupted, whole[0])


def test_nothing_to_continue_from_is_one_line(fleet, interrupted):
    for name in ("last.ckpt", "last-previous.ckpt"):
        damage(interrupted / "checkpoints" / name)
    ended = fleet.run("fit", "--resume", interrupted)
    assert ended.status == 2
    (line,) = [line for line in ended.err.splitlines() if line.startswith("error: ")]
    assert "damaged, so there is nothing to continue from" in line
    assert state(interrupted)["state"] == "interrupted"


def test_other_data_than_before_is_refused(fleet, archives, tmp_path):
    root = tmp_path / "data"
    root.mkdir()
    shutil.copyfile(archives / "breastmnist.npz", root / "breastmnist.npz")
    few = {"data__dataset": "breastmnist", "data__max_samples": 64, "data__root": root, "checkpoint_minutes": 0.0001}
    pid = fleet.start("fit", *settings(tmp_path / "outputs", **few))
    wait_for(trained(tmp_path / "outputs", 1))
    os.kill(pid, signal.SIGTERM)
    fleet.wait()
    run = only_run(tmp_path / "outputs")
    content = state(run)
    content["data"]["md5"] = "0" * 32
    (run / "run.json").write_text(json.dumps(content))
    ended = fleet.run("fit", "--resume", run)
    assert ended.status == 2
    assert "the run was begun with 00000000000000000000000000000000" in ended.err
    assert (run / "checkpoints" / "last.ckpt").is_file(), "nothing is lost by that"


@pytest.mark.slow
def test_full_disk_interrupts_and_with_room_it_goes_on(fleet, whole, tmp_path):
    """A real file system: a small tmpfs, where this machine lets us mount one."""
    with small_disk(tmp_path / "disk", "40m") as disk:
        fleet.start("fit", *settings(disk / "outputs"))
        wait_for(trained(disk / "outputs", 1))
        with (disk / "filler").open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, shutil.disk_usage(disk).free)
        ended = fleet.wait()
        run = only_run(disk / "outputs")
        assert ended.status == 2, ended.err
        (line,) = [line for line in ended.err.splitlines() if line.startswith("error: ")]
        assert "disk" in line or "no space left" in line
        (disk / "filler").unlink()
        again = fleet.run("fit", "--resume", run)
        assert again.status == 0, again.err
        has_ended_like(run, whole[0])


@pytest.mark.slow
def test_out_of_memory_interrupts_and_with_memory_it_goes_on(fleet, whole, tmp_path):
    pid = fleet.start("fit", *settings(tmp_path))
    wait_for(trained(tmp_path, 1))
    process = psutil.Process(pid)
    process.rlimit(psutil.RLIMIT_AS, (process.memory_info().vms, psutil.RLIM_INFINITY))
    process.rlimit(psutil.RLIMIT_DATA, (1 << 20, psutil.RLIM_INFINITY))
    ended = fleet.wait()
    assert ended.status != 0
    run = only_run(tmp_path)
    assert fleet.run("fit", "--resume", run).status == 0
    has_ended_like(run, whole[0])


@pytest.mark.slow
def test_requeued_slurm_job_continues_by_itself(fleet, whole, tmp_path):
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "scontrol"
    program.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\n')
    program.chmod(0o755)
    job = {
        "SLURM_JOB_ID": "123",
        "SLURM_NTASKS": "1",
        "SLURM_JOB_NAME": "night",
        "PATH": f"{program.parent}:/usr/bin:/bin",
    }
    command = ["fit", *settings(tmp_path / "outputs")]
    pid = fleet.start(*command, **job)
    wait_for(trained(tmp_path / "outputs", 2))
    os.kill(pid, signal.SIGUSR1)
    ended = fleet.wait()
    assert ended.status == 128 + signal.SIGUSR1, ended.err
    assert (tmp_path / "asked").read_text() == "requeue 123\n"
    run = only_run(tmp_path / "outputs")
    assert state(run)["sessions"][0]["scheduler"] == {"name": "SLURM", "job": "123", "restarts": 0}
    assert fleet.run(*command, **{**job, "SLURM_JOB_ID": "124", "SLURM_RESTART_COUNT": "1"}).status == 2, "another job"
    again = fleet.run(*command, **{**job, "SLURM_RESTART_COUNT": "1"})
    assert again.status == 0, again.err
    has_ended_like(run, whole[0])


@pytest.mark.slow
def test_killed_at_any_moment(fleet, whole, tmp_path):
    """Fourteen kills or more at random moments of fits, first starts as resumes; then each comes to its end."""
    reference, seconds = whole
    outputs = tmp_path / "outputs"
    complete = outputs / "complete"
    shutil.copytree(reference, complete)
    before = digests(complete)
    moments = random.Random(SEED)
    kills, without_folder, ended_first = 0, 0, 0
    while kills < KILLS:
        run, at_the_end = None, False
        for _ in range(5):
            arguments = ["--resume", run] if run else settings(outputs)
            ended = fleet.killed_after(moments.uniform(0.0, seconds), "fit", *arguments)
            found = [path for path in run_folders(outputs) if path != complete]
            run = found[0] if found else None
            without_folder += run is None
            if ended.status == 0:
                ended_first += 1
                break
            assert ended.status == -signal.SIGKILL, ended.err
            kills += 1
            if run is not None and state(run)["state"] == "complete":  # killed after all was written
                at_the_end = True
                break
        if run is None or state(run)["state"] != "complete":
            ended = fleet.run("fit", *(["--resume", run] if run else settings(outputs)))
            assert ended.status == 0, ended.err
            (run,) = [path for path in run_folders(outputs) if path != complete]
        has_ended_like(run, reference, locked=at_the_end)
        shutil.rmtree(run)
    assert digests(complete) == before
    assert {path.name for path in outputs.iterdir()} <= {"complete", "latest"}
    print(f"{kills} kills, {without_folder} before the run folder, {ended_first} commands ended first")
