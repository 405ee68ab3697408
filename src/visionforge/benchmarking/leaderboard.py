"""The numbers of a leaderboard, once, for all that write it: page, CSV, Markdown and JSON."""

import datetime
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from scipy import stats

from visionforge.benchmarking.costs import energy_wh
from visionforge.benchmarking.plan import Cell
from visionforge.benchmarking.study import Status
from visionforge.config.schema.metrics import metrics
from visionforge.config.schema.tasks import task_named
from visionforge.data.registry import dataset_info
from visionforge.evaluation.metric_names import labels_of_metrics
from visionforge.reporting.published import published
from visionforge.scoring.ranks import FEWEST_DATASETS, FEWEST_METHODS, average_ranks, ranked

CONFIDENCE = 0.95
MOST_METRICS = 2  # of a task, on a page; the other headlines are in JSON and CSV
Content = dict[str, Any]
Row = dict[str, Any]


def leaderboard(name: str, cells: Sequence[Cell], found: Mapping[str, Status], watts: float | None = None) -> Content:
    """Return everything that a leaderboard shows, in a form for JSON.

    Args:
        name: Name of the benchmark.
        cells: All cells.
        found: Key of a cell → what has become of it.
        watts: Power of a busy core, by which energy is estimated.
    """
    tables = [
        _table(dataset, resolution, [cell for cell in cells if (cell.dataset, cell.resolution) == place], found, watts)
        for place in dict.fromkeys((cell.dataset, cell.resolution) for cell in cells)
        for dataset, resolution in [place]
    ]
    states = [found[cell.key].state for cell in cells]
    return {
        "benchmark": name,
        "written": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "cells": {"all": len(cells), **{state: states.count(state) for state in dict.fromkeys(states)}},
        "confidence": CONFIDENCE,
        "watts": watts,
        "tables": tables,
        "ranks": rank_tables(tables),
        "failed": [
            {**_names(cell), "seed": cell.seed, "state": found[cell.key].state, "reason": found[cell.key].reason}
            for cell in cells
            if found[cell.key].state in ("failed", "refused")
        ],
    }


def _names(cell: Cell) -> Row:
    return {
        "dataset": cell.dataset,
        "resolution": cell.resolution,
        "backbone": cell.backbone,
        "recipe": cell.recipe,
    }


def _table(
    dataset: str, resolution: int, cells: Sequence[Cell], found: Mapping[str, Status], watts: float | None
) -> Content:
    """Return the rows of one data set at one resolution, best first."""
    task, title = _task_of(dataset, cells)
    names = list(task_named(task).headlines) or ["accuracy"]
    first = names[0]
    rows = []
    for backbone, recipe in dict.fromkeys((cell.backbone, cell.recipe) for cell in cells):
        members = [cell for cell in cells if (cell.backbone, cell.recipe) == (backbone, recipe)]
        rows.append({"backbone": backbone, "recipe": recipe, **_row(members, found, names, watts)})
    rows.sort(key=lambda row: _place(row, first))
    shown = [name for name in names if any(row["metrics"][name] is not None for row in rows)] or names[:1]
    return {
        "dataset": dataset,
        "title": title,
        "task": task,
        "resolution": resolution,
        "metrics": shown[:MOST_METRICS],
        "labels": {name: labels_of_metrics().get(name, name) for name in names},
        "rows": rows,
        "published": [
            asdict(each) for each in published() if each.dataset == dataset and set(each.values) & set(shown)
        ],
    }


def _task_of(dataset: str, cells: Sequence[Cell]) -> tuple[str, str]:
    synthetic = next((cell.settings.data.synthetic for cell in cells if cell.settings is not None), None)
    info = dataset_info(dataset) if synthetic is None else dataset_info(dataset, synthetic)
    return info.task, info.title


def _place(row: Row, metric: str) -> tuple[bool, float]:
    value = row["metrics"][metric]
    if value is None:
        return True, 0.0
    return False, -value["mean"] if metrics()[metric].higher_is_better else value["mean"]


