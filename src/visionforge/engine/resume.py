"""Which run a fit goes on with: the one that is named, the newest interrupted one of the same settings, or none."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from visionforge.config.schema import RunSettings
from visionforge.errors import SettingsError
from visionforge.runs.config_hash import canonical
from visionforge.runs.files import refuse_links
from visionforge.runs.paths import is_anchored, outputs_folder, resolve, shown
from visionforge.runs.query import StoredRun, differences, find_checkpoint, stored_runs
from visionforge.runs.scheduler import detect_scheduler
from visionforge.runs.workspace import Workspace

WORDS = ("auto", "never")


def interrupted_run(choice: str | None, config: Mapping[str, Any], outputs: Path) -> Workspace | None:
    """Return the newest interrupted run that a fit goes on with by itself, or None for a new one.

    Without a choice, a job that SLURM has requeued continues its own run.

    Args:
        choice: `auto`, `never` or None.
        config: The resolved configuration of the fit.
        outputs: The folder of all runs.
    """
    scheduler = detect_scheduler()
    requeued = scheduler is not None and scheduler.name == "SLURM" and scheduler.restarts > 0
    if choice == "never" or (choice is None and not requeued):
        return None
    found = runs_like(config, outputs)
    if choice is None:
        assert scheduler is not None
        found = [run for run in found if scheduler.job in _jobs(run)]
    interrupted = [run for run in found if run.state == "interrupted"]
    return interrupted[-1].workspace if interrupted else None


def complete_run(config: Mapping[str, Any], outputs: Path, stage: str = "fit") -> StoredRun | None:
    """Return the newest complete run of a resolved configuration, which need not be made again; None if there is none.

    Raises:
        RunError: If a link in it leads out of it.
    """
    complete = [run for run in runs_like(config, outputs, stage) if run.state == "complete" and run.metrics]
    if not complete:
        return None
    refuse_links(complete[-1].workspace.path)
    return complete[-1]


def runs_like(config: Mapping[str, Any], outputs: Path, stage: str = "fit") -> list[StoredRun]:
    """Return the trainings of a resolved configuration in an outputs folder, oldest first.

    Whoever made them: what goes on from one has the settings that were given, of which it takes no others.
    """
    wanted = canonical(config)
    runs, _ = stored_runs(outputs)
    return [run for run in runs if run.manifest.stage == stage and canonical(run.config) == wanted]


def _jobs(run: StoredRun) -> list[str]:
    return [str(session.scheduler.get("job")) for session in run.manifest.sessions if session.scheduler]


def outputs_of(settings: RunSettings) -> Path:
    """Return the folder of all runs: the Trainer's flag, or else the anchor `outputs://`."""
    chosen = (settings.trainer.model_extra or {}).get("default_root_dir")
    return resolve(chosen) if chosen else outputs_folder()


def parent_of(settings: RunSettings) -> dict[str, Any] | None:
    """Return the run that a checkpoint or weights were taken from, or that is learnt from, if they lie in one."""
    origins = {"checkpoint": settings.ckpt_path, "weights": settings.model.backbone.weights}
    if (teacher := settings.model.distillation.teacher) is not None:
        origins["teacher"] = str(find_checkpoint(teacher, "model.distillation.teacher"))
    for reason, text in origins.items():
        if text is None or ("://" in text and not is_anchored(text)):
            continue
        path = resolve(text)
        folder = path if path.is_dir() else path.parent.parent
        if Workspace(folder).manifest.is_file():
            return {"run": folder.resolve().name, "reason": reason}
    return None


def require_same_settings(stored: Mapping[str, Any], given: Mapping[str, Any], run: Workspace) -> None:
    """Check that a resumed run keeps what identifies it.

    Args:
        stored: Its configuration.
        given: The resolved configuration of the fit that goes on with it.
        run: The run.

    Raises:
        SettingsError: With a line for every setting that would change the result.
    """
    if canonical(stored) == canonical(given):
        return
    changed = differences(json.loads(canonical(stored)), json.loads(canonical(given)))
    raise SettingsError(
        [
            f"{path}: {new!r} given, {shown(run.path)} was begun with {old!r}; a resumed run keeps its settings "
            "(leave it out, or begin a new run without --resume)"
            for path, (old, new) in changed.items()
        ]
    )
