"""Runs that are not complete, and what killed processes leave beside them: found, and removed on request."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from visionforge.runs.locks import Lock, LockedError, is_held
from visionforge.runs.paths import shown
from visionforge.runs.processes import leftovers
from visionforge.runs.query import StoredRun, stored_runs
from visionforge.runs.session import repoint_latest
from visionforge.runs.workspace import remove_run

_OWN = re.compile(r"\.\d{8}_.+_[0-9a-f]{6}\.(?:new-\w+|lock)")  # names of what a killed process leaves beside the runs


@dataclass(frozen=True)
class Cleaning:
    """What was cleaned.

    Attributes:
        found: Runs that are not complete and not in use.
        removed: Names of those that were removed.
    """

    found: list[StoredRun]
    removed: list[str]

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain values, with a row for each run that was found."""
        return {"found": [run.as_row() for run in self.found], "removed": self.removed}


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
