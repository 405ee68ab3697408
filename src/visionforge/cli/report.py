"""The closing table: the result and where everything lies."""

from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD

from visionforge.cli.arguments import heading, print_table, say
from visionforge.evaluation.metric_names import (
    ALL_AGREE,
    NO_INTERVAL,
    OF_POSITIVE,
    READINGS,
    interval_text,
    metric_name,
    partial_text,
)
from visionforge.runs.paths import shown
from visionforge.runs.workspace import Workspace
from visionforge.terminal import PlainTable

_SHOWN = (  # the others are in metrics.json and in the report
    "accuracy",
    "auc",
    "f1_macro",
    "balanced_accuracy",
    "sensitivity",
    "specificity",
    "kappa_quadratic",
    "mae",
    "f1_macro_tuned",
    "balanced_accuracy_tuned",
    "ece",
    "loss",
)


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
    for metric in _SHOWN:
        if metric not in content["without_tta"] or (metric in OF_POSITIVE and positive is None):
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
    print_table(table)  # no name is broken
    if agree:
        say(f"  {ALL_AGREE}")
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
