"""The results of a run, and a comparison of runs, as tables and lines."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD

from visionforge.cli.printing import heading, plain_table, print_table, value_text
from visionforge.evaluation.comparison import NAMES
from visionforge.evaluation.comparison_texts import comparison_tables, mean_text
from visionforge.evaluation.metric_names import (
    NO_INTERVAL,
    READINGS,
    TOO_FEW,
    interval_text,
    metric_name,
    of_positive,
    partial_text,
    printed_metrics,
)
from visionforge.runs.paths import shown
from visionforge.runs.workspace import Workspace
from visionforge.streams import say, say_lines
from visionforge.terminal import PlainTable


def print_results(content: dict[str, Any], workspace: Workspace, checkpoint: Path) -> None:
    """Print the metrics of one evaluated split, and the paths of what was written.

    Args:
        content: The content of `metrics.json`.
        workspace: The folder of the results.
        checkpoint: The checkpoint that was evaluated.
    """
    readings = [name for name in READINGS if content.get(name)]
    intervals, positive = content.get("intervals"), content.get("positive")
    table = PlainTable(box=SIMPLE_HEAD)
    table.add_column("metric")
    for name in readings:
        table.add_column(READINGS[name] if len(readings) > 1 else "value", justify="right")
        if intervals:
            table.add_column(f"{intervals['confidence']:.0%} interval", justify="right")
    agree = False
    for metric in printed_metrics():
        if metric not in content["without_tta"] or (of_positive(metric) and positive is None):
            continue
        row = [metric_name(metric, positive)]
        for name in readings:
            value = content[name].get(metric)
            row.append("–" if value is None else f"{value:.4f}")
            if intervals:
                row.append(interval_text(intervals[name][metric], value, "–") if metric in intervals[name] else "")
        table.add_row(*row)
        agree |= NO_INTERVAL in row[2::2]
    say()
    heading(f"{content['dataset']} {content['split']} split, {content['images']:,} images, {checkpoint.name}")
    if content.get("partial"):
        say(f"partial: {partial_text(content['partial'])}")
    say_lines([f"! {line}" for line in content.get("warnings") or ()])
    print_table(table)  # no name is broken
    if agree:
        say(f"  {TOO_FEW}")
        say()
    for label, path in (
        ("run", workspace.path),
        ("checkpoint", checkpoint),
        ("metrics", workspace.metrics),
        ("predictions", workspace.predictions),
        ("figures", workspace.figures),
        ("report", workspace.report),
    ):
        if not path.exists():
            continue  # figures and report can be switched off
        say(f"{label:>12}  {shown(path)}")


def print_folds(content: Mapping[str, Any], folder: Path) -> None:
    """Print what networks say of images that they have not learnt: by fold, and of all images together.

    Args:
        content: The content of `metrics.json` of an ensemble.
        folder: The folder of the ensemble.
    """
    folds = content.get("folds")
    if not folds:
        return
    whole = folds.get("out_of_fold") or content
    reading = next(name for name in reversed(READINGS) if whole.get(name))
    table = plain_table("out of fold", "all images", "interval", "mean of folds", "sd")
    positive = content.get("positive")
    for metric in printed_metrics():
        value, found = whole[reading].get(metric), folds["metrics"].get(metric)
        if found is None or (of_positive(metric) and positive is None):
            continue
        ends = (whole.get("intervals") or {}).get(reading, {})
        each = ["–" if found[name] is None else f"{found[name]:.4f}" for name in ("mean", "sd")]
        interval = interval_text(ends[metric], value, "–") if metric in ends else ""
        table.add_row(metric_name(metric, positive), "–" if value is None else f"{value:.4f}", interval, *each)
    say()
    print_table(table)
    say(f"{'out of fold':>12}  {shown(folder / 'out_of_fold.csv')}")


def print_comparison(content: Mapping[str, Any]) -> None:
    """Print a comparison: every run, then means over seeds, then differences, tests and margins."""
    table = plain_table("", *content["runs"])
    table.add_row("state", *content["states"])
    if content["positive"] is not None:
        table.add_row("positive class", *(value_text(name) for name in content["positive"]))
    if content["partial"] is not None:
        table.add_row("partial", *(partial_text(part) if part else "–" for part in content["partial"]))
    for part in (content["settings"], content["metrics"]):
        for name, row in part.items():
            table.add_row(name, *(value_text(value) for value in row))
    print_table(table)
    groups = content["groups"]
    if any(group["seeds"] > 1 for group in groups):
        say()
        heading("mean ± standard deviation over seeds")
        several = len(groups) > 1
        headings = [f"{group['name']} (n = {group['seeds']})" for group in groups]
        table = plain_table("", *(headings if several else [f"n = {groups[0]['seeds']}"]))
        for name in content["metrics"]:
            table.add_row(name, *(mean_text(group["metrics"][name]) for group in groups))
        print_table(table)
    if content["differences"]:
        say()
        heading("differences on the same cases")
        members = (
            groups
            if len(groups) > 1
            else [{"name": n, "runs": [r]} for n, r in zip(NAMES, content["runs"], strict=False)]
        )
        for group in members:
            say(f"{group['name']}: {', '.join(group['runs'])}")
        if about := content["differences"][0]["positive"]:
            say(f"positive class: {about}")
        for place, each in enumerate(comparison_tables(content)):
            if place:
                say()
                heading(each.heading)
            table = plain_table(*each.columns)
            for row in each.rows:
                table.add_row(*row)
            print_table(table)
            for note in each.notes:
                say(note)
    elif content["note"]:
        say()
        say(content["note"])
