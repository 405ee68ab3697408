"""What is asked of an outputs folder: its runs in an order, in what two of them differ, and what can be removed."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from visionforge.errors import RunError, SettingsError
from visionforge.runs.active import repoint_latest
from visionforge.runs.anchors import outputs_folder, resolve, shown
from visionforge.runs.locks import Lock, LockedError, is_held
from visionforge.runs.manifest import State
from visionforge.runs.processes import leftovers
from visionforge.runs.store import READINGS, StoredRun, differences, provenance, stored_runs
from visionforge.runs.workspace import remove_run

COLUMNS = (  # by which runs can be sorted
    *("run", "state", "started", "seconds", "epochs", "accuracy", "auc"),
    *("dataset", "model", "hash", "seed", "stage"),
)
_OWN = re.compile(r"\.\d{8}_.+_[0-9a-f]{6}\.(?:new-\w+|lock)")  # names of what a killed process leaves beside the runs


def named_outputs(text: str | None) -> Path:
    """Return the outputs folder that a text names; None is the usual one, which need not exist.

    Raises:
        SettingsError: If the text begins with an anchor that does not exist.
        RunError: If there is no such folder.
    """
    try:
        folder = resolve(text) if text else outputs_folder()
    except ValueError as error:
        raise SettingsError(f"--outputs: {error}") from error
    if text and not folder.is_dir():
        raise RunError(f"--outputs: {folder} is no folder")
    return folder


def run_rows(
    outputs: Path, state: State | None = None, sort: str = "started", reverse: bool = False
) -> tuple[list[dict[str, Any]], list[str]]:
    """Return what a list of runs shows of each, and a line for each run that cannot be read.

    Args:
        outputs: The folder of the runs.
        state: Only runs in this state.
        sort: One of `COLUMNS`; runs that have no value there come last.
        reverse: Largest first.
    """
    runs, problems = stored_runs(outputs)
    rows = [run.as_row() for run in runs if state in (None, run.state)]
    known = [row for row in rows if row[sort] is not None]
    unknown = [row for row in rows if row[sort] is None]  # last, whichever way the others are sorted
    return sorted(known, key=lambda row: row[sort], reverse=reverse) + unknown, problems


def run_differences(one: StoredRun, two: StoredRun) -> dict[str, dict[str, tuple[Any, Any]]]:
    """Return the dotted paths at which settings, provenance and metrics of two runs differ, with both values."""
    return {
        "settings": differences(one.config, two.config),
        "provenance": differences(provenance(one), provenance(two)),
        "metrics": differences(_metrics(one), _metrics(two)),
    }


def _metrics(run: StoredRun) -> dict[str, Any]:
    metrics = run.metrics
    return {kind: metrics[kind] for kind in READINGS if metrics.get(kind)}


@dataclass(frozen=True)
class Cleaning:
    """What was cleaned.

    Attributes:
        found: Runs that are not complete and not in use.
        removed: Names of those that were removed.
    """

    found: list[StoredRun]
    removed: list[str]


def _ignore(line: str) -> None:
    """Tell nobody."""


def clean(outputs: Path, *, remove: bool = False, told: Callable[[str], None] = _ignore) -> Cleaning:
    """Find runs that are not complete and not in use, and remove them, and what killed processes have left beside them.

    Args:
        outputs: The folder of the runs.
        remove: Remove them; else they are only found.
        told: Is given a line for each run that cannot be read, is kept, or leaves files behind.
    """
    runs, problems = stored_runs(outputs)
    for problem in problems:
        told(problem)
    found = [run for run in runs if run.state in ("interrupted", "failed")]
    if not remove:
        return Cleaning(found, [])
    remains = [path for path in outputs.glob(".*.new-*") if _OWN.match(path.name) and path.is_dir()]
    locks = [path for path in outputs.glob(".*.lock") if _OWN.match(path.name) and not is_held(path) and path.exists()]
    removed = [run.name for run in found if _remove(run, told)]
    for path in remains:
        remove_run(path)
    for path in locks:
        path.unlink(missing_ok=True)
    repoint_latest(outputs)
    return Cleaning(found, removed)


def _remove(run: StoredRun, told: Callable[[str], None]) -> bool:
    """Remove a run, unless somebody has just taken it up or processes of it still live."""
    lock = Lock(run.workspace.lock, str(run.workspace.path))
    try:
        lock.acquire()
    except (LockedError, OSError) as error:
        told(str(error))
        return False
    try:
        if left := leftovers(run.workspace.path):
            pids = ", ".join(str(process.pid) for process in left)
            told(f"{run.name}: processes {pids} of it live; `visionforge doctor` tells more")
            return False
        if others := remove_run(run.workspace.path):
            names = ", ".join(str(shown(path)) for path in others[:5]) + (" …" if len(others) > 5 else "")
            told(f"{run.name}: {len(others)} files that no run consists of were left: {names}")
    finally:
        lock.release()
    return True
