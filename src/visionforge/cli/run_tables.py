"""Runs as tables and lines."""

import datetime
from collections.abc import Mapping, Sequence
from typing import Any

from visionforge.cli.arguments import heading, plain_table, print_table, say, value_text
from visionforge.evaluation.comparison import partial_of, positive_of
from visionforge.evaluation.metric_names import partial_text
from visionforge.redaction import redact_arguments
from visionforge.runs.cleaning import Cleaning
from visionforge.runs.paths import shown
from visionforge.runs.query import READINGS, StoredRun

SHOWN = ("run", "state", "started", "seconds", "epochs", "accuracy", "auc")  # the name of a run says more


def print_rows(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print a line for each run."""
    table = plain_table(*SHOWN, right=("seconds", "epochs", "accuracy", "auc"))
    for row in rows:
        table.add_row(*(_cell(name, row) for name in SHOWN))
    print_table(table)


def _cell(name: str, row: Mapping[str, Any]) -> str:
    value = row[name]
    if value is None:
        return "–"
    if name == "started":
        return datetime.datetime.fromisoformat(value).astimezone().strftime("%Y-%m-%d %H:%M")
    if name == "seconds":
        return duration(value)
    if name == "epochs" and row["max_epochs"]:
        return f"{value}/{row['max_epochs']}"
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def duration(seconds: float) -> str:
    """Return a time span as people read it, for instance ``2 h 05 min``."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def print_run(run: StoredRun) -> None:
    """Print everything that is known of a run."""
    row = run.as_row()
    heading(run.name)
    state = run.state if not run.manifest.error else f"{run.state} ({run.manifest.error})"
    facts: dict[str, Any] = {
        "folder": shown(run.workspace.path),
        "state": state,
        "started": _cell("started", row),
        "worked on": _cell("seconds", row),
        "resumed": f"{resumes} ×" if (resumes := len(run.manifest.sessions) - 1) > 0 else None,
        "epochs": _cell("epochs", row),
        "seed": row["seed"],
        "data": ", ".join(f"{key} {value}" for key, value in run.manifest.data.items() if value and key != "images"),
        "weights": (run.manifest.weights or {}).get("source", "random"),
        "parent": None if run.manifest.parent is None else run.manifest.parent.get("run"),
    }
    for session in run.manifest.sessions[-1:]:
        package = session.code.get("package")
        commit = str(package.get("commit", "")) if isinstance(package, dict) else ""
        device = session.hardware.get("device_name") or session.hardware.get("processor")
        packages = session.packages
        facts |= {
            "device": device,
            "processes": session.hardware.get("processes", 1),
            "host": session.process.get("host"),
            "job": session.scheduler and f"{session.scheduler.get('name')} {session.scheduler.get('job')}",
            "versions": ", ".join(
                f"{name} {packages[name]}" for name in ("visionforge", "torch", "python") if name in packages
            ),
            "commit": commit[:10] or None,
            "strict": session.switches.get("deterministic_algorithms"),
            "command": " ".join(redact_arguments(session.command)),
        }
    metrics = run.metrics
    partial = partial_of(metrics)
    facts |= {"partial": partial and partial_text(partial), "positive": positive_of(metrics)}
    for kind in READINGS:
        values = metrics.get(kind) or {}
        facts[kind.replace("_", " ").replace("tta", "TTA")] = ", ".join(
            f"{name} {value:.4f}" for name, value in values.items() if isinstance(value, float)
        )
    for name, value in facts.items():
        if value not in (None, ""):
            say(f"{name:>12}  {value}")


def print_differences(one: StoredRun, two: StoredRun, parts: Mapping[str, Mapping[str, tuple[Any, Any]]]) -> None:
    """Print in what two runs differ."""
    table = plain_table("", one.name, two.name)
    for name, part in parts.items():
        if not part:
            say(f"{name}: the same")
        for path, pair in part.items():
            table.add_row(path, *(value_text(value) for value in pair))
    if table.row_count:
        print_table(table)


def print_cleaning(cleaning: Cleaning, outputs: str, removing: bool) -> None:
    """Print which runs were removed, or would be.

    Args:
        cleaning: What was found.
        outputs: The folder, as it is shown.
        removing: Whether they were to be removed.
    """
    for run in cleaning.found:
        verb = "removed" if run.name in cleaning.removed else "kept" if removing else "would be removed"
        say(f"{verb}: {run.name} ({run.state}, {_cell('epochs', run.as_row())} epochs)")
    if not cleaning.found:
        say(f"no incomplete runs in {outputs}")
    elif not removing:
        say("nothing was removed; `--yes` removes them")
