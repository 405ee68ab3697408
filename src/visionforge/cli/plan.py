"""What a command is about to do with its run folder: make one, or continue one from a checkpoint."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from visionforge.config.schema import RunSettings
from visionforge.errors import RunError, SettingsError
from visionforge.runs.active import FOLDER, ActiveRun
from visionforge.runs.anchors import is_anchored, outputs_folder, resolve, shown
from visionforge.runs.identity import canonical, processes_of
from visionforge.runs.scheduler import detect_scheduler
from visionforge.runs.signals import Interruption
from visionforge.runs.store import StoredRun, differences, find_run, stored_runs
from visionforge.runs.workspace import Workspace

CHECKPOINT = "VISIONFORGE_RUN_CHECKPOINT"  # environment variable: what the other ranks continue from
_WORDS = ("auto", "never")


@dataclass(frozen=True)
class TrialPart:
    """What a study adds to an ordinary fit, which is then neither tested nor shown.

    Attributes:
        callbacks: Further callbacks.
        pruned: The exception by which one of them ends the fit early.
        metric: What the study searches for.
    """

    callbacks: Sequence[Any]
    pruned: type[Exception]
    metric: str


@dataclass
class Plan:
    """What is decided before LightningCLI takes over.

    Attributes:
        interruption: Handles the signals.
        active: A run that was reopened; None makes a new one.
        checkpoint: What training continues from; None begins anew.
        parent: The run or study that a new run comes from.
        past_interrupted: Make a new run also where one of the same settings was interrupted.
        trial: The fit is a trial of a study.
        made: The run that was made or continued, once it is known.
    """

    interruption: Interruption = field(default_factory=Interruption)
    active: ActiveRun | None = None
    checkpoint: Path | None = None
    parent: dict[str, Any] | None = None
    past_interrupted: bool = False
    trial: TrialPart | None = None
    made: Workspace | None = None


def run_to_resume(choice: str | None, settings: RunSettings) -> Workspace | None:
    """Return the run that `--resume` names or finds, or None for a new one.

    Without `--resume`, a job that SLURM has requeued continues its own run.

    Args:
        choice: A folder, a name, `auto`, `never`, or None.
        settings: The settings of a new run.

    Raises:
        RunError: If there is no such run.
    """
    if choice is not None and choice not in _WORDS:
        return find_run(choice, "--resume")
    scheduler = detect_scheduler()
    requeued = scheduler is not None and scheduler.name == "SLURM" and scheduler.restarts > 0
    if choice == "never" or (choice is None and not requeued):
        return None
    found = runs_like(settings)
    if choice is None:
        assert scheduler is not None
        found = [run for run in found if scheduler.job in _jobs(run)]
    interrupted = [run for run in found if run.state == "interrupted"]
    return interrupted[-1].workspace if interrupted else None


def runs_like(settings: RunSettings) -> list[StoredRun]:
    """Return the fits of the same settings in their outputs folder, oldest first.

    Whoever made them: what goes on from one has the settings that were given, of which it takes no others.
    """
    wanted = canonical(settings.model_dump(mode="json"))
    runs, _ = stored_runs(outputs_of(settings))
    return [run for run in runs if run.manifest.stage == "fit" and canonical(run.config) == wanted]


def _jobs(run: StoredRun) -> list[str]:
    return [str(session.scheduler.get("job")) for session in run.manifest.sessions if session.scheduler]


def outputs_of(settings: RunSettings) -> Path:
    """Return the folder of all runs: the Trainer's flag, or else the anchor `outputs://`."""
    chosen = (settings.trainer.model_extra or {}).get("default_root_dir")
    return resolve(chosen) if chosen else outputs_folder()


def parent_of(settings: RunSettings) -> dict[str, Any] | None:
    """Return the run that a checkpoint or weights were taken from, if they lie in one."""
    origins = {"checkpoint": settings.ckpt_path, "weights": settings.model.backbone.weights}
    for reason, text in origins.items():
        if text is None or ("://" in text and not is_anchored(text)):
            continue
        path = resolve(text)
        folder = path if path.is_dir() else path.parent.parent
        if Workspace(folder).manifest.is_file():
            return {"run": folder.resolve().name, "reason": reason}
    return None


def require_same_settings(stored: Mapping[str, Any], settings: RunSettings, run: Workspace) -> None:
    """Check that a resumed run keeps what identifies it.

    Raises:
        SettingsError: With a line for every setting that would change the result.
    """
    given = settings.model_dump(mode="json")
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


def inherited_plan(plan: Plan) -> Plan:
    """Return the plan of a rank that the first one has started: its folder and checkpoint are in the environment."""
    checkpoint = os.environ.get(CHECKPOINT)
    plan.checkpoint = Path(checkpoint) if checkpoint else None
    return plan


def expected_processes(settings: RunSettings) -> int:
    """Return how many processes train, by the launcher's variables or else by the settings."""
    for name in ("WORLD_SIZE", "SLURM_NTASKS"):
        if os.environ.get(name, "").isdigit():
            return int(os.environ[name])
    return processes_of(settings.trainer.model_dump()) or 1


def inherited_folder() -> Path | None:
    """Return the run folder that the first rank has made, if it has started this process."""
    folder = os.environ.get(FOLDER)
    return Path(folder) if folder else None


def refuse_search_by_ranks(choice: str | None) -> None:
    """Ranks that were started from outside cannot agree on what to resume; they have to be told.

    Raises:
        RunError: If the choice is left to each of them.
    """
    if choice == "auto" and inherited_folder() is None:
        raise RunError("--resume: auto works for processes that visionforge starts itself; name the run folder")
