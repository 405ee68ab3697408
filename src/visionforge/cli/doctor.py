"""`visionforge doctor`: this machine, its folders, and processes that dead runs left behind."""

import argparse
import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

from visionforge.cli.arguments import CommandParser, print_json, say
from visionforge.errors import SettingsError
from visionforge.redaction import redact_arguments
from visionforge.runs.anchors import (
    cache_folder,
    data_folder,
    nearest_existing,
    outputs_folder,
    project_folder,
    resolve,
    shown,
)
from visionforge.runs.facts import package_versions, processor
from visionforge.runs.locks import shared_only_here
from visionforge.runs.processes import end_processes, leftovers
from visionforge.runs.scheduler import detect_scheduler
from visionforge.runs.store import stored_runs

EXIT_PROBLEMS = 1


def run_doctor(arguments: list[str]) -> int:
    """Run `visionforge doctor`; return 1 if something keeps runs from working, and 0 otherwise.

    Raises:
        SettingsError: If an argument is unknown.
    """
    parser = CommandParser(
        prog="visionforge doctor",
        description="This machine, its folders, and processes that dead runs left behind. Exit status 1 if a folder "
        "cannot be written, or processes are left.",
    )
    parser.add_argument("--outputs", help="folder of the runs; default $VISIONFORGE_OUTPUTS or the project's")
    parser.add_argument("--root", help="folder of the archives; default $VISIONFORGE_DATA or the cache")
    parser.add_argument("--kill", action="store_true", help="end the processes that dead runs left behind")
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")
    options = parser.parse_args(arguments)
    report = _examine(options)
    if options.json:
        print_json(report)
    else:
        _print(report)
    left = [process for process in report["leftovers"] if not process["ended"]]
    return EXIT_PROBLEMS if left or any(not folder["ok"] for folder in report["folders"].values()) else 0


def _examine(options: argparse.Namespace) -> dict[str, Any]:
    try:
        outputs = resolve(options.outputs) if options.outputs else outputs_folder()
        data = resolve(options.root) if options.root else data_folder()
    except ValueError as error:
        raise SettingsError(f"doctor: {error}") from error
    scheduler = detect_scheduler()
    memory = psutil.virtual_memory()
    return {
        "machine": {**processor(), "memory_free_gb": round(memory.available / 1e9, 1)},
        "devices": _devices(),
        "scheduler": None if scheduler is None else scheduler.as_dict(),
        "packages": package_versions(),
        "project": None if (project := project_folder()) is None else str(project),
        "folders": {
            "outputs": _folder(outputs, must_write=True),
            "cache": _folder(cache_folder(), must_write=True),
            "data": _folder(data, must_write=False),
        },
        "leftovers": _leftovers(outputs, options.kill and scheduler is None),
        "only_reports": scheduler is not None and options.kill,
    }


def _devices() -> list[dict[str, Any]]:
    import torch  # seconds; the only heavy import

    found: list[dict[str, Any]] = []
    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        properties = torch.cuda.get_device_properties(index)
        free, total = torch.cuda.mem_get_info(index)
        found.append({"name": properties.name, "memory_gb": round(total / 1e9, 1), "free_gb": round(free / 1e9, 1)})
    if torch.backends.mps.is_available():
        found.append({"name": "Apple GPU (mps)"})
    return found


def _folder(folder: Path, must_write: bool) -> dict[str, Any]:
    existing = nearest_existing(folder)
    written = _can_write(existing)
    return {
        "path": str(folder),
        "exists": folder.is_dir(),
        "writable": written,
        "ok": written or (not must_write and folder.is_dir() and os.access(folder, os.R_OK | os.X_OK)),
        "free_gb": round(shutil.disk_usage(existing).free / 1e9, 1),
        "locks": shared_only_here(folder / "x"),
    }


def _can_write(folder: Path) -> bool:
    """Return whether a file can really be made; permissions alone do not tell of quotas and read-only mounts."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def _leftovers(outputs: Path, kill: bool) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for run in stored_runs(outputs)[0]:
        if run.state == "running":
            continue
        found = leftovers(run.workspace.path)
        described = [_describe(process, run.name) for process in found]
        alive = {process.pid for process in end_processes(found)} if kill else {process.pid for process in found}
        rows += [{**row, "ended": row["pid"] not in alive} for row in described]
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


def _print(report: dict[str, Any]) -> None:
    machine = report["machine"]
    say(
        f"{machine['processor']}, {machine['cores']} cores, "
        f"{machine['memory_free_gb']} of {machine['memory_gb']} GB free"
    )
    for device in report["devices"]:
        memory = f", {device['free_gb']} of {device['memory_gb']} GB free" if "memory_gb" in device else ""
        say(f"{device['name']}{memory}")
    if not report["devices"]:
        say("no GPU")
    if report["scheduler"]:
        say(f"under {report['scheduler']['name']}, job {report['scheduler']['job']}")
    say(", ".join(f"{name} {version}" for name, version in report["packages"].items()))
    for name, folder in report["folders"].items():
        state = "writable" if folder["writable"] else "read-only" if folder["ok"] else "cannot be written"
        there = "" if folder["exists"] else ", will be made"
        path = shown(Path(folder["path"]))
        say(f"{'✓' if folder['ok'] else '✗'} {name}: {path} ({state}{there}, {folder['free_gb']} GB free)")
        if folder["locks"]:
            say(f"  {folder['locks']}")
    for process in report["leftovers"]:
        verb = "ended" if process["ended"] else "left behind"
        say(
            f"{'✓' if process['ended'] else '✗'} process {process['pid']} of {process['run']} {verb} "
            f"({process['age_s']} s, {process['memory_mb']} MB): {process['command']}"
        )
    if not report["leftovers"]:
        say("✓ no processes of dead runs")
    elif report["only_reports"]:
        say(f"under {report['scheduler']['name']} processes are not ended; let the scheduler do it")
    elif not all(process["ended"] for process in report["leftovers"]):
        say("`visionforge doctor --kill` ends them")
