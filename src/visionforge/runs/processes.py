"""Processes of a run, known by pid, creation time and mark, never by name; and what a dead run left of them."""

import contextlib
import json
import os
import socket
import threading
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any, Self

import psutil

from visionforge.reading import read_json
from visionforge.runs.files import write_atomic
from visionforge.runs.signature import PROCESSES, canonical_content, is_signed, sign

MARK = "VISIONFORGE_RUN"  # environment variable with the run's own number; inherited by every program that it starts
RECORD = ".processes.json"
RECORD_EVERY_S = 5.0
CREATION_TOLERANCE_S = 0.5  # psutil computes the time of creation from that of the boot, which a clock may correct
TERM_WAIT_S = 5.0


@cache
def machine() -> str:
    """Return what tells machines, boots and process namespaces (containers) apart; a pid means something in one only.

    Where the system does not say, it is the host's name.
    """
    boot = namespace = ""
    with contextlib.suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        namespace = str(Path("/proc/self/ns/pid").readlink())
    return "/".join((socket.gethostname(), boot, namespace))


@dataclass(frozen=True)
class ProcessId:
    """A process that cannot be mistaken for a later one with the same pid.

    Attributes:
        pid: Number.
        created: When it was created, in seconds since 1970.
        host: Name of its machine.
        machine: Machine, boot and process namespace.
        since_boot: When it was created, in seconds since that boot; None where the system does not say. Unlike
            `created`, which is made of it and the clock, it does not change when the clock is set.
    """

    pid: int
    created: float
    host: str
    machine: str
    since_boot: float | None = None

    @classmethod
    def of(cls, process: psutil.Process) -> Self:
        """Return which process of this machine it is.

        Raises:
            psutil.Error: If it is gone.
        """
        pid = process.pid
        return cls(pid, process.create_time(), socket.gethostname(), machine(), _since_boot(pid))

    @property
    def key(self) -> tuple[int, float]:
        """Return what tells it from other processes of this machine."""
        return self.pid, self.created if self.since_boot is None else self.since_boot

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as plain values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Self:
        """Return the process that `as_dict` described.

        Raises:
            ValueError: If that describes none: it may come from a stranger.
        """
        try:
            pid, created = int(content["pid"]), float(content["created"])
            since = content.get("since_boot")  # not in records of earlier versions
            since = None if since is None else float(since)
            found = cls(pid, created, str(content["host"]), str(content["machine"]), since)
        except (LookupError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise ValueError(f"describes no process ({type(error).__name__}: {error})") from error
        if pid < 1:
            raise ValueError(f"describes no process (pid {pid})")
        return found

    def find(self) -> psutil.Process | None:
        """Return the process if it lives, here."""
        if self.machine != machine():
            return None
        try:
            process = psutil.Process(self.pid)
            since = _since_boot(self.pid)
            if since is None or self.since_boot is None:  # the record of an earlier version is compared by the clock
                same = abs(process.create_time() - self.created) <= CREATION_TOLERANCE_S
            else:
                same = since == self.since_boot
            return process if same and process.status() != psutil.STATUS_ZOMBIE else None
        except psutil.Error:
            return None

    def may_live(self) -> bool:
        """Return False only if it is known to be dead; of another machine nothing is known."""
        return self.machine.split("/")[0] != socket.gethostname() or self.find() is not None


def this_process() -> ProcessId:
    """Return this process."""
    return ProcessId.of(psutil.Process())


def _since_boot(pid: int) -> float | None:
    """Return when a process was created, in seconds since the boot, as Linux counts it."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()  # the name may hold anything
        return int(fields[19]) / os.sysconf("SC_CLK_TCK")  # the 22nd field; the first two are before the bracket
    except (OSError, ValueError, IndexError):
        return None


class ProcessRecord:
    """Keeps the list of a run's processes in its folder, as long as the run lives.

    What this process had started before the run, such as a server of a notebook's user, is none of them.

    Args:
        folder: The run folder.
        mark: The run's own number.
    """

    def __init__(self, folder: Path, mark: str) -> None:
        self._path = folder / RECORD
        self._mark = mark
        self._done = threading.Event()
        self._before = frozenset[tuple[int, float]]()
        self._known: list[tuple[int, float]] = []
        self._thread = threading.Thread(target=self._watch, name="visionforge-processes", daemon=True)

    def start(self) -> None:
        """Write the list now, and again when a process is added or gone."""
        os.environ[MARK] = self._mark
        self._before = frozenset(child.key for child in _children())
        self.write()
        self._thread.start()

    def stop(self) -> None:
        """Remove the list: the run has ended in order."""
        self._done.set()
        self._thread.join(timeout=RECORD_EVERY_S)
        os.environ.pop(MARK, None)
        self._path.unlink(missing_ok=True)

    def write(self) -> None:
        """Write the list if it has changed."""
        found = {child.key: child for child in _children() if child.key not in self._before}
        if sorted(found) == self._known and self._path.exists():
            return
        self._known = sorted(found)
        processes = [asdict(process) for process in (this_process(), *map(found.__getitem__, self._known))]
        content = {"mark": self._mark, "processes": processes}
        write_atomic(self._path, json.dumps({**content, "signature": sign(canonical_content(content), PROCESSES)}))

    def _watch(self) -> None:
        while not self._done.wait(RECORD_EVERY_S):
            with contextlib.suppress(OSError):  # a full disk; the next round tries again
                self.write()


def _children() -> Iterable[ProcessId]:
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            yield ProcessId.of(process)


def leftovers(folder: Path) -> list[psutil.Process]:
    """Return the living processes of a run whose main process is dead; none if that lives, or is of another machine.

    A process counts if the run's record names it by pid and creation time, or if it carries the run's mark in its
    environment; and only if it belongs to this user and carries no other mark. The record counts only if this user's
    visionforge wrote it, which its signature proves: one in a stranger's folder could name anybody.

    Args:
        folder: The run folder.
    """
    try:
        content = read_json(folder / RECORD)
        signature = content.pop("signature", None)
        mark = str(content["mark"])
        recorded = [ProcessId.from_dict(entry) for entry in content["processes"]]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return []
    if not is_signed(canonical_content(content), signature, PROCESSES):
        return []
    if not recorded or recorded[0].machine != machine() or recorded[0].find() is not None:
        return []
    found = {process.pid: process for entry in recorded if (process := entry.find()) is not None}
    for process in psutil.process_iter():
        if process.pid not in found and process.pid != os.getpid() and _mark_of(process) == mark:
            found[process.pid] = process
    return [p for pid, p in sorted(found.items()) if _is_own(p) and _mark_of(p) in (None, mark) and pid != os.getpid()]


def _mark_of(process: psutil.Process) -> str | None:
    """Return the mark in a process's environment; forked ones have that of the program they were forked from."""
    try:
        return process.environ().get(MARK)
    except (psutil.Error, OSError):
        return None


def _is_own(process: psutil.Process) -> bool:
    try:
        return not hasattr(os, "getuid") or process.uids().real == os.getuid()
    except psutil.Error:
        return False


def end_processes(processes: list[psutil.Process], wait_s: float = TERM_WAIT_S) -> list[psutil.Process]:
    """Ask processes to end, wait, and kill those that are left; return those that live even then."""
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.terminate()
    _, alive = psutil.wait_procs(processes, timeout=wait_s)
    for process in alive:
        with contextlib.suppress(psutil.Error):
            process.kill()
    return psutil.wait_procs(alive, timeout=wait_s)[1]
