"""The leaderboard as files: a page, CSV, Markdown and JSON of the same numbers."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from optuna.study import Study

from visionforge.benchmarking.leaderboard import leaderboard
from visionforge.benchmarking.plan import Cell, with_problems
from visionforge.benchmarking.study import WITHOUT_DATA, BenchmarkFolder, statuses
from visionforge.evaluation.metric_names import metric_text
from visionforge.printable import csv_text, printable
from visionforge.reporting.benchmark_page import (
    COSTS,
    best_published,
    cost_text,
    notes_of,
    rank_text,
    write_benchmark_page,
)
from visionforge.runs.files import write_atomic
from visionforge.runs.locks import held

WRITE_WAIT_S = 120.0
_COSTS = (
    *("epochs", "seconds", "cpu_seconds", "whole", "parameters", "multiply_adds", "images_per_second", "threads"),
    *("energy_wh", "energy_from", "peak_bytes", "test_images", "partial"),
)
_OF_A_METRIC = ("mean", "sd", "n", "seeds_low", "seeds_high", "images_low", "images_high")
Content = Mapping[str, Any]


def write_leaderboard(
    study: Study, folder: BenchmarkFolder, name: str, cells: Sequence[Cell], watts: float | None
) -> dict[str, Any]:
    """Write all files anew, each whole or not at all, and return their content.

    Whoever has finished a cell does so; on one machine the last to write has read the study last.
    """
    folder.path.mkdir(parents=True, exist_ok=True)
    with held(folder.writing, f"{folder.path}: the leaderboard", WRITE_WAIT_S):
        cells = with_problems(cells, study.user_attrs.get(WITHOUT_DATA, {}))
        content = leaderboard(name, cells, statuses(study.get_trials(deepcopy=False), cells), watts)
        write_atomic(folder.table("json"), json.dumps(content, indent=2, allow_nan=False) + "\n")
        write_atomic(folder.table("csv"), as_csv(content))
        write_atomic(folder.table("md"), as_markdown(content))
        write_benchmark_page(folder.page, folder.figures, content)
    return content


def as_csv(content: Content) -> str:
    """Return one line for each data set, resolution, backbone and recipe, and one for each published result."""
    names = list(dict.fromkeys(name for table in content["tables"] for name in table["labels"]))
    columns = [f"{name}_{part}" for name in names for part in _OF_A_METRIC]
    heads = ("dataset", "resolution", "task", "backbone", "recipe", "seeds", "planned")
    lines: list[list[Any]] = [[*heads, *columns, *_COSTS, "source"]]
    for table in content["tables"]:
        about = (table["dataset"], table["resolution"], table["task"])
        for row in table["rows"]:
            seeds = " ".join(map(str, row["seeds"]))
            values = [value for name in names for value in _values(row["metrics"].get(name))]
            costs = ["" if row[cost] is None else row[cost] for cost in _COSTS]
            lines.append([*about, row["backbone"], row["recipe"], seeds, row["planned"], *values, *costs, "runs"])
        for each in table["published"]:
            values = [value for name in names for value in _values(_told(each["values"].get(name)))]
            line = (table["dataset"], each["resolution"], table["task"], each["method"], "published", "", "")
            lines.append([*line, *values, *[""] * len(_COSTS), each["source"]])
    return csv_text(lines)


def _told(value: float | None) -> Content | None:
    if value is None:
        return None
    return {"mean": value, "sd": None, "n": None, "seeds_interval": None, "images_interval": None}


def _values(found: Content | None) -> list[Any]:
    if found is None:
        return [""] * len(_OF_A_METRIC)
    ends = [*(found["seeds_interval"] or ("", "")), *(found["images_interval"] or ("", ""))]
    return ["" if value is None else value for value in (found["mean"], found["sd"], found["n"], *ends)]


def as_markdown(content: Content) -> str:
    """Return the leaderboard as Markdown."""
    lines = [f"# {_plain(content['benchmark'])}", "", f"{_counts(content)}; written {content['written']}.", ""]
    ranks = content["ranks"]
    if ranks["average"]:
        lines += ["## Average rank", "", "| method | average rank |", "|---|---|"]
        order = sorted(ranks["average"].items(), key=lambda item: item[1])
        lines += [f"| {_plain(label)} | {rank:.2f} |" for label, rank in order]
        lines += ["", _plain(rank_text(ranks)), ""]
    for table in content["tables"]:
        lines += [f"## {_plain(table['title'])}, {table['resolution']} pixels", ""]
        labels = [table["labels"][name] for name in table["metrics"]]
        heads = ["backbone", "recipe", *labels, "seeds", *(label for _, label in COSTS)]
        lines += [_line(heads), "|" + "---|" * len(heads)]
        for row in table["rows"]:
            values = [metric_text(row["metrics"][name]) for name in table["metrics"]]
            seeds = f"{len(row['seeds'])} of {row['planned']}"
            costs = [cost_text(row, name) for name, _ in COSTS]
            lines.append(_line([row["backbone"], row["recipe"], *values, seeds, *costs]))
        for each in best_published(table):
            values = [f"{each['values'][name]:.3f}" if name in each["values"] else "" for name in table["metrics"]]
            method = f"{each['method']}, {each['resolution']} px"
            lines.append(_line([method, f"published: {each['table']}", *values, "", *[""] * len(COSTS)]))
        lines.append("")
    if content["failed"]:
        lines += ["## Without a result", "", "| cell | reason |", "|---|---|"]
        for each in content["failed"]:
            cell = " ".join(str(each[key]) for key in ("dataset", "resolution", "backbone", "recipe", "seed"))
            lines.append(_line([cell, each["reason"] or ""]))
        lines.append("")
    lines += [f"- {_plain(note)}" for note in notes_of(content)]
    return "\n".join(lines).rstrip() + "\n"


def _counts(content: Content) -> str:
    counts = content["cells"]
    return ", ".join([f"{counts['all']} cells", *(f"{n} {state}" for state, n in counts.items() if state != "all")])


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(map(_plain, cells))} |"


def _plain(text: str) -> str:
    """Return a text that ends no cell of a table and begins no markup."""
    return printable(text, 1_000).replace("|", "\\|").replace("<", "&lt;")
