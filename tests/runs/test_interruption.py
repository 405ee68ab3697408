"""A signal ends what is worked on wherever it arrives."""

import signal
import subprocess
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


def written_while_it_ends(*numbers: int) -> tuple[int, list[str]]:
    """Return the signal that ended a block, and what was written as it ended, while more signals came."""
    written = []

    def work():
        with Interruption() as interruption, interruption.afterwards():
            try:
                signal.raise_signal(numbers[0])
            finally:
                interruption.last(lambda: written.append("requeued"))
                for number in numbers[1:]:
                    signal.raise_signal(number)
                written.append("the end")

    with pytest.raises(Interrupted) as caught:
        work()
    return caught.value.number, written


def test_what_is_written_because_of_a_signal_is_not_cut_off_by_the_next():
    """SLURM sends SIGTERM as soon as a job is to be requeued, which the process asks for after the first signal."""
    assert written_while_it_ends(signal.SIGUSR1, signal.SIGTERM, signal.SIGTERM) == (
        signal.SIGUSR1,
        ["the end", "requeued"],
    )


def test_but_it_is_by_a_second_interrupt():
    assert written_while_it_ends(signal.SIGINT, signal.SIGINT) == (signal.SIGINT, ["requeued"])
    assert written_while_it_ends(signal.SIGTERM, signal.SIGINT, signal.SIGINT) == (signal.SIGINT, ["requeued"])


def test_where_signals_wait_the_first_one_counts():
    """At the end of a job's time SIGTERM may follow before a training step has ended."""

    def work():
        with Interruption() as interruption:
            with interruption.deferred():
                signal.raise_signal(signal.SIGUSR1)
                signal.raise_signal(signal.SIGTERM)
            interruption.check()

    with pytest.raises(Interrupted, match="SIGUSR1"):
        work()


def test_an_end_that_takes_too_long_is_cut_off(tmp_path):
    code = (
        "import signal, sys, time; from visionforge.runs.signals import Interruption\n"
        "with Interruption(0.2):\n"
        "    try: signal.raise_signal(signal.SIGUSR1)\n"
        "    finally:\n"
        "        signal.raise_signal(signal.SIGTERM)\n"
        "        time.sleep(20)\n"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 128 + signal.SIGTERM


def test_without_something_to_write_the_last_act_is_at_once():
    done = []
    with Interruption() as interruption:
        interruption.last(lambda: done.append("alone"))
        with interruption.afterwards(), interruption.afterwards():
            interruption.last(lambda: done.append("last"))
            done.append("first")
    assert done == ["alone", "first", "last"]
