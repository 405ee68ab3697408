"""A signal ends what is worked on wherever it arrives."""

import signal
import sys
import time
import weakref

import pytest

from visionforge.runs.signals import Interrupted, Interruption


class Ends:
    """Is asked to end while it is taken apart, where Python ignores exceptions."""

    def __init__(self, number):
        self.number = number

    def __del__(self):
        signal.raise_signal(self.number)
        sum(range(10))  # the handler has been called by now


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_where_exceptions_are_ignored_is_not_lost(number, capfd):
    handlers, hook = signal.getsignal(number), sys.unraisablehook

    def work():
        with Interruption():
            Ends(number)
            time.sleep(20)

    with pytest.raises(Interrupted) as caught:
        work()
    assert caught.value.number == number
    assert "Exception ignored" not in capfd.readouterr().err
    assert (signal.getsignal(number), sys.unraisablehook) == (handlers, hook)


def test_so_is_one_in_the_callback_of_a_reference():
    class Thing:
        pass

    thing = Thing()
    reference = weakref.ref(thing, lambda _: signal.raise_signal(signal.SIGTERM))

    def work():
        nonlocal thing
        with Interruption():
            del thing
            time.sleep(20)

    with pytest.raises(Interrupted):
        work()
    assert reference() is None


def test_where_signals_wait_it_waits():
    done = []

    def work():
        with Interruption() as interruption:
            with interruption.deferred():
                Ends(signal.SIGINT)
                time.sleep(0.2)
                done.append(True)
            interruption.check()

    with pytest.raises(Interrupted):
        work()
    assert done


def test_other_ignored_exceptions_are_told_as_before(monkeypatch):
    told = []
    monkeypatch.setattr(sys, "unraisablehook", lambda ignored: told.append(ignored.exc_type))

    class Fails:
        def __del__(self):
            raise ValueError

    with Interruption():
        Fails()
    assert told == [ValueError]
