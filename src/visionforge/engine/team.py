"""Processes of one training that a launcher has started, such as torchrun or srun: one decides, and all end together.

They meet at the address that the launcher gives. The first process holds a connection to each of the others, which the
kernel closes when one dies, so that nobody waits for a process that is gone. What is sent are lines of JSON.
"""

import contextlib
import json
import logging
import os
import secrets
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Self

from visionforge.engine.slurm import job_of_tasks
from visionforge.errors import PeerEndedError, RunError, TrainingError, VisionForgeError
from visionforge.runs.session import FOLDER
from visionforge.runs.signals import Interrupted

log = logging.getLogger(__name__)

MISTAKE, FAILURE = 2, 1  # exit statuses
MEET_S = 300.0  # how long a process waits for the first one to come
GRACE_S = 4.0  # how long a process may take to end by itself after another has ended
WRITING_S = 30.0  # how much longer if it writes how its run has ended
HELLO_S = 30.0  # how long somebody who connects may take to say who it is
JOIN_S = 8.0  # how long a first process that cannot go on waits for others, to tell them
REPLY_S = 3.0
LONGEST_LINE = 1 << 16  # bytes
_MEETING, _DECISION = "meeting", "decision"
_teams = 0  # that this process was part of, so that a later one does not read what an earlier one has left


@dataclass(frozen=True)
class Place:
    """Where a launcher has put this process.

    Attributes:
        rank: Number of the process.
        size: How many there are.
        host: Where the first is.
        port: At which it, or its launcher, has a store.
        hosts_store: The first process makes the store; otherwise it is the launcher's.
    """

    rank: int
    size: int
    host: str
    port: int
    hosts_store: bool

    @classmethod
    def of_environment(cls) -> Self | None:
        """Return what the launcher's variables say; None where there is none, or a single process.

        Raises:
            SettingsError: If Lightning would not take the job.
        """
        if os.environ.get(FOLDER):  # the first process has started this one, or a run is under way here
            return None
        numbers = [os.environ.get(name, "") for name in ("RANK", "WORLD_SIZE", "MASTER_PORT")]
        if all(text.isdigit() for text in numbers) and os.environ.get("MASTER_ADDR"):
            rank, size, port = map(int, numbers)
            own = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
            return cls(rank, size, os.environ["MASTER_ADDR"], port, own) if size > 1 else None
        job = job_of_tasks()
        return None if job is None else cls(job.global_rank(), job.world_size(), job.main_address, job.main_port, True)


