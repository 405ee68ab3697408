"""The closing table: the result and where everything lies."""

from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from visionforge.runs.anchors import shown
from visionforge.runs.workspace import Workspace

_ROWS = (
    ("accuracy", "accuracy"),
    ("auc", "AUC"),
    ("f1_macro", "macro-F1"),
    ("balanced_accuracy", "balanced accuracy"),
    ("f1_macro_tuned", "macro-F1, tuned thresholds"),
    ("balanced_accuracy_tuned", "balanced accuracy, tuned"),
    ("loss", "loss"),
)


def print_results(content: dict[str, Any], workspace: Workspace, checkpoint: Path) -> None:
    """Print the metrics of one evaluated split, and the paths of what was written.

    Args:
        content: The content of `metrics.json`.
        workspace: The folder of the results.
        checkpoint: The checkpoint that was evaluated.
    """
    console = Console(highlight=False)
    averaged = content["with_tta"]
    table = Table(
        box=SIMPLE_HEAD,
    )
    table.add_column("metric")
    table.add_column("image alone" if averaged else "value", justify="right")
    if averaged:
        table.add_column("with TTA", justify="right")
    for key, label in _ROWS:
        if key not in content["without_tta"]:
            continue
        values = [content["without_tta"].get(key), *([averaged.get(key)] if averaged else [])]
        table.add_row(label, *("–" if value is None else f"{value:.4f}" for value in values))
    heading = f"{content['dataset']} {content['split']} split, {content['images']:,} images, {checkpoint.name}"
    console.print(f"\n{heading}", style="bold", soft_wrap=True)
    console.print(table)
    for label, path in (
        ("run", workspace.path),
        ("checkpoint", checkpoint),
        ("metrics", workspace.metrics),
        ("predictions", workspace.predictions),
        ("figures", workspace.figures),
    ):
        console.print(f"{label:>12}  {shown(path)}", soft_wrap=True)
