"""Locks that the kernel releases when their owner dies, with a record of who holds them.

A lock is a file. Its owner writes who it is beside it, and removes both files before it lets go; what a killed owner
leaves is a file that nobody holds, which the next one takes over.
"""

import contextlib
import json
import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
from filelock import FileLock, Timeout

from visionforge.errors import RunError
from visionforge.reading import read_json
from visionforge.runs.files import write_atomic
from visionforge.runs.processes import ProcessId, this_process

log = logging.getLogger(__name__)

MESSAGE_S = 30.0  # how often a wait is told
POLL_S = 0.1
_ONE_MACHINE = ("cifs", "smb3", "smbfs", "9p", "fuse.sshfs", "fuse.s3fs", "fuse.gcsfuse", "fuse.rclone")


@dataclass(frozen=True)
class Owner:
    """Who holds a lock.

    Attributes:
        process: The process.
        since: When it took the lock, as local time with the zone.
    """

    process: ProcessId
    since: str

    def __str__(self) -> str:
        return f"process {self.process.pid} on {self.process.host}, which started {self.since}"


class LockedError(RunError):
    """Somebody else holds the lock.

    Attributes:
        owner: Who; None where it does not say.
    """

    def __init__(self, what: str, owner: Owner | None) -> None:
        super().__init__(f"{what}: in use by {owner or 'another process'}")
        self.owner = owner


class Lock:
    """An exclusive lock between processes, also of several machines where the file system passes locks on.

    Args:
        path: The lock file; its folder has to exist.
        what: What it protects, for messages.
    """

    def __init__(self, path: Path, what: str) -> None:
        self.path = path
        self._what = what
        self._lock = FileLock(path, is_singleton=False)

    def acquire(self, wait_s: float = 0.0) -> None:
        """Take the lock.

        Args:
            wait_s: How long to wait for somebody else, in seconds; the log says for whom.

        Raises:
            LockedError: If it is still held then.
        """
        deadline, told = time.monotonic() + wait_s, time.monotonic()
        if reason := shared_only_here(self.path):
            log.warning("%s: %s", self._what, reason)
        while True:
            try:
                self._lock.acquire(timeout=0)
            except (Timeout, RuntimeError) as error:  # filelock refuses with RuntimeError what this process holds
                now = time.monotonic()
                if now >= deadline:
                    raise LockedError(self._what, read_owner(self.path)) from error
                if now >= told:
                    owner = read_owner(self.path) or "another process"
                    log.info("%s: waiting for %s, at most %.0f s more", self._what, owner, deadline - now)
                    told = now + MESSAGE_S
                time.sleep(POLL_S)
            else:
                break
        write_atomic(_owner_file(self.path), json.dumps({**this_process().as_dict(), "since": _now()}))

    def release(self) -> None:
        """Let go, and remove the files: those who wait look for a new one."""
        with contextlib.suppress(OSError):
            _owner_file(self.path).unlink(missing_ok=True)
            self.path.unlink(missing_ok=True)
        self._lock.release()


@contextlib.contextmanager
def held(path: Path, what: str, wait_s: float) -> Iterator[None]:
    """Hold a lock for the duration of a block; see `Lock`."""
    lock = Lock(path, what)
    lock.acquire(wait_s)
    try:
        yield
    finally:
        lock.release()


def is_held(path: Path) -> bool:
    """Return whether somebody holds a lock; what a dead owner left is removed."""
    if not path.exists():
        return False
    lock = FileLock(path, is_singleton=False)
    try:
        lock.acquire(timeout=0)
    except (Timeout, RuntimeError):
        return True
    except OSError:  # somebody else's folder: what is written there has to do
        owner = read_owner(path)
        return owner is not None and owner.process.may_live()
    with contextlib.suppress(OSError):
        _owner_file(path).unlink(missing_ok=True)
        path.unlink(missing_ok=True)
    lock.release()
    return False


def read_owner(path: Path) -> Owner | None:
    """Return who says to hold a lock, or None if nobody does."""
    try:
        content = read_json(_owner_file(path))
        return Owner(ProcessId.from_dict(content), str(content["since"]))
    except (OSError, ValueError, KeyError):
        return None


def _owner_file(path: Path) -> Path:
    return path.with_name(f"{path.name}.owner")


def _now() -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S %Z")


@dataclass(frozen=True)
class Mount:
    """A mounted file system.

    Attributes:
        point: Where it is mounted.
        kind: Its type, such as `ext4` or `nfs4`.
        options: What it was mounted with.
    """

    point: str
    kind: str
    options: frozenset[str]


def mounts() -> list[Mount]:
    """Return the mounted file systems."""
    try:
        found = psutil.disk_partitions(all=True)
    except OSError:
        return []
    return [Mount(each.mountpoint, each.fstype.lower(), frozenset(each.opts.split(","))) for each in found]


def shared_only_here(path: Path, mounted: Sequence[Mount] | None = None) -> str | None:
    """Return why a lock may not hold off other machines; None if it does, or the file system is a local one.

    Args:
        path: The lock file.
        mounted: The file systems; None takes those of this machine.
    """
    folder = path.absolute().parent
    above = [mount for mount in (mounts() if mounted is None else mounted) if folder.is_relative_to(mount.point)]
    mount = max(above, key=lambda mount: len(mount.point), default=None)
    if mount is None:
        return None
    if mount.kind.startswith("nfs") and mount.options & {"nolock", "local_lock=all", "local_lock=flock"}:
        return f"{mount.point} is NFS mounted without locks between machines; use it from one machine at a time"
    if mount.kind == "lustre" and "flock" not in mount.options:
        return f"{mount.point} is Lustre mounted without flock; use it from one machine at a time"
    if mount.kind in _ONE_MACHINE:
        return f"{mount.point} is {mount.kind}, whose locks may not reach other machines; use it from one at a time"
    return None