class Team:
    """The processes, as one of them sees them; see `launched_together`.

    Args:
        place: Where this process is.

    Attributes:
        ended: Why the training cannot go on, once one of the others has ended.
        last_words: Called with that if this process does not end by itself, before it is ended.
        writes: It ends by itself, and still writes.
    """

    def __init__(self, place: Place) -> None:
        from torch.distributed import PrefixStore, TCPStore  # type: ignore[attr-defined]

        global _teams
        _teams += 1
        self.rank, self.size = place.rank, place.size
        self.ended: PeerEndedError | None = None
        self.last_words: Callable[[PeerEndedError], None] | None = None
        self.writes = False
        self._over = threading.Event()
        self._told, self._is_first = threading.Event(), True
        self._lock = threading.Lock()
        self._links: dict[int, socket.socket] = {}
        self._done: set[int] = set()
        hosts = place.hosts_store and self.rank == 0
        store = TCPStore(
            place.host, place.port, None, hosts, timedelta(seconds=MEET_S), wait_for_workers=False, multi_tenant=True
        )
        attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        self._store = PrefixStore(f"visionforge/{attempt}/{_teams}", store)
        if self.rank == 0:
            self._token = secrets.token_hex(16)
            self._server = socket.create_server(("", 0), backlog=self.size)
            meeting = {"port": self._server.getsockname()[1], "token": self._token}
            self._store.set(_MEETING, json.dumps(meeting))
            threading.Thread(target=self._receive, daemon=True, name="team").start()
        else:
            meeting = json.loads(self._store.get(_MEETING))
            link = socket.create_connection((place.host, int(meeting["port"])), timeout=MEET_S)
            link.settimeout(None)
            self._links[0] = link
            _send(link, {"rank": self.rank, "token": meeting["token"]})
            threading.Thread(target=self._listen, args=(0, link), daemon=True, name="team").start()

    # --- decisions

    def tell(self, decision: Mapping[str, str | None]) -> None:
        """Let the others know what the first process has decided, once all of them are there.

        Raises:
            PeerEndedError: If one of them has ended.
            RunError: If one does not come.
        """
        limit = time.monotonic() + MEET_S
        while len(self._links) + 1 < self.size:
            if self.ended is not None:
                raise self.ended
            if time.monotonic() > limit:
                there = len(self._links) + 1
                raise RunError(
                    f"{there} of {self.size} processes have come within {MEET_S:.0f} s; see the others' output"
                )
            time.sleep(0.02)
        self._store.set(_DECISION, json.dumps(decision))

    def follow(self) -> dict[str, str | None]:
        """Wait for what the first process decides.

        Raises:
            PeerEndedError: If it ends instead.
        """
        while not self._store.check([_DECISION]):
            if self._over.wait(0.1) or self.ended is not None:
                raise self.ended or PeerEndedError("the first process has ended", FAILURE)
        return dict(json.loads(self._store.get(_DECISION)))

    # --- the end

    def fail(self, status: int, reason: str, mistake: bool = False) -> bool:
        """Let the others know that this process cannot go on.

        Args:
            status: Its exit status.
            reason: A line.
            mistake: It refuses what was asked for, so that the run cannot go on later either.

        Returns:
            Whether it is the first to say so, who tells the user.
        """
        if self.rank == 0:
            return self._end(0, status, reason, mistake)
        with contextlib.suppress(OSError):
            _send(self._links[0], {"failed": status, "reason": reason[:1000], "mistake": mistake})
            self._told.wait(REPLY_S)
        return self._is_first and self.ended is None

    def close(self) -> None:
        """Part in order; the first process waits for a moment, so that all hear how it has ended."""
        if self.rank == 0:
            limit = time.monotonic() + (GRACE_S if self.ended is None else JOIN_S)
            while time.monotonic() < limit and not self._heard_by_all():
                time.sleep(0.05)
        self._over.set()
        if self.rank != 0:
            with contextlib.suppress(OSError):
                _send(self._links[0], {"done": True})

    def _heard_by_all(self) -> bool:
        """Return whether the first process may go."""
        return len(self._links if self.ended is not None else self._done) + 1 >= self.size

    def cause(self, error: BaseException) -> BaseException:
        """Return what an error comes from: often another process, of whose end this one hears in a moment.

        So it is with SIGTERM, too, by which launchers end the others when one is gone.
        """
        asked = error if isinstance(error, Interrupted) else None
        alone = asked is not None and asked.number == signal.SIGTERM and not asked.together
        if self.ended is None and (alone or isinstance(error, RuntimeError)):
            time.sleep(1.0)
        ended = self.ended
        if ended is None or isinstance(error, VisionForgeError):
            return error
        return error if asked is not None and not ended.lost else ended

    # --- what the threads do

    def _receive(self) -> None:
        """Take the connections of the others, at the first process."""
        while not self._over.is_set():
            try:
                link, _ = self._server.accept()
            except OSError:
                return
            threading.Thread(target=self._listen, args=(None, link), daemon=True, name="team").start()

    def _listen(self, rank: int | None, link: socket.socket) -> None:
        """Read what another process says, to the end of its connection."""
        with (
            contextlib.suppress(OSError, ValueError, TypeError, LookupError, RecursionError),
            link.makefile("rb") as lines,
        ):
            if rank is None:
                link.settimeout(HELLO_S)
                hello = json.loads(lines.readline(LONGEST_LINE))
                if not secrets.compare_digest(str(hello["token"]), self._token):
                    raise ValueError("a stranger")
                link.settimeout(None)
                rank = int(hello["rank"])
                self._links[rank] = link
                if self.ended is not None:
                    _send(link, self._verdict(self.ended))
            while line := lines.readline(LONGEST_LINE):
                self._hear(rank, json.loads(line))
        if rank is None:
            link.close()
        elif not self._over.is_set() and rank not in self._done:
            self._end(rank, FAILURE, f"process {rank} of {self.size} was lost", lost=True)

    @staticmethod
    def _verdict(ended: PeerEndedError) -> dict[str, Any]:
        return {"ended": ended.status, "reason": str(ended), "mistake": ended.mistake}

    def _hear(self, rank: int, said: Mapping[str, Any]) -> None:
        if "failed" in said:
            first = self._end(rank, int(said["failed"]), str(said["reason"]), bool(said["mistake"]))
            _send(self._links[rank], {"first": first})
        elif "done" in said:
            self._done.add(rank)
        elif "first" in said:
            self._is_first = bool(said["first"])
            self._told.set()
        elif "ended" in said:
            self._done.add(rank)
            self._end(rank, int(said["ended"]), str(said["reason"]), bool(said["mistake"]))

    def _end(self, rank: int, status: int, reason: str, mistake: bool = False, lost: bool = False) -> bool:
        """Note who has ended, let the others know, and end this process, too; return whether it is the first."""
        with self._lock:
            first = self.ended is None
            if first:
                self._done.add(rank)
                tells = lost and self.rank == (1 if rank == 0 else 0)  # a process that was killed says nothing
                self.ended = PeerEndedError(reason, status, mistake, told=not tells, lost=lost)
        assert self.ended is not None
        if first and self.rank == 0:
            for other, link in list(self._links.items()):
                if other != rank:
                    with contextlib.suppress(OSError):
                        _send(link, self._verdict(self.ended))
        self._told.set()
        if first and rank != self.rank:
            threading.Thread(target=self._end_here, daemon=True, name="team-end").start()
        return first

    def _end_here(self) -> None:
        """End this process if it does not by itself: it may wait for the one that is gone."""
        if self._over.wait(GRACE_S) or (self.writes and self._over.wait(WRITING_S)):
            return
        assert self.ended is not None
        try:
            if self.last_words is not None:
                self.last_words(self.ended)
        finally:
            os._exit(self.ended.status)


