"""Runs the real command line against hostile input, and tells what the process did beside what it printed.

An audit hook in the process itself writes down every program that is started, every connection, and every file that is
opened for writing, renamed or removed. Memory is bounded by the kernel, time by the parent.
"""

import atexit
import functools
import json
import os
import signal
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
SERVER = """
import gc, json, os, resource, sys, tempfile
gc.disable()
import visionforge.engine.training, visionforge.engine.evaluating, visionforge.tasks.multi_class
import visionforge.models.mini_cnn
from visionforge.cli.main import main

gc.freeze()  # a collection in a child would copy every page that it looks through
gc.enable()
print("ready", flush=True)
for line in sys.stdin:
    job = json.loads(line)
    pid = os.fork()
    if pid == 0:
        os.setsid()
        os.chdir(job["folder"])  # the first place where modules are looked for, as with `python -m`
        os.environ.clear()
        os.environ.update(job["environment"])
        tempfile.tempdir = None
        for number, name, flags in ((0, "in", os.O_RDONLY), (1, "out", os.O_WRONLY), (2, "err", os.O_WRONLY)):
            os.dup2(os.open(job[name], flags), number)
        sys.stdin = open(0, closefd=False)
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")  # the most memory is that of the child, not of this process
        memory = job["memory_mb"] << 20
        resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        exec(job["hook"], {})
        sys.argv = ["visionforge"]
        try:
            status = main(job["arguments"])
        except SystemExit as error:
            status = error.code if isinstance(error.code, int) else 1
        except BaseException:
            import traceback
            traceback.print_exc()
            status = 1
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(status)
    print(pid, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
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
    """Run `visionforge ARGUMENTS` in a process of its own, forked from one that has imported it.

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
        "PYTHONPATH": str(SOURCES),
        "PYTHONDONTWRITEBYTECODE": "1",
        **{name: os.environ[name] for name in ("PYTHONPYCACHEPREFIX",) if name in os.environ},
        "AUDIT_LOG": str(audit),
        **(environment or {}),
    }
    for name in ("home", "tmp"):
        (private / name).mkdir(exist_ok=True)

    (private / "in").write_text(stdin)
    for name in ("out", "err"):
        (private / name).write_bytes(b"")
    job = {
        "arguments": [str(argument) for argument in arguments],
        "folder": str(folder),
        "environment": variables,
        "memory_mb": memory_mb,
        "hook": HOOK,
        **{name: str(private / name) for name in ("in", "out", "err")},
    }
    server = _server()
    assert server.stdin is not None
    assert server.stdout is not None
    started = time.monotonic()
    server.stdin.write(json.dumps(job) + "\n")
    server.stdin.flush()
    pid, peak_mb = int(server.stdout.readline()), 0.0
    while (most := _most_resident_mb(pid)) > 0:
        peak_mb = max(peak_mb, most)
        if time.monotonic() - started > timeout_s:
            os.killpg(pid, signal.SIGKILL)
            break
        time.sleep(0.02)
    status = int(server.stdout.readline())
    lines = audit.read_text("utf-8", "replace").splitlines() if audit.exists() else []
    events = [(event, args) for event, args in map(json.loads, lines)]
    return Outcome(
        status,
        (private / "out").read_text("utf-8", "backslashreplace"),
        (private / "err").read_text("utf-8", "backslashreplace"),
        time.monotonic() - started,
        peak_mb,
        events,
    )


@functools.cache
def _server() -> "subprocess.Popen[str]":
    """Return the process that others are forked from; it ends with this one."""
    own = {name: os.environ[name] for name in ("PATH", "PYTHONPYCACHEPREFIX", "MPLCONFIGDIR") if name in os.environ}
    process = subprocess.Popen(
        [sys.executable, "-c", SERVER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={
            **own,
            "LANG": "C.UTF-8",
            "OMP_NUM_THREADS": "1",
            "HF_HUB_OFFLINE": "1",
            "PYTHONPATH": str(SOURCES),
            "PYTHONDONTWRITEBYTECODE": "1",
        },
    )
    atexit.register(process.communicate)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def _most_resident_mb(pid: int) -> float:
    """Return the most memory that a process has had, as long as it runs; then 0."""
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
