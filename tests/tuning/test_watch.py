"""What a search hears of a trial in processes of its own, line by line, however it ends."""

import json
import socket
import threading
from pathlib import Path

import numpy as np
import optuna

from visionforge.errors import TrainingError
from visionforge.runs.signals import Interruption
from visionforge.tuning.apart import Link, Watch, _watched


def watched(*said: object, end: bool = False):
    """Let a trial say something and go; return what the search makes of it, and what it answered."""
    ours, theirs = socket.socketpair()
    seen: list[object] = []

    def ended(epoch, value):
        seen.append((epoch, value))
        return np.bool_(end)  # as NumPy's comparisons are

    watch = Watch(seen.append, ended, pauses=False, waits=False, metric="val/auc")
    theirs.sendall("".join(line if isinstance(line, str) else f"{json.dumps(line)}\n" for line in said).encode())
    theirs.shutdown(socket.SHUT_WR)
    try:
        found: object = _watched(ours, watch, Interruption())
    except Exception as error:
        found = error
    ours.close()
    with theirs, theirs.makefile("rb") as lines:
        return found, seen, [json.loads(line) for line in lines]


def test_epochs_are_answered_and_the_run_is_returned():
    epochs = [{"epoch": number, "value": number / 10} for number in range(3)]
    found, seen, answers = watched({"run": "/runs/a"}, *epochs, {"done": "/runs/a"})
    assert found == Path("/runs/a")
    assert seen == [Path("/runs/a"), (0, 0.0), (1, 0.1), (2, 0.2)]
    assert answers == [{"end": False}] * 3


def test_the_search_ends_a_trial():
    found, _, answers = watched({"epoch": 0, "value": 0.5}, {"pruned": "ended after epoch 1"}, end=True)
    assert isinstance(found, optuna.TrialPruned)
    assert answers == [{"end": True}]


def test_failures_and_silence_are_told():
    found, _, _ = watched({"failed": ["data.root: missing", "seed: no"]})
    assert isinstance(found, TrainingError)
    assert found.problems == ("data.root: missing", "seed: no")
    assert "ended without a word" in str(watched()[0])
    assert "ended without a word" in str(watched('{"epoch"')[0])


def test_a_trial_hears_that_nobody_listens(monkeypatch):
    signals = []
    monkeypatch.setattr("visionforge.tuning.apart.os.kill", lambda pid, number: signals.append(number))
    ours, theirs = socket.socketpair()
    link = Link(theirs)
    threading.Timer(0.1, ours.close).start()
    assert link.ask(epoch=0, value=0.5) is False  # it goes on to the end of its step, where the signal is looked for
    assert len(signals) == 1
    other, theirs = socket.socketpair()
    done = Link(theirs)
    done.conclude(done="/runs/a")
    other.close()
    assert len(signals) == 1