def _send(link: socket.socket, said: Mapping[str, Any]) -> None:
    link.sendall(json.dumps(said).encode() + b"\n")


_current: Team | None = None


def current_team() -> Team | None:
    """Return the team that this process is part of, within `launched_together`."""
    return _current


@contextmanager
def launched_together() -> Iterator[None]:
    """Let the processes of a launcher agree within, and end together: with one line, and the same exit status.

    Without a launcher, or with a single process, nothing is done.

    Raises:
        PeerEndedError: If another process cannot go on.
    """
    global _current
    place = None if _current is not None else Place.of_environment()
    if place is None:
        yield
        return
    _current = team = Team(place)
    try:
        yield
    except PeerEndedError:
        raise
    except (Interrupted, KeyboardInterrupt) as error:
        if not getattr(error, "together", False):
            name = getattr(error, "name", "SIGINT")
            team.fail(128 + signal.Signals[name], f"process {team.rank} was interrupted by {name}")
        raise
    except Exception as error:
        if (cause := team.cause(error)) is not error:
            raise cause from error
        told = isinstance(error, VisionForgeError)
        reason = str(error) if told else f"{type(error).__name__}: {error}"
        mistake = told and not isinstance(error, TrainingError)  # such as a lack of memory, after which it may go on
        if not team.fail(MISTAKE if told else FAILURE, reason, mistake) and told:
            raise PeerEndedError(reason, MISTAKE, mistake) from error
        raise
    finally:
        team.close()
        _current = None
