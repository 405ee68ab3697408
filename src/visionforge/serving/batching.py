"""Pictures of many requests gathered into batches, which one thread answers, one after the other."""

import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Generic, TypeVar

_LOOK_S = 0.001  # so often a batch that waits looks whether more is on the way
Given = TypeVar("Given")
Found = TypeVar("Found")


class Batcher(Generic[Given, Found]):
    """Answers what is submitted in batches.

    While a batch is answered, the next one gathers, so under load batches fill themselves. A batch waits for what is on
    the way alone: where one client asks, it would wait for nothing. The thread begins with the first submission.

    Args:
        answer: Answers a batch, in its order; only one call at a time.
        batch_size: The most of a batch.
        max_wait_s: So long a batch waits for more at most, from its first on, in seconds.
        on_the_way: Whether more is about to be submitted.
    """

    def __init__(
        self,
        answer: Callable[[list[Given]], Sequence[Found]],
        batch_size: int,
        max_wait_s: float,
        on_the_way: Callable[[], bool],
    ) -> None:
        self._answer = answer
        self._batch_size = batch_size
        self._max_wait_s = max_wait_s
        self._on_the_way = on_the_way
        self._waiting: queue.SimpleQueue[tuple[Given, Future[Found]] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()

    def submit(self, given: Given) -> "Future[Found]":
        """Return what will be found."""
        with self._starting:
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="visionforge-serve", daemon=True)
                self._thread.start()
        future: Future[Found] = Future()
        self._waiting.put((given, future))
        return future

    def close(self) -> None:
        """Answer what was submitted, and end the thread; a later submission begins another."""
        with self._starting:
            thread, self._thread = self._thread, None
        if thread is not None:
            self._waiting.put(None)
            thread.join()

    def _work(self) -> None:
        ends = False
        while not ends and (first := self._waiting.get()) is not None:
            batch, latest = [first], time.monotonic() + self._max_wait_s
            while len(batch) < self._batch_size and not ends:
                left = latest - time.monotonic() if self._on_the_way() else 0.0
                try:
                    further = self._waiting.get(timeout=min(max(left, 0.0), _LOOK_S))
                except queue.Empty:
                    if left <= 0:
                        break
                    continue
                if further is None:
                    ends = True
                else:
                    batch.append(further)
            self._settle([each for each in batch if each[1].set_running_or_notify_cancel()])

    def _settle(self, batch: "list[tuple[Given, Future[Found]]]") -> None:
        if not batch:
            return
        try:
            answers = self._answer([given for given, _ in batch])
        except Exception as error:
            if len(batch) > 1:  # one of them must not be the error of all
                for each in batch:
                    self._settle([each])
            else:
                batch[0][1].set_exception(error)
            return
        for (_, future), found in zip(batch, answers, strict=True):
            future.set_result(found)
