"""The closing table: the result and where everything lies."""

from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD

from visionforge.cli.arguments import heading, say
from visionforge.evaluation.names import METRICS, READINGS
from visionforge.runs.anchors import shown
from visionforge.runs.workspace import Workspace
from visionforge.terminal import PlainTable, plain_console

_SHOWN = (  # the others are in metrics.json and in the report
    "accuracy",
    "auc",
    "f1_macro",
    "balanced_accuracy",
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
    readings = [name for name in READINGS if content[name]]
    intervals = content.get("intervals")
    table = PlainTable(box=SIMPLE_HEAD)
    table.add_column("metric")
    for name in readings:
        table.add_column(READINGS[name] if len(readings) > 1 else "value", justify="right")
        if intervals:
            table.add_column(f"{intervals['confidence']:.0%} interval", justify="right")
    for metric in _SHOWN:
        if metric not in content["without_tta"]:
            continue
        row = [METRICS[metric]]
        for name in readings:
            value = content[name].get(metric)
            row.append("–" if value is None else f"{value:.4f}")
            if intervals:
                ends = intervals[name].get(metric)
                row.append("" if ends is None else f"{ends[0]:.3f}–{ends[1]:.3f}")
        table.add_row(*row)
    say()
    heading(f"{content['dataset']} {content['split']} split, {content['images']:,} images, {checkpoint.name}")
    plain_console().print(table, soft_wrap=False)
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
