"""Runs the real command line against hostile input, and tells what the process did beside what it printed.

An audit hook in the process itself writes down every program that is started, every connection, and every file that is
opened for writing, renamed or removed. Memory is bounded by the kernel, time by the parent.
"""

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

SOURCES = Path(__file__).resolve().parents[2] / "src"
HOOK = """
import json, os, sys
_log = os.open(os.environ["AUDIT_LOG"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
def _hook(event, args):
    if event == "open":
        path, mode, flags = args
        if not isinstance(path, (str, bytes)) or not (flags or 0) & _WRITES:
            return
        said = [os.fsdecode(path)]
    elif event in ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "socket.connect", "socket.getaddrinfo",
                   "os.remove", "os.rename", "os.rmdir", "os.kill", "shutil.rmtree", "os.link", "os.symlink"):
        said = [repr(arg)[:500] if not isinstance(arg, (str, bytes)) else os.fsdecode(arg) for arg in args]
    else:
        return
    os.write(_log, (json.dumps([event, said]) + "\\n").encode("utf-8", "replace"))
sys.addaudithook(_hook)
"""
PROGRAMS = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn")
CONNECTIONS = ("socket.connect", "socket.getaddrinfo")
CHANGES = ("open", "os.remove", "os.rename", "os.rmdir", "shutil.rmtree", "os.link", "os.symlink")
HARMLESS_PROGRAMS = (
    "git",
    "fc-list",
    "lscpu",
    "uname",
    "ldconfig",
    "/sbin/ldconfig",
    "gcc",
    "cc",
    "g++",
    "c++",
    "which",
)


@dataclass(frozen=True)
class Outcome:
    """What a command did.

    Attributes:
        status: Exit status; negative for the signal that ended it.
        out: Standard output.
        err: Standard error.
        seconds: How long it took.
        peak_mb: Most resident memory.
        events: (audit event, arguments), in order.
    """

    status: int
    out: str
    err: str
    seconds: float
    peak_mb: float
    events: list[tuple[str, list[str]]]

    @property
    def programs(self) -> list[str]:
        """Programs that were started, apart from those by which libraries look at the machine, and git."""
        found = [args[0] for event, args in self.events if event in PROGRAMS]
        return [name for name in found if Path(name).name not in HARMLESS_PROGRAMS]

    @property
    def connections(self) -> list[str]:
        """Addresses that were looked up or connected to."""
        return [" ".join(args) for event, args in self.events if event in CONNECTIONS]

    @property
    def killed(self) -> list[list[str]]:
        """Arguments of os.kill, apart from signal 0, which only asks whether a process lives."""
        return [args for event, args in self.events if event == "os.kill" and args[1] != "0"]

    def changed_outside(self, *folders: Path) -> list[str]:
        """Paths outside these folders that were written, renamed or removed; devices do not count."""
        allowed = [str(folder.resolve()) for folder in folders] + ["/dev/", "/proc/"]
        paths = [
            os.path.normpath(arg) for event, args in self.events if event in CHANGES for arg in args if arg[:1] == "/"
        ]
        return [path for path in paths if not path.startswith(tuple(allowed))]


