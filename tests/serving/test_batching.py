"""What is submitted is answered in batches, in its order, also if some fail."""

import threading
import time

import pytest

from visionforge.serving.batching import Batcher


def test_a_batch_waits_for_more_and_ends_when_it_is_full():
    seen = []
    batcher = Batcher(lambda given: seen.append(given) or [2 * each for each in given], 3, 5.0, lambda: True)
    futures = [batcher.submit(number) for number in range(7)]
    batcher.close()  # answers what was submitted
    assert [future.result() for future in futures] == [0, 2, 4, 6, 8, 10, 12]
    assert [len(batch) for batch in seen] == [3, 3, 1]


def test_without_waiting_a_batch_is_what_is_there_already():
    free, seen = threading.Event(), []

    def answer(given):
        seen.append(given)
        free.wait(10)
        return given

    batcher = Batcher(answer, 10, 0.0, lambda: True)
    first = batcher.submit(0)
    while not seen:
        time.sleep(0.001)
    later = [batcher.submit(number) for number in range(1, 5)]
    free.set()
    assert [future.result(10) for future in (first, *later)] == [0, 1, 2, 3, 4]
    assert seen == [[0], [1, 2, 3, 4]]
    batcher.close()


def test_it_does_not_wait_for_what_is_not_on_the_way():
    coming = threading.Event()
    coming.set()
    batcher = Batcher(lambda given: [len(given)] * len(given), 10, 600.0, coming.is_set)
    first = batcher.submit(0)
    second = batcher.submit(1)
    assert not first.done()
    coming.clear()
    assert (first.result(10), second.result(10)) == (2, 2)
    assert batcher.submit(2).result(10) == 1
    batcher.close()


def test_an_error_is_that_of_its_batch_alone_and_what_nobody_waits_for_is_left_out():
    free, seen = threading.Event(), []

    def answer(given):
        free.wait(10)
        seen.append(given)
        if "bad" in given:
            raise ValueError("no")
        return given

    batcher = Batcher(answer, 1, 0.0, lambda: True)
    good, bad, gone, after = map(batcher.submit, ("good", "bad", "gone", "after"))
    assert gone.cancel()
    free.set()
    assert good.result(10) == "good"
    with pytest.raises(ValueError, match="no"):
        bad.result(10)
    assert after.result(10) == "after"
    assert ["gone"] not in seen
    batcher.close()
    assert batcher.submit("again").result(10) == "again"  # a thread begins anew
    batcher.close()


def test_one_that_fails_is_not_the_error_of_those_that_share_its_batch():
    batcher = Batcher(lambda given: [1 / each for each in given], 3, 10.0, lambda: True)
    one, bad, other = map(batcher.submit, (1, 0, 2))
    assert (one.result(10), other.result(10)) == (1, 0.5)
    with pytest.raises(ZeroDivisionError):
        bad.result(10)
    batcher.close()
