"""Signals that end a run: while it trains they wait for the end of a step, otherwise they take effect at once."""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any, Self

AGAIN_S = 0.01  # after which a signal is sent once more that was lost
GRACE_S = 60.0  # batch systems kill half a minute to a few minutes after they have asked
_NAMES = ("SIGTERM", "SIGINT", "SIGUSR1")


class Interrupted(BaseException):  # like KeyboardInterrupt, it is no error
    """A signal asked the run to end.

    Args:
        number: The signal.
        together: All processes of the training stop after the same step.
    """

    def __init__(self, number: int, together: bool = False) -> None:
        self.number = number
        self.together = together
        self.name = signal.Signals(number).name
        super().__init__(self.name)

    @property
    def exit_status(self) -> int:
        """Return 128 + the signal's number, as shells report it."""
        return 128 + self.number


class Interruption:
    """Handles SIGTERM, SIGINT (Ctrl-C) and SIGUSR1 in a ``with`` block.

    A signal raises `Interrupted`, but within `deferred` it is only remembered in `requested`, so that a training step
    and its checkpoint can be finished. Once it is raised, others are only remembered, too: what the first one makes the
    program write is not cut off by the next, which batch systems send soon after. A second Ctrl-C, or the end of the
    grace period, does not wait. Where Python ignores exceptions, as in a ``__del__``, the signal is sent once more.

    Args:
        grace_s: How long a remembered signal may wait; then the process ends without further ado, in seconds.

    Attributes:
        requested: The first signal that came.
    """

    def __init__(self, grace_s: float = GRACE_S) -> None:
        self.requested: int | None = None
        self._grace_s = grace_s
        self._deferred = False
        self._raised = False
        self._latest: int | None = None
        self._acts: list[Callable[[], None]] | None = None
        self._pid = os.getpid()
        self._earlier: dict[int, Any] = {}
        self._earlier_hook = sys.unraisablehook
        self._timer: threading.Timer | None = None

    def __enter__(self) -> Self:
        """Begin to handle."""
        self.remember()
        self.install()
        return self

    def remember(self) -> None:
        """Remember who handles the signals now, for `__exit__`, without handling them yet."""
        if threading.current_thread() is threading.main_thread():
            self._earlier = {n: signal.getsignal(n) for n in self._numbers()}
            if sys.unraisablehook != self._ignored:
                self._earlier_hook = sys.unraisablehook

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give the signals back to who handled them before."""
        if self._timer is not None:
            self._timer.cancel()
        for number, handler in self._earlier.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        if sys.unraisablehook == self._ignored:
            sys.unraisablehook = self._earlier_hook

    @staticmethod
    def _numbers() -> list[int]:
        return [int(getattr(signal, name)) for name in _NAMES if hasattr(signal, name)]

    def install(self, *more: int) -> None:
        """Handle the signals, and `more` of them; Lightning sets handlers of its own when a stage begins."""
        if threading.current_thread() is threading.main_thread():
            for number in (*self._numbers(), *more):
                signal.signal(number, self._handle)
            sys.unraisablehook = self._ignored

    def _ignored(self, ignored: "sys.UnraisableHookArgs") -> None:
        """Let a signal come again that was raised where Python ignores it; else do what was done before."""
        if not isinstance(ignored.exc_value, Interrupted) or os.getpid() != self._pid:
            self._earlier_hook(ignored)
            return
        self.requested, self._latest, self._raised = None, None, False
        again = threading.Timer(AGAIN_S, os.kill, (self._pid, ignored.exc_value.number))
        again.daemon = True
        again.start()

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Only remember signals in this block."""
        before, self._deferred = self._deferred, True
        try:
            yield
        finally:
            self._deferred = before

    @contextmanager
    def afterwards(self) -> Iterator[None]:
        """Let what is given to `last` in this block wait for its end."""
        if self._acts is not None:
            yield
            return
        acts: list[Callable[[], None]] = []
        self._acts = acts
        try:
            yield
        finally:
            self._acts = None
            for act in acts:
                act()

    def last(self, act: Callable[[], None]) -> None:
        """Do what makes others end this process, such as a batch system: now, or after what is still to be written."""
        if self._acts is None:
            act()
        else:
            self._acts.append(act)

    def check(self, together: bool = False) -> None:
        """Raise `Interrupted` if a signal was remembered."""
        if self.requested is not None:
            self._raised = True
            raise Interrupted(self.requested, together)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._pid:  # a forked loader process; its parent decides what Ctrl-C means
            if number != signal.SIGINT:
                os._exit(128 + number)
            return
        impatient = self._latest == number == signal.SIGINT  # a second Ctrl-C
        self._latest = number
        if self.requested is None:
            self.requested = number
        if (self._deferred or self._raised) and not impatient:
            if self._timer is None:
                self._timer = threading.Timer(self._grace_s, os._exit, (128 + number,))
                self._timer.daemon = True
                self._timer.start()
            return
        self._raised = True
        raise Interrupted(number if impatient else self.requested)