def _row(cells: Sequence[Cell], found: Mapping[str, Status], names: Sequence[str], watts: float | None) -> Row:
    """Return what a backbone with a recipe has reached and cost, over its seeds."""
    done = [
        (cell, record)
        for cell in cells
        if found[cell.key].state == "complete" and (record := found[cell.key].record) is not None
    ]
    records = [record for _, record in done]
    spent = [record.get("spent") or {} for record in records]
    energies = [energy_wh(each.get("cpu_seconds"), each.get("counted_wh"), watts) for each in spent]
    return {
        "seeds": [cell.seed for cell, _ in done],
        "planned": len(cells),
        "metrics": {name: _metric(records, name) for name in names},
        "seconds": _mean(record.get("seconds") for record in records),
        "cpu_seconds": _mean(each.get("cpu_seconds") for each in spent),
        "whole": all(record.get("whole", True) for record in records),
        "epochs": _mean(record.get("epochs") for record in records),
        "parameters": next((record["parameters"] for record in records if record.get("parameters")), None),
        "multiply_adds": next((record["multiply_adds"] for record in records if record.get("multiply_adds")), None),
        "images_per_second": _median(record.get("images_per_second") for record in records),
        "threads": next((record["threads"] for record in records if record.get("threads")), None),
        "energy_wh": _mean(value for value, _ in energies),
        "energy_from": next((origin for _, origin in energies if origin), None),
        "peak_bytes": max((each["peak_bytes"] for each in spent if each.get("peak_bytes")), default=None),
        "test_images": next((record["images"] for record in records if record.get("images")), None),
        "partial": any(record.get("partial") for record in records),
        "runs": [record["path"] for record in records],
    }


def _metric(records: Sequence[Mapping[str, Any]], name: str) -> Content | None:
    """Return mean, spread and intervals of a metric over seeds; None if it is undefined for all of them.

    `seeds_interval` is Student's, of the mean over seeds: what other seeds would give on the same test images.
    `images_interval` has the means of the ends of the runs' own intervals: what other test images would give with a
    network of one seed.
    """
    values = [float(record["metrics"][name]) for record in records if record["metrics"].get(name) is not None]
    if not values:
        return None
    ends = [record["intervals"][name] for record in records if record["intervals"].get(name) is not None]
    mean, count = statistics.fmean(values), len(values)
    deviation = statistics.stdev(values) if count > 1 else None
    return {
        "mean": mean,
        "sd": deviation,
        "n": count,
        "values": values,
        "seeds_interval": None if deviation is None else seeds_interval(mean, deviation, count),
        "images_interval": [statistics.fmean(side) for side in zip(*ends, strict=True)] if len(ends) == count else None,
    }


def seeds_interval(mean: float, deviation: float, count: int, confidence: float = CONFIDENCE) -> list[float]:
    """Return Student's interval of a mean.

    Args:
        mean: Of the values.
        deviation: Their sample standard deviation.
        count: Their number, 2 or more.
        confidence: Share of samples of which the interval holds the truth.
    """
    half = float(stats.t.ppf((1 + confidence) / 2, count - 1)) * deviation / count**0.5
    return [mean - half, mean + half]


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known else None


def _median(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None


def rank_tables(tables: Sequence[Content]) -> Content:
    """Return average ranks of the methods over data sets, and tests of their differences where there are enough.

    A method is a backbone with a recipe, and the resolution where there are several. Each data set counts once, by the
    mean over seeds of the first metric of its task; those in which a method has no result yet are left out.
    """
    several = len({table["resolution"] for table in tables}) > 1
    values: dict[str, dict[str, float]] = {}
    for table in tables:
        first = task_named(table["task"]).headlines[0]
        sign = 1.0 if metrics()[first].higher_is_better else -1.0
        for row in table["rows"]:
            if (value := row["metrics"][first]) is not None:
                label = method_label(row["backbone"], row["recipe"], table["resolution"] if several else None)
                values.setdefault(table["dataset"], {})[label] = sign * value["mean"]
    datasets = list(dict.fromkeys(table["dataset"] for table in tables))
    methods = list(dict.fromkeys(label for each in values.values() for label in each))
    whole = [dataset for dataset in datasets if set(values.get(dataset, {})) == {*methods}]
    content: Content = {
        "methods": methods,
        "datasets": whole,
        "left_out": [dataset for dataset in datasets if dataset not in whole],
        "average": None,
        "tests": None,
        "reason": None,
    }
    if not whole or len(methods) < 2:
        reason = "there is one method" if len(methods) == 1 else "no data set has results of all methods yet"
        return {**content, "reason": reason}
    matrix = np.array([[values[dataset][label] for label in methods] for dataset in whole])
    content["average"] = dict(zip(methods, average_ranks(matrix).tolist(), strict=True))
    if len(whole) < FEWEST_DATASETS or len(methods) < FEWEST_METHODS:
        content["reason"] = (
            f"{len(whole)} data sets and {len(methods)} methods are too few for a test; "
            f"needed: {FEWEST_DATASETS} and {FEWEST_METHODS}"
        )
        return content
    return {**content, "tests": asdict(ranked(matrix, confidence=CONFIDENCE))}


def method_label(backbone: str, recipe: str, resolution: int | None) -> str:
    """Return what a method is called.

    >>> method_label("resnet18", "default", None), method_label("resnet18", "small_28", 28)
    ('resnet18', 'resnet18 small_28, 28 px')
    """
    label = backbone if recipe == "default" else f"{backbone} {recipe}"
    return label if resolution is None else f"{label}, {resolution} px"
