"""Runs beside each other, mean and spread over seeds, and paired differences of models on the same cases."""

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from visionforge.config.schema import TaskName
from visionforge.config.schema.tasks import UnknownTaskError, task_named
from visionforge.errors import VisionForgeError
from visionforge.evaluation.margins import check_judged, check_margins, verdict_row
from visionforge.evaluation.metric_names import READINGS
from visionforge.printable import printable
from visionforge.runs.config_hash import canonical
from visionforge.runs.query import StoredRun, differences, flat

SEED = "seed_everything"
_OF_DATA = ("dataset", "resolution", "md5")
MOST_RESAMPLES = 100_000
NAMES = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"  # of the models


@dataclass(frozen=True)
class Group:
    """Runs whose settings are the same but for the seed.

    Attributes:
        name: What tells it from the others.
        runs: The runs.
    """

    name: str
    runs: list[StoredRun]

    @cached_property
    def seeds(self) -> list[str]:
        """Return the seed of each run, as text."""
        told = [run.manifest.seeds.get(SEED) for run in self.runs]  # a configuration takes longer to read
        return [str(run.config.get(SEED) if seed is None else seed) for run, seed in zip(self.runs, told, strict=True)]


def groups_of(runs: Sequence[StoredRun]) -> list[Group]:
    """Return the runs in groups of equal settings, in the order of their first run."""
    found: dict[str, list[StoredRun]] = {}
    for run in runs:
        config = {key: value for key, value in run.config.items() if key != SEED}
        found.setdefault(canonical(config), []).append(run)  # six digits are too few to tell a thousand
    return [
        Group(NAMES[place] if place < len(NAMES) else str(place + 1), members)
        for place, members in enumerate(found.values())
    ]


def metrics_of(content: Mapping[str, Any]) -> dict[str, float]:
    """Return what a `metrics.json` holds under dotted names such as ``with_tta.auc``."""
    parts = {kind: content[kind] for kind in READINGS if content.get(kind)}
    return {name: value for name, value in flat(parts) if isinstance(value, int | float)}


def comparison(
    runs: Sequence[StoredRun], resamples: int, confidence: float, margins: Mapping[str, float] | None = None
) -> dict[str, Any]:
    """Return what differs between runs and what their metrics are, in a form for JSON.

    Args:
        runs: The runs, two or more for anything to compare.
        resamples: Bootstrap resamples of the differences; 0 leaves the differences out.
        confidence: Share of the resamples that their intervals hold.
        margins: Name of a metric → by how much a model may be worse than the first.

    Raises:
        SettingsError: If a margin is not allowed, or there is no difference to judge by it.
    """
    margins = margins or {}
    check_margins(margins)
    configs = [json.loads(canonical(run.config)) for run in runs]
    changed = sorted({path for config in configs[1:] for path in differences(configs[0], config)})
    flats = [dict(flat(config)) for config in configs]
    contents = {run.workspace.path: run.metrics for run in runs}  # each file is read once
    values = [metrics_of(contents[run.workspace.path]) for run in runs]
    by_run = {run.workspace.path: each for run, each in zip(runs, values, strict=True)}
    names = list(dict.fromkeys(name for each in values for name in each))
    groups = groups_of(runs)
    partial = [partial_of(contents[run.workspace.path]) for run in runs]
    positive = [positive_of(contents[run.workspace.path]) for run in runs]
    found, note = _differences(groups, contents, resamples, confidence, margins)
    check_judged(margins, [group.name for group in groups[1:]], found["differences"], note)
    return {
        "runs": [run.name for run in runs],
        "states": [run.state for run in runs],
        "positive": positive if any(positive) else None,
        "partial": partial if any(partial) else None,
        "settings": {path: [config.get(path) for config in flats] for path in changed},
        "metrics": {name: [each.get(name) for each in values] for name in names},
        "groups": [
            {
                "name": group.name,
                "runs": [run.name for run in group.runs],
                "seeds": len(set(group.seeds)),
                "metrics": {
                    name: spread([by_run[run.workspace.path].get(name) for run in group.runs], group.seeds)
                    for name in names
                },
            }
            for group in groups
        ],
        "confidence": confidence,
        **found,
        "note": note,
    }


