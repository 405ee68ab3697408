"""The runs of a folder in short: settings, main metric, curves; what is kept of each is bounded, whoever made it."""

import hashlib
import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from visionforge.config.schema.tasks import UnknownTaskError, task_named
from visionforge.errors import RunError
from visionforge.evaluation.comparison import SEED, partial_of
from visionforge.evaluation.metric_names import labels_of_metrics
from visionforge.printable import printable
from visionforge.redaction import redact_settings
from visionforge.runs.config_hash import canonical
from visionforge.runs.curves import Curves, read_curves
from visionforge.runs.query import READINGS, StoredRun, flat, stored_runs

MOST_SETTINGS = 1_000  # of a run, which has some two hundred
MOST_VALUES = 400_000  # of the curves of all runs together, about 3 MB as JSON
MOST_POINTS, FEWEST_POINTS = 200, 20  # of a curve
_VALUES_OF_POINT = 8  # epoch, minutes, losses, metrics and learning rate
_LONGEST = 120  # characters of a value
_LARGEST = 1e9  # a metric that is larger is none
_COLUMNS = (SEED, "data.dataset", "model.backbone.name")  # settings that are told of every run in any case


@dataclass(frozen=True)
class Measured:
    """A metric of a test.

    Attributes:
        name: Its key in `metrics.json`.
        value: The value.
        ends: Its interval, where there is one.
    """

    name: str
    value: float
    ends: tuple[float, float] | None = None

    @property
    def label(self) -> str:
        """Return what people call it."""
        return labels_of_metrics().get(self.name, self.name)


@dataclass(frozen=True)
class RunSummary:
    """A run in short.

    Attributes:
        row: What a list of runs shows of it, with its `bytes`.
        parent: The run, study or benchmark that it comes from; empty if it stands alone.
        main: The first metric of its task.
        accuracy: Its accuracy.
        partial: Whether it was tested on a part of the split only.
        settings: Dotted path → value, as text or a number.
        counted: Those that change a result.
        configuration: Digest of these without the seed; None where they are not known.
        curves: What was logged along the training.
        report: The page with its results, if it is there.
    """

    row: Mapping[str, Any]
    parent: str
    main: Measured | None
    accuracy: Measured | None
    partial: bool
    settings: Mapping[str, Any]
    counted: frozenset[str]
    configuration: str | None
    curves: Curves
    report: Path | None

    @property
    def name(self) -> str:
        """Return the name of its folder."""
        return str(self.row["run"])


def run_summaries(outputs: Path) -> tuple[list[RunSummary], list[str]]:
    """Return the runs of a folder, oldest first, and a line for all that cannot be read.

    They are those of `runs list`.
    """
    runs, problems = stored_runs(outputs)
    points = MOST_VALUES // (_VALUES_OF_POINT * max(1, len(runs)))
    points = max(FEWEST_POINTS, min(MOST_POINTS, points))
    return [_summary(run, points, problems) for run in runs], problems


def _summary(run: StoredRun, points: int, problems: list[str]) -> RunSummary:
    content, workspace = run.metrics, run.workspace
    config = run.config
    curves, report = Curves(), None
    try:
        curves = read_curves(workspace.within(workspace.epochs.name), points)
    except RunError as error:
        problems += error.problems
    for path, known in ((workspace.config, config), (workspace.metrics, content)):
        if not known and path.exists():
            problems.append(f"{path}: cannot be read, so what it holds is left out")
    try:
        found = workspace.within(workspace.report.name)
        report = found if found.is_file() else None
    except RunError as error:
        problems += error.problems
    parent = run.manifest.parent or {}
    return RunSummary(
        {**run.as_row(), "bytes": run.size},
        next((str(parent[key]) for key in ("study", "benchmark", "run") if parent.get(key)), ""),
        main_metric(content),
        _measured(content, "accuracy"),
        partial_of(content) is not None,
        *_settings(config, run),
        curves,
        report,
    )


def main_metric(content: Mapping[str, Any]) -> Measured | None:
    """Return the first of its task's metrics that a `metrics.json` has."""
    try:
        names = task_named(str(content.get("task"))).headlines
    except UnknownTaskError:  # of a package that is not imported
        names = ("auc", "accuracy")
    return next(filter(None, (_measured(content, name) for name in names)), None)


def _measured(content: Mapping[str, Any], name: str) -> Measured | None:
    """Return a metric as results are told: with test-time views where there are any."""
    reading = next((reading for reading in reversed(READINGS) if content.get(reading)), None)
    value = _finite(content[reading].get(name)) if reading else None
    if value is None or abs(value) > _LARGEST:
        return None
    intervals = content.get("intervals")
    of_reading = intervals.get(reading) if isinstance(intervals, Mapping) else None
    pair = of_reading.get(name) if isinstance(of_reading, Mapping) else None
    ends = [_finite(end) for end in pair] if isinstance(pair, list) and len(pair) == 2 else []
    known = [end for end in ends if end is not None and abs(end) <= _LARGEST]
    return Measured(name, value, (known[0], known[1]) if len(known) == 2 else None)


def _finite(value: object) -> float | None:
    """Return a number as a float, if it is one that a float can be."""
    return float(value) if isinstance(value, int | float) and type(value) is not bool and math.isfinite(value) else None


def _settings(config: Mapping[str, Any], run: StoredRun) -> tuple[dict[str, Any], frozenset[str], str | None]:
    """Return the settings, those of them that count, and a digest of these without the seed."""
    if not config:
        return {}, frozenset(), None
    without_seed = canonical({key: value for key, value in config.items() if key != SEED})
    told = f"{run.manifest.stage}\0{run.manifest.dataset}\0{without_seed}"
    given = islice(flat(redact_settings(config)), MOST_SETTINGS)
    counted = islice(flat(json.loads(without_seed)), MOST_SETTINGS)
    return (
        {printable(path, _LONGEST): _plain(value) for path, value in given},
        frozenset(printable(path, _LONGEST) for path, _ in counted),
        hashlib.blake2b(told.encode(), digest_size=16).hexdigest(),
    )


def _plain(value: Any) -> Any:
    """Return a value as a number, a text, or None."""
    number = _finite(value)
    return number if number is not None or value is None else printable(value, _LONGEST)


def different_settings(runs: Sequence[RunSummary]) -> list[str]:
    """Return the dotted paths of the settings in which runs differ, first those that tell the most of them apart."""
    known = [run for run in runs if run.configuration is not None]
    paths = frozenset().union(*(run.counted for run in known)) - set(_COLUMNS)
    values: dict[str, Counter[Any]] = {path: Counter() for path in sorted(paths)}
    for run in known:
        for path, value in run.settings.items():
            if path in values:
                values[path][value] += 1
    for found in values.values():
        found[None] += len(known) - found.total()  # where it is missing
    apart = {path: len(known) - max(found.values()) for path, found in values.items()}
    return sorted((path for path in apart if apart[path]), key=lambda path: -apart[path])