def attack(
    *arguments: str,
    folder: Path,
    environment: dict[str, str] | None = None,
    memory_mb: int = 12_000,
    timeout_s: float = 180.0,
    stdin: str = "",
) -> Outcome:
    """Run `visionforge ARGUMENTS` in a process of its own.

    Args:
        arguments: The command line.
        folder: Working folder; caches and the user's data go below it.
        environment: Further variables.
        memory_mb: Most private memory (RLIMIT_DATA) that the process may take; torch alone needs about 3,000.
        timeout_s: After this time it is killed, and `status` is -9.
        stdin: What it reads from standard input.
    """
    private = folder / ".attack"
    private.mkdir(exist_ok=True)
    (private / "sitecustomize.py").write_text(HOOK)
    audit = private / "audit.jsonl"
    audit.unlink(missing_ok=True)
    variables = {
        "PATH": os.environ["PATH"],
        "HOME": str(private / "home"),
        "TMPDIR": str(private / "tmp"),
        "LANG": "C.UTF-8",
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "MPLCONFIGDIR": os.environ.get("MPLCONFIGDIR", str(private / "matplotlib")),
        "VISIONFORGE_CACHE": str(private / "cache"),
        "VISIONFORGE_DATA": str(private / "data"),
        "VISIONFORGE_CATALOG": str(private / "catalog"),
        "XDG_DATA_HOME": str(private / "share"),
        "PYTHONPATH": os.pathsep.join((str(private), str(SOURCES))),
        "PYTHONDONTWRITEBYTECODE": "1",
        **{name: os.environ[name] for name in ("PYTHONPYCACHEPREFIX",) if name in os.environ},
        "AUDIT_LOG": str(audit),
        **(environment or {}),
    }
    for name in ("home", "tmp"):
        (private / name).mkdir(exist_ok=True)

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_DATA, (memory_mb << 20, memory_mb << 20))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

    started = time.monotonic()
    with (private / "out").open("wb") as out, (private / "err").open("wb") as err:
        process = subprocess.Popen(
            [sys.executable, "-m", "visionforge", *arguments],
            cwd=folder,
            env=variables,
            stdin=subprocess.PIPE,
            stdout=out,
            stderr=err,
            preexec_fn=limit,
            start_new_session=True,
        )
        assert process.stdin is not None
        process.stdin.write(stdin.encode())
        process.stdin.close()
        ended, peak_mb = False, 0.0
        while not ended:
            peak_mb = max(peak_mb, _most_resident_mb(process.pid))
            pid, status = os.waitpid(process.pid, os.WNOHANG)
            if pid:
                ended = True
            elif time.monotonic() - started > timeout_s:
                os.killpg(process.pid, 9)
                _, status = os.waitpid(process.pid, 0)
                ended = True
            else:
                time.sleep(0.02)
        process.returncode = os.waitstatus_to_exitcode(status)
    lines = audit.read_text("utf-8", "replace").splitlines() if audit.exists() else []
    events = [(event, args) for event, args in map(json.loads, lines)]
    return Outcome(
        process.returncode,
        (private / "out").read_text("utf-8", "backslashreplace"),
        (private / "err").read_text("utf-8", "backslashreplace"),
        time.monotonic() - started,
        peak_mb,
        events,
    )


def _most_resident_mb(pid: int) -> float:
    """Return the most memory that a process has had; that of wait4 would be this one's, from which it was forked."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM")), 0.0)


def refused(outcome: Outcome) -> list[str]:
    """Return the lines of a refusal: exit status 2, no traceback, nothing started, nothing connected to."""
    assert outcome.status == 2, (outcome.status, outcome.err[-2000:])
    assert "Traceback" not in outcome.err
    assert not outcome.programs
    assert not outcome.connections
    lines = [line.removeprefix("error: ") for line in outcome.err.splitlines() if line.startswith("error: ")]
    assert lines, outcome.err
    return lines


_REACHED = ("open", "os.listdir", "os.scandir", "os.chmod", "os.truncate", "sqlite3.connect")  # through links
_NAMED = ("os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.link", "os.symlink")  # a link itself, if it is one
_watched: list[str] | None = None
_hooked: list[bool] = []


def _watch(event: str, args: tuple[object, ...]) -> None:
    if _watched is None or event not in (*_REACHED, *_NAMED):
        return
    for path in args:
        if isinstance(path, str | bytes):
            text = os.fsdecode(path).removeprefix("file:").partition("?")[0]
            head, tail = os.path.split(text)
            _watched.append(os.path.realpath(text) if event in _REACHED else f"{os.path.realpath(head)}/{tail}")


@contextmanager
def touched(folder: Path) -> Iterator[list[str]]:
    """Yield a list that holds, after the block, what this process has read, written, made or removed in a folder.

    Links are followed: what counts is where a path leads.
    """
    global _watched
    if not _hooked:
        sys.addaudithook(_watch)  # which stays; none can be taken away
        _hooked.append(True)
    found: list[str] = []
    _watched = []
    try:
        yield found
    finally:
        seen, _watched = _watched, None
        top = os.path.realpath(folder)
        found += [path for path in seen if path == top or path.startswith(f"{top}/")]
