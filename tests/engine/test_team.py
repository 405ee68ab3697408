"""Processes that a launcher has started: what they tell each other, and what a stranger can say to them."""

import contextlib
import signal
import socket
import threading
import time
from types import SimpleNamespace

import pytest

from tests.conftest import flags
from visionforge.engine import team as module
from visionforge.engine.team import FAILURE, MISTAKE, Place, Team
from visionforge.errors import PeerEndedError, RunError, SettingsError
from visionforge.runs.signals import Interrupted


@pytest.fixture
def team(monkeypatch):
    """Return a function that makes so many processes of one team, all of them in this one, and their ends."""
    made, ended = [], []

    monkeypatch.setattr(module.os, "_exit", ended.append)
    monkeypatch.setattr(module, "GRACE_S", 0.3)

    def make(size):
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
        for rank in range(size):
            monkeypatch.setattr(module, "_teams", 0)
            made.append(Team(Place(rank, size, "127.0.0.1", port, hosts_store=True)))
        return made, ended

    yield make
    for one in reversed(made):
        one.close()


def wait_for(condition, seconds=5.0):
    limit = time.monotonic() + seconds
    while not condition() and time.monotonic() < limit:
        time.sleep(0.01)
    assert condition()


def test_the_others_follow_the_first(team):
    (first, second, third), _ = team(3)
    threading.Timer(0.2, first.tell, ({"folder": "a", "checkpoint": None},)).start()
    assert second.follow() == third.follow() == {"folder": "a", "checkpoint": None}


def test_a_process_that_does_not_come_is_told(team, monkeypatch):
    (first, _), _ = team(2)
    monkeypatch.setattr(module, "MEET_S", 0.2)
    first.size = 3
    with pytest.raises(RunError, match="2 of 3 processes have come within 0 s"):
        first.tell({})
    first.size = 2


@pytest.mark.parametrize("who", [0, 1])
def test_the_first_that_cannot_go_on_tells_and_the_others_hear_why(team, who):
    members, ended = team(3)
    assert members[who].fail(MISTAKE, "data.root: no such folder", mistake=True)
    others = [member for member in members if member is not members[who]]
    wait_for(lambda: all(member.ended is not None for member in others))
    for member in others:
        assert (str(member.ended), member.ended.status, member.ended.mistake) == ("data.root: no such folder", 2, True)
        assert member.ended.told
        assert not member.fail(FAILURE, "what follows from it")
        if member.rank != 0:
            with pytest.raises(PeerEndedError, match="no such folder"):
                member.follow()
    wait_for(lambda: sorted(ended) == [MISTAKE, MISTAKE])  # they did not end by themselves


def test_a_process_that_is_gone_is_lost_and_the_last_words_are_heard(team):
    (first, second, third), ended = team(3)
    words = []
    first.last_words = words.append
    wait_for(lambda: len(first._links) == 2)
    second._links[0].shutdown(socket.SHUT_RDWR)  # as the kernel does
    wait_for(lambda: first.ended is not None and third.ended is not None)
    assert str(third.ended) == str(first.ended) == "process 1 of 3 was lost"
    assert (first.ended.mistake, first.ended.told, third.ended.told) == (False, False, True)
    wait_for(lambda: len(ended) == 3)  # also the lost one, for which the first is gone
    assert words == [first.ended]
    assert isinstance(first.cause(RuntimeError("connection closed by peer")), PeerEndedError)


def test_the_sigterm_that_follows_a_loss_is_that_loss_and_others_are_their_own(team):
    """`srun` sends it to the others as soon as one is gone, perhaps before they know."""
    (first, second, third), _ = team(3)
    wait_for(lambda: len(first._links) == 2)
    threading.Timer(0.3, second._links[0].shutdown, (socket.SHUT_RDWR,)).start()
    assert first.cause(Interrupted(signal.SIGTERM)) is first.ended
    assert first.ended.lost
    wait_for(lambda: third.ended is not None)
    error = Interrupted(signal.SIGTERM)
    assert not third.ended.lost  # the first process knows it for all
    assert third.cause(error) is error


@pytest.mark.parametrize(("number", "together"), [(signal.SIGTERM, True), (signal.SIGUSR1, False)])
def test_a_signal_that_all_hear_is_not_waited_for(team, monkeypatch, number, together):
    (first, _), _ = team(2)
    waits, error = [], Interrupted(number, together)
    with monkeypatch.context() as patch:
        patch.setattr(module, "time", SimpleNamespace(sleep=waits.append, monotonic=time.monotonic))
        assert first.cause(error) is error
    assert waits == []


