"""What is told of an evaluation beside its numbers: settings, epochs, pictures, and where it comes from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any

from visionforge.data.side_table import SideTable
from visionforge.evaluation.embedding_map import Embedded
from visionforge.reporting.figures.static import Picture
from visionforge.runs.manifest import Manifest
from visionforge.runs.query import differences, flat


@dataclass(frozen=True)
class ReportContext:
    """What a report says beside the numbers.

    Attributes:
        title: Heading, usually the run's name.
        facts: Name → text, for the lines under the heading.
        config: The resolved configuration.
        defaults: What it would be if nothing had been set.
        manifest: What the run says of itself, or None for a checkpoint that lies in no run.
        epochs: The rows of `metrics.csv`.
        mistakes: The most confident wrong predictions.
        uncertain: The least certain predictions.
        explained: Images with overlays.
        method: How the overlays were made.
        side: Names and groups of the images of the split.
        candidates: The rows of a probe's `probe.csv`.
        embedding: Features of its images; None draws no map of them.
    """

    title: str
    facts: Mapping[str, str]
    config: Mapping[str, Any]
    defaults: Mapping[str, Any]
    manifest: Manifest | None = None
    epochs: Sequence[Mapping[str, float]] = ()
    mistakes: Sequence[Picture] = ()
    uncertain: Sequence[Picture] = ()
    explained: Sequence[Picture] = ()
    method: str = ""
    side: SideTable = field(default_factory=SideTable)
    candidates: Sequence[Mapping[str, str]] = ()
    embedding: Embedded | None = None


def changed_settings(background: ReportContext) -> dict[str, tuple[Any, Any]]:
    """Return the settings that are not the defaults: dotted path → (default, value)."""
    given = dict(flat(background.config))
    changed = differences(background.defaults, background.config)
    return {path: pair for path, pair in changed.items() if path in given}


def command_line(command: Sequence[str]) -> str:
    """Return a command as one line, without the folder in which its program lies.

    >>> command_line(["/home/me/venv/bin/visionforge", "fit", "--config", "mine.yaml"])
    'visionforge fit --config mine.yaml'
    >>> command_line(["/home/me/venv/lib/visionforge/__main__.py", "fit"])
    'python -m visionforge fit'
    """
    programs = [PurePath(word) for word in command[:1]]
    names = [f"python -m {path.parent.name}" if path.name == "__main__.py" else path.name for path in programs]
    return " ".join([*names, *command[1:]])


def origin_rows(background: ReportContext) -> list[tuple[str, str, str]]:
    """Return (group, name, text) of everything that is known of data, code and machine."""
    manifest = background.manifest
    if manifest is None:
        return []
    session = manifest.sessions[-1] if manifest.sessions else None
    groups: dict[str, Mapping[str, Any]] = {
        "run": {
            "name": manifest.run,
            "hash": manifest.hash,
            "started": manifest.started,
            "resumed": max(0, len(manifest.sessions) - 1),
            **manifest.seeds,
        },
        "data": manifest.data,
        "weights": manifest.weights or {"source": "random"},
    }
    if session is not None:
        groups |= {
            "command": {"line": command_line(session.command)},
            "hardware": session.hardware,
            "packages": session.packages,
            "code": session.code,
            "switches": session.switches,
            "environment": session.environment,
        }
    return [
        (group, name, str(value))
        for group, values in groups.items()
        for name, value in flat(values)
        if value not in (None, "", {}, [])
    ]
