"""Room for what several threads decode at the same time: files of some kilobytes can become a gigabyte."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

SMALL = 1 << 22  # bytes of what is not counted: a thousand threads of them are no more than one large picture


class Room:
    """So many bytes that threads hold together; one that finds nobody there is let in whatever it takes.

    Args:
        most: The bytes.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._taken = 0
        self._changed = threading.Condition()
        self._mine = threading.local()

    @contextmanager
    def holding(self, needed: int) -> Iterator[None]:
        """Hold bytes until the block ends, and wait for them before; a thread that holds some waits for no more."""
        if needed <= SMALL or getattr(self._mine, "holds", False):  # it would wait for itself
            yield
            return
        with self._changed:
            self._changed.wait_for(lambda: not self._taken or self._taken + needed <= self._most)
            self._taken += needed
        self._mine.holds = True
        try:
            yield
        finally:
            self._mine.holds = False
            with self._changed:
                self._taken -= needed
                self._changed.notify_all()


DECODING = Room(1 << 30)