def test_who_has_parted_is_not_lost(team):
    (first, second), ended = team(2)
    wait_for(lambda: len(first._links) == 1)
    second.close()
    second._links[0].close()
    wait_for(lambda: first._done == {1})
    time.sleep(0.5)
    assert first.ended is None
    assert ended == []
    error = RuntimeError("of its own")
    assert first.cause(error) is error


@pytest.mark.parametrize(
    "said",
    [b"\n", b"GET / HTTP/1.1\r\n\r\n", b'{"rank": 1, "token": "guessed"}\n', b"[" * 100_000, b"\xff" * 80_000, b"7\n"],
)
def test_strangers_are_not_heard(team, said):
    (first, second), ended = team(2)
    wait_for(lambda: len(first._links) == 1)
    with socket.create_connection(first._server.getsockname()[:2], timeout=5) as stranger:
        stranger.settimeout(5)
        with contextlib.suppress(OSError):  # it may have been shut out before it has said all of that
            stranger.sendall(said + b'{"failed": 2, "reason": "no"}\n')
            stranger.shutdown(socket.SHUT_WR)
            assert stranger.recv(100) == b""
    assert first.ended is second.ended is None
    first.tell({"a": "b"})
    assert second.follow() == {"a": "b"}
    assert ended == []


SLURM = {"SLURM_NTASKS": "3", "SLURM_PROCID": "0", "SLURM_JOB_NAME": "night", "SLURM_STEP_ID": "0"}
PLACES = {
    "none": ({}, None),
    "one": ({"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "h", "MASTER_PORT": "1"}, None),
    "torchrun": (
        {
            "RANK": "1",
            "WORLD_SIZE": "2",
            "MASTER_ADDR": "h",
            "MASTER_PORT": "7",
            "TORCHELASTIC_USE_AGENT_STORE": "True",
        },
        (1, 2, "h", 7, False),
    ),
    "kubernetes": ({"RANK": "0", "WORLD_SIZE": "4", "MASTER_ADDR": "h", "MASTER_PORT": "7"}, (0, 4, "h", 7, True)),
    "ours": (
        {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "h", "MASTER_PORT": "7", "VISIONFORGE_RUN_FOLDER": "/x"},
        None,
    ),
    "lightning": ({"LOCAL_RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "h", "MASTER_PORT": "7"}, None),
    "srun": (
        {**SLURM, "SLURM_PROCID": "2", "SLURM_NTASKS_PER_NODE": "3", "SLURM_JOB_ID": "10007", "MASTER_ADDR": "h"},
        (2, 3, "h", 15007, True),
    ),
    "by hand in an allocation": ({**SLURM, "SLURM_JOB_NAME": "bash"}, None),
}


def set_only(monkeypatch, variables):
    for name in {key for others, _ in PLACES.values() for key in others}:
        monkeypatch.delenv(name, raising=False)
    for key, value in variables.items():
        monkeypatch.setenv(key, value)


def test_a_job_that_lightning_does_not_take_is_one_line(monkeypatch):
    set_only(monkeypatch, SLURM)
    with pytest.raises(SettingsError, match=r"SLURM: 3 tasks without --ntasks-per-node; submit"):
        Place.of_environment()


def test_a_job_that_was_begun_without_srun_is_one_line(monkeypatch):
    set_only(monkeypatch, {**SLURM, "SLURM_NTASKS_PER_NODE": "3"})
    monkeypatch.delenv("SLURM_STEP_ID")
    with pytest.raises(SettingsError, match=r"SLURM: a job of 3 tasks, and one process without srun; begin it with"):
        Place.of_environment()


def test_several_devices_in_a_job_of_one_task_are_one_line(monkeypatch, refuse):
    set_only(monkeypatch, {"SLURM_NTASKS": "1", "SLURM_PROCID": "0", "SLURM_JOB_NAME": "night"})
    (line,) = refuse("fit", *flags(trainer__devices=4, trainer__num_nodes=2, data__synthetic__train=320))
    assert "trainer.devices: 8 processes, but this job of SLURM has 1 task; submit it with --nodes=2" in line
    assert "--ntasks-per-node=4, and begin it with srun visionforge" in line


@pytest.mark.parametrize("name", PLACES)
def test_the_place_is_that_of_the_launcher(name, monkeypatch):
    variables, expected = PLACES[name]
    set_only(monkeypatch, variables)
    place = Place.of_environment()
    found = None if place is None else (place.rank, place.size, place.host, place.port, place.hosts_store)
    assert found == expected
