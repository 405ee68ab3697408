"""This machine, whether its folders can be used, and processes that dead runs left behind."""

import os
import shutil
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

from visionforge.errors import SettingsError
from visionforge.redaction import redact_arguments
from visionforge.runs.locks import shared_only_here
from visionforge.runs.paths import (
    cache_folder,
    data_folder,
    nearest_existing,
    outputs_folder,
    project_folder,
    resolve,
    shown,
)
from visionforge.runs.processes import end_processes, leftovers
from visionforge.runs.provenance import package_versions, processor
from visionforge.runs.query import stored_runs
from visionforge.runs.scheduler import detect_scheduler


@dataclass(frozen=True)
class FolderState:
    """Whether a folder can be used.

    Attributes:
        path: The folder.
        exists: Whether it is there already.
        writable: Whether a file can be made in it, or in the folder that it would be made in.
        ok: Whether it is good enough for what it is there for.
        free_gb: Room on its disk.
        locks: What keeps locks in it from working across machines, if anything does.
    """

    path: str
    exists: bool
    writable: bool
    ok: bool
    free_gb: float
    locks: str | None


@dataclass(frozen=True)
class Leftover:
    """A process that a dead run left behind.

    Attributes:
        run: Name of the run.
        pid: Number of the process.
        command: Its command line, without secrets.
        age_s: Seconds since it was started.
        memory_mb: Memory that it holds.
        ended: Whether it was ended.
    """

    run: str
    pid: int
    command: str
    age_s: int
    memory_mb: int
    ended: bool = False


@dataclass(frozen=True)
class Diagnosis:
    """What a machine offers to runs, and what they left on it.

    Attributes:
        machine: Processor, cores and memory.
        devices: The accelerators; empty where they were not looked for.
        scheduler: The batch system of this process.
        packages: Name → version.
        project: The project's folder.
        folders: The state of outputs, cache and data.
        leftovers: Processes of dead runs.
        only_reports: Processes were to be ended, which is left to the scheduler.
    """

    machine: dict[str, Any]
    devices: list[dict[str, Any]]
    scheduler: dict[str, str | int] | None
    packages: dict[str, str]
    project: str | None
    folders: dict[str, FolderState]
    leftovers: list[Leftover]
    only_reports: bool

    @property
    def ok(self) -> bool:
        """Whether nothing keeps runs from working."""
        return all(folder.ok for folder in self.folders.values()) and all(each.ended for each in self.leftovers)

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as plain values."""
        return asdict(self)

    def lines(self) -> list[str]:
        """Return all of it as a terminal shows it."""
        machine, scheduler = self.machine, self.scheduler
        lines = [
            f"{machine['processor']}, {machine['cores']} cores, "
            f"{machine['memory_free_gb']} of {machine['memory_gb']} GB free"
        ]
        for device in self.devices:
            memory = f", {device['free_gb']} of {device['memory_gb']} GB free" if "memory_gb" in device else ""
            lines.append(f"{device['name']}{memory}")
        if not self.devices:
            lines.append("no GPU")
        if machine["bfloat16"] and not self.devices:
            lines.append("computes in bfloat16, which trains faster: --trainer.precision auto")
        if scheduler:
            lines.append(f"under {scheduler['name']}, job {scheduler['job']}")
        lines.append(", ".join(f"{name} {version}" for name, version in self.packages.items()))
        for name, folder in self.folders.items():
            state = "writable" if folder.writable else "read-only" if folder.ok else "cannot be written"
            there = "" if folder.exists else ", will be made"
            path = shown(Path(folder.path))
            lines.append(f"{'✓' if folder.ok else '✗'} {name}: {path} ({state}{there}, {folder.free_gb} GB free)")
            if folder.locks:
                lines.append(f"  {folder.locks}")
        for process in self.leftovers:
            verb = "ended" if process.ended else "left behind"
            lines.append(
                f"{'✓' if process.ended else '✗'} process {process.pid} of {process.run} {verb} "
                f"({process.age_s} s, {process.memory_mb} MB): {process.command}"
            )
        if not self.leftovers:
            lines.append("✓ no processes of dead runs")
        elif scheduler and self.only_reports:
            lines.append(f"under {scheduler['name']} processes are not ended; let the scheduler do it")
        elif not all(process.ended for process in self.leftovers):
            lines.append("`visionforge doctor --kill` ends them")
        return lines


def examine(outputs: str | Path | None = None, root: str | Path | None = None, *, kill: bool = False) -> Diagnosis:
    """Look at this machine, without its accelerators; see `engine.diagnosis.diagnose`.

    Raises:
        SettingsError: If a folder is named by an anchor that does not exist.
    """
    try:
        runs = resolve(str(outputs)) if outputs else outputs_folder()
        data = resolve(str(root)) if root else data_folder()
    except ValueError as error:
        raise SettingsError(f"doctor: {error}") from error
    scheduler = detect_scheduler()
    memory = psutil.virtual_memory()
    return Diagnosis(
        machine={**processor(), "memory_free_gb": round(memory.available / 1e9, 1)},
        devices=[],
        scheduler=None if scheduler is None else scheduler.as_dict(),
        packages=package_versions(),
        project=None if (project := project_folder()) is None else str(project),
        folders={
            "outputs": folder_state(runs, must_write=True),
            "cache": folder_state(cache_folder(), must_write=True),
            "data": folder_state(data, must_write=False),
        },
        leftovers=left_behind(runs, kill=kill and scheduler is None),
        only_reports=scheduler is not None and kill,
    )


def folder_state(folder: Path, must_write: bool) -> FolderState:
    """Return whether a folder can be used; one that is only read has to be there."""
    existing = nearest_existing(folder)
    written = _can_write(existing)
    return FolderState(
        path=str(folder),
        exists=folder.is_dir(),
        writable=written,
        ok=written or (not must_write and folder.is_dir() and os.access(folder, os.R_OK | os.X_OK)),
        free_gb=round(shutil.disk_usage(existing).free / 1e9, 1),
        locks=shared_only_here(folder / "x"),
    )


def _can_write(folder: Path) -> bool:
    """Return whether a file can really be made; permissions alone do not tell of quotas and read-only mounts."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def left_behind(outputs: Path, kill: bool = False) -> list[Leftover]:
    """Return the processes of the dead runs of a folder, as they were before they were ended, if they are to be."""
    rows: list[Leftover] = []
    for run in stored_runs(outputs)[0]:
        if run.state == "running":
            continue
        found = leftovers(run.workspace.path)
        described = [_describe(process, run.name) for process in found]
        alive = {process.pid for process in end_processes(found)} if kill else {process.pid for process in found}
        rows += [Leftover(**each, ended=each["pid"] not in alive) for each in described]
    return rows


def _describe(process: psutil.Process, run: str) -> dict[str, Any]:
    try:
        with process.oneshot():
            return {
                "run": run,
                "pid": process.pid,
                "command": " ".join(redact_arguments(process.cmdline()))[:120],
                "age_s": round(time.time() - process.create_time()),
                "memory_mb": round(process.memory_info().rss / 1e6),
            }
    except psutil.Error:
        return {"run": run, "pid": process.pid, "command": "", "age_s": 0, "memory_mb": 0}
