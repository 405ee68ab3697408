"""Everything that is known of a run, as texts."""

import datetime
from collections.abc import Mapping
from typing import Any

from visionforge.evaluation.comparison import partial_of, positive_of
from visionforge.evaluation.metric_names import partial_text
from visionforge.redaction import redact_arguments
from visionforge.runs.manifest import NOTICED
from visionforge.runs.paths import shown
from visionforge.runs.query import READINGS, StoredRun
from visionforge.runs.session import ENSEMBLE


def run_facts(run: StoredRun) -> dict[str, str]:
    """Return label → text, without what is not known."""
    row = run.as_row()
    data = {name: value for name, value in run.manifest.data.items() if name != "images"}
    noticed = data.pop(NOTICED, None)
    state = run.state if not run.manifest.error else f"{run.state} ({run.manifest.error})"
    facts: dict[str, Any] = {
        "folder": shown(run.workspace.path),
        "state": state,
        "started": cell_text("started", row),
        "worked on": cell_text("seconds", row),
        "resumed": f"{resumes} ×" if (resumes := len(run.manifest.sessions) - 1) > 0 else None,
        "epochs": cell_text("epochs", row),
        "size": size_text(run.size),
        "seed": row["seed"],
        "data": ", ".join(f"{key} {value}" for key, value in data.items() if value),
        "import": noticed,
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
    return {name: str(value) for name, value in facts.items() if value not in (None, "")}


def cell_text(name: str, row: Mapping[str, Any]) -> str:
    """Return a value of `StoredRun.as_row` as tables show it."""
    value = row[name]
    if value is None:
        return "–"
    if name == "started":
        return datetime.datetime.fromisoformat(value).astimezone().strftime("%Y-%m-%d %H:%M")
    if name == "seconds":
        return duration(value)
    if name == "bytes":
        return size_text(value)
    if name == "epochs" and row["stage"] == ENSEMBLE:
        return "ensemble"
    if name == "epochs" and row["max_epochs"]:
        return f"{value}/{row['max_epochs']}"
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def size_text(count: int) -> str:
    """Return a number of bytes as people read it, for instance ``12.3 MB``."""
    size, unit = float(count), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if size < 1000:
            break
        size, unit = size / 1000, larger
    return f"{size:.0f} {unit}" if size >= 100 or unit == "B" else f"{size:.1f} {unit}"


def duration(seconds: float) -> str:
    """Return a time span as people read it, for instance ``2 h 05 min``."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"
