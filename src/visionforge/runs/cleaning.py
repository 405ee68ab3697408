"""Runs that are not complete, not among the best, or old, and what killed processes leave beside them."""

import datetime
import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from visionforge.errors import SettingsError
from visionforge.runs.locks import Lock, LockedError, is_held
from visionforge.runs.paths import shown
from visionforge.runs.processes import leftovers
from visionforge.runs.query import READINGS, StoredRun, stored_runs
from visionforge.runs.session import repoint_latest
from visionforge.runs.workspace import remove_run

BEST_BY = ("auc", "dice", "map")  # the metric by which runs are kept: the first that one has
_OWN = re.compile(r"\.\d{8}_.+_[0-9a-f]{6}\.(?:new-\w+|lock)")  # names of what a killed process leaves beside the runs


@dataclass(frozen=True)
class Cleaning:
    """What was cleaned.

    Attributes:
        found: Runs that were asked for, and are not in use.
        removed: Names of those that were removed.
        sizes: Bytes of each run that was found.
    """

    found: list[StoredRun]
    removed: list[str]
    sizes: list[int]

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain values, with a row for each run that was found."""
        return {"found": [run.as_row() for run in self.found], "bytes": self.sizes, "removed": self.removed}


def _ignore(line: str) -> None:
    """Tell nobody."""


def clean(
    outputs: Path,
    *,
    incomplete: bool = False,
    keep_best: int | None = None,
    by: str | None = None,
    higher_is_better: bool = True,
    older_than: datetime.timedelta | None = None,
    remove: bool = False,
    told: Callable[[str], None] = _ignore,
) -> Cleaning:
    """Find runs that are not in use and not complete, not among the best, or old; remove them if that is wanted.

    With them goes what killed processes have left beside them.

    Args:
        outputs: The folder of the runs.
        incomplete: Runs that were interrupted or have failed.
        keep_best: Of complete trainings, those that are not among so many best ones of their data set. Trainings that a
            search, folds, or another run has made are kept, and those without the metric.
        by: Metric of `metrics.json` that says which are best; None is the AUC, the Dice coefficient or the mean
            average precision, whichever a run has.
        higher_is_better: Which way `by` is better.
        older_than: Of these, and without the others of all, only runs that ended so long ago.
        remove: Remove them; else they are only found.
        told: Is given a line for each run that cannot be read, is kept, or leaves files behind.

    Raises:
        SettingsError: If nothing says which runs, or a value is out of its range.
    """
    if not incomplete and keep_best is None and older_than is None:
        raise SettingsError("runs clean: give `incomplete`, `keep_best` or `older_than`: which runs are to go")
    if keep_best is not None and keep_best < 0:
        raise SettingsError(f"keep_best: {keep_best} is not allowed; allowed: an integer, at least 0")
    if by is not None and keep_best is None:
        raise SettingsError("by: is for `keep_best`; leave it out")
    runs, problems = stored_runs(outputs)
    for problem in problems:
        told(problem)
    found = [run for run in runs if run.state != "running"]
    if incomplete or keep_best is not None:
        wanted = {run.name for run in found if incomplete and run.state in ("interrupted", "failed")}
        if keep_best is not None:
            wanted |= _beyond_best(found, keep_best, by, 1.0 if higher_is_better else -1.0, told)
        found = [run for run in found if run.name in wanted]
    if older_than is not None:
        before = datetime.datetime.now(tz=datetime.UTC) - older_than
        found = [run for run in found if _ended(run) < before]
    sizes = [run.size for run in found]
    if not remove:
        return Cleaning(found, [], sizes)
    remains = [path for path in outputs.glob(".*.new-*") if _OWN.match(path.name) and path.is_dir()]
    locks = [path for path in outputs.glob(".*.lock") if _OWN.match(path.name) and not is_held(path) and path.exists()]
    removed = [run.name for run in found if _remove(run, told)]
    for path in remains:
        remove_run(path)
    for path in locks:
        path.unlink(missing_ok=True)
    repoint_latest(outputs)
    return Cleaning(found, removed, sizes)


def _beyond_best(
    runs: Sequence[StoredRun], keep: int, by: str | None, sign: float, told: Callable[[str], None]
) -> set[str]:
    """Return the names of complete trainings that are not among the best of their data set."""
    scored: dict[tuple[str, str], list[tuple[float, str]]] = defaultdict(list)
    for run in runs:
        if run.state != "complete" or run.manifest.stage != "fit" or run.manifest.parent is not None:
            continue
        found, values = run.metrics, dict[str, Any]()
        for reading in READINGS:  # what is said of several views comes last, and wins
            values |= {name: value for name, value in found.get(reading, {}).items() if value is not None}
        metric = by or next((name for name in BEST_BY if values.get(name) is not None), BEST_BY[0])
        value = values.get(metric)
        if value is None:
            told(f"{run.name}: has no {metric}, so it is kept")
            continue
        scored[run.manifest.dataset, metric].append((sign * value, run.name))
    return {name for each in scored.values() for _, name in sorted(each, reverse=True)[keep:]}


def _ended(run: StoredRun) -> datetime.datetime:
    last = run.manifest.sessions[-1] if run.manifest.sessions else None
    text = run.manifest.ended or (last.ended or last.started if last else None) or run.manifest.started
    found = datetime.datetime.fromisoformat(text)
    return found if found.tzinfo is not None else found.replace(tzinfo=datetime.UTC)


def parse_age(text: str) -> datetime.timedelta:
    """Return a span of time such as ``30d``, ``12h`` or ``2w``.

    Raises:
        SettingsError: If it is none.
    """
    match = re.fullmatch(r"(\d{1,5})([hdw])", text.strip().lower())
    if match is None:
        raise SettingsError(f"older_than: {text} is not allowed; allowed: hours, days or weeks such as 12h, 30d or 2w")
    unit = {"h": "hours", "d": "days", "w": "weeks"}[match[2]]
    return datetime.timedelta(**{unit: int(match[1])})


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