def partial_of(content: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return how much of its split a run was evaluated on; None is all of it."""
    partial = content.get("partial")
    return partial if isinstance(partial, Mapping) else None


def positive_of(content: Mapping[str, Any]) -> str | None:
    """Return which of two classes a run is to find; earlier versions took class 1, and did not say so."""
    if isinstance(content.get("positive"), str):
        return str(content["positive"])
    task = content.get("task")
    try:
        if not task_named(str(task)).has_positive:
            return None
    except UnknownTaskError:  # of a package that is not imported
        return None
    classes = _classes_of(content)
    return classes[1] if len(classes) > 1 else None


def _classes_of(content: Mapping[str, Any]) -> list[str]:
    """Return the names of the classes, in order."""
    per_class = content.get("per_class")
    found = per_class.get("without_tta") if isinstance(per_class, Mapping) else None
    return list(found) if isinstance(found, Mapping) else []


def _positive_index(contents: Sequence[Mapping[str, Any]]) -> int:
    """Return the class that the differences are about: what a run says, and class 1 where none says it."""
    for content in contents:
        classes = _classes_of(content)
        if content.get("positive") in classes:
            return classes.index(content["positive"])
    return 1


def _is_grouped(content: Mapping[str, Any]) -> bool:
    """Return whether a run was evaluated by whole groups of images."""
    intervals = content.get("intervals")
    return isinstance(intervals, Mapping) and intervals.get("groups") is not None


def spread(values: Sequence[float | None], seeds: Sequence[str] | None = None) -> dict[str, float | int | None] | None:
    """Return mean, sample standard deviation (None for one value) and number; None where a value is missing.

    Args:
        values: The values.
        seeds: Of each; those of one seed are one value, their mean. None is a seed of its own for each.

    >>> spread([0.5, 1.0]), spread([0.5, None]), spread([1e308, 1e308])
    ({'mean': 0.75, 'sd': 0.3535533905932738, 'n': 2}, None, None)
    >>> spread([0.5, 0.5], ["7", "7"])
    {'mean': 0.5, 'sd': None, 'n': 1}
    """
    known = [value for value in values if value is not None]
    if not known or len(known) < len(values):
        return None
    try:
        if seeds is not None:
            of_seed: dict[str, list[float]] = {}
            for seed, value in zip(seeds, known, strict=True):
                of_seed.setdefault(seed, []).append(value)
            known = [statistics.fmean(each) for each in of_seed.values()]
        deviation = statistics.stdev(known) if len(known) > 1 else None
        return {"mean": statistics.fmean(known), "sd": deviation, "n": len(known)}
    except OverflowError:  # of a stranger's numbers
        return None


def _differences(
    groups: list[Group],
    metrics: Mapping[Path, Mapping[str, Any]],
    resamples: int,
    confidence: float,
    margins: Mapping[str, float],
) -> tuple[dict[str, Any], str | None]:
    """Return paired differences of every further model from the first, tests and verdicts, or why there are none."""
    nothing: dict[str, Any] = {"differences": [], "tests": [], "left_out": [], "verdicts": [], "adjusted": None}
    if len(groups) == 1 and len(groups[0].runs) == 2:  # the seed alone differs: each run is a model of its own
        groups = [Group(NAMES[place], [run]) for place, run in enumerate(groups[0].runs)]
    if len(groups) < 2 or not resamples:
        return nothing, None
    from visionforge.evaluation.bootstrap import paired_differences
    from visionforge.evaluation.paired_tests import adjust, left_out, paired_tests
    from visionforge.evaluation.predictions import read_groups
    from visionforge.scoring.clusters import Clusters

    @cache
    def scorer(
        predictions: Path, task: TaskName, tta: bool, positive: int, classes: tuple[str, ...], grouped: bool
    ) -> Any:
        found = task_named(task).table_scorer(predictions, tta, positive, classes)
        if grouped and found is not None and (names := read_groups(predictions)) is not None:
            if len(names) == len(found.labels):
                found.clusters = Clusters(names)
            else:  # a row of the table is a box
                without["of boxes, each image stands for itself, although the data has groups"] = None
        return found

    found, tests, verdicts = list[dict[str, Any]](), list[dict[str, Any]](), list[dict[str, Any]]()
    without = dict[str, None]()
    none = "the runs have no predictions yet"
    for other in groups[1:]:
        for reading in READINGS:
            members = [*groups[0].runs, *other.runs]
            contents = [metrics[run.workspace.path] for run in members]
            if not all(
                content.get(reading) and run.workspace.predictions.is_file()
                for run, content in zip(members, contents, strict=True)
            ):
                continue
            tasks = {tuple(str(content.get(key)) for key in ("task", "dataset", "split")) for content in contents}
            if len(tasks) > 1:
                return nothing, "not comparable: the runs were tested on different data"
            ((task, _, _),) = tasks
            try:
                kind = task_named(task)
            except UnknownTaskError as error:
                return nothing, f"not comparable: {error}"
            positive = _positive_index(contents)
            classes = tuple(_classes_of(contents[0]))
            about = classes[positive] if kind.has_positive and positive < len(classes) else None
            try:
                asked = (task, reading == "with_tta", positive, classes, all(map(_is_grouped, contents)))
                one, two = (
                    [scorer(run.workspace.predictions, *asked) for run in group.runs] for group in (other, groups[0])
                )
                if None in (*one, *two):  # the tables have one reading only
                    none = "the predictions of some runs are with test-time views, those of others without"
                    continue
                gaps = paired_differences(one, two, resamples, confidence, margins=margins)
                tested = paired_tests(one, two, classes, confidence)
                without |= dict.fromkeys(left_out(one, two))
            except (ValueError, VisionForgeError) as error:
                return nothing, f"not comparable: {error}{_changed(members)}"
            pair = {"of": other.name, "from": groups[0].name}
            for name, gap in gaps.items():
                row = {**pair, "metric": f"{reading}.{name}", "value": gap.value}
                told = {"interval": gap.interval, "p": gap.p, "positive": about}
                found.append({**row, **told, "method": gap.method, "detectable": gap.detectable})
                if name in margins:
                    verdicts.append(verdict_row(row | told, gap.p_worse, margins[name], confidence))
            tests += [{**pair, **row, "metric": f"{reading}.{row['metric']}"} for row in tested]
    if not found:
        return nothing, f"no differences: {none}"
    note = adjust(found, tests, verdicts)
    return {"differences": found, "tests": tests, "left_out": [*without], "verdicts": verdicts, "adjusted": note}, None


def _changed(runs: Sequence[StoredRun]) -> str:
    """Return that runs of a data set have seen different ones by this name; nothing where that is not so."""
    seen = {tuple(str(run.manifest.data.get(key)) for key in _OF_DATA) for run in runs}
    for name, resolution, _ in sorted(seen):
        sums = sorted(md5[:32] for other, pixels, md5 in seen if (other, pixels) == (name, resolution))
        if len(sums) > 1:
            return f"; {printable(name)} has been another data set since (MD5 {', '.join(map(printable, sums))})"
    return ""
