"""Which run a fit goes on with: the one that is named, the newest interrupted one of the same settings, or none."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from visionforge.config.schema import RunSettings
from visionforge.engine.other_data import other_data
from visionforge.errors import SettingsError
from visionforge.runs.config_hash import canonical, six_digits, with_images_of_step
from visionforge.runs.files import refuse_links
from visionforge.runs.manifest import Manifest, read_manifest
from visionforge.runs.paths import is_anchored, outputs_folder, resolve, shown
from visionforge.runs.query import StoredRun, differences, find_checkpoint, stored_runs
from visionforge.runs.scheduler import detect_scheduler
from visionforge.runs.workspace import Workspace
from visionforge.streams import caution

WORDS = ("auto", "never")


def may_go_on(choice: str | None) -> bool:
    """Return whether a fit looks for an interrupted run of its settings: it is asked to, or SLURM has requeued it."""
    scheduler = detect_scheduler()
    requeued = scheduler is not None and scheduler.name == "SLURM" and scheduler.restarts > 0
    return choice == "auto" or (choice is None and requeued)


def interrupted_run(choice: str | None, config: Mapping[str, Any], outputs: Path, processes: int) -> Workspace | None:
    """Return the newest interrupted run that a fit goes on with by itself, or None for a new one.

    Without a choice, a job that SLURM has requeued continues its own run.

    Args:
        choice: `auto`, `never` or None.
        config: The resolved configuration of the fit.
        outputs: The folder of all runs.
        processes: How many processes are going to train.
    """
    scheduler = detect_scheduler()
    if not may_go_on(choice):
        return None
    interrupted = [run for run in stored_runs(outputs)[0] if (run.manifest.stage, run.state) == ("fit", "interrupted")]
    found = [run for run in interrupted if goes_on(run, config, processes)]
    if choice is None:
        assert scheduler is not None
        found = [run for run in found if scheduler.job in _jobs(run)]
    return found[-1].workspace if found else None


def complete_run(config: Mapping[str, Any], outputs: Path, stage: str = "fit") -> StoredRun | None:
    """Return the newest complete run of a resolved configuration, which need not be made again; None if there is none.

    One of a data set that has become another one since, as by a new import, is none.

    Raises:
        RunError: If a link in it leads out of it.
    """
    complete = [run for run in runs_like(config, outputs, stage) if run.state == "complete" and run.metrics]
    for run in reversed(complete):
        if (changed := other_data(run)) is None:
            refuse_links(run.workspace.path)
            return run
        caution(f"{run.name} is not taken as complete: {changed}")
    return None


def runs_like(config: Mapping[str, Any], outputs: Path, stage: str = "fit") -> list[StoredRun]:
    """Return the trainings of a resolved configuration in an outputs folder, oldest first.

    Whoever made them: what goes on from one has the settings that were given, of which it takes no others.
    """
    wanted = canonical(config)
    runs, _ = stored_runs(outputs, six_digits(wanted))
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


def goes_on(run: StoredRun, config: Mapping[str, Any], processes: int) -> bool:
    """Return whether so many processes with a resolved configuration may go on with a run.

    It has the same settings, or at least as many images a step, whoever shares them.
    """
    stored = run.config
    if canonical(stored) == canonical(config):
        return True
    before = with_images_of_step(stored, processes_at_first(run.manifest))
    return canonical(before) == canonical(with_images_of_step(config, processes))


def processes_at_first(manifest: Manifest) -> int | None:
    """Return how many processes have begun a run; None if nothing was trained."""
    counted = (session.hardware.get("processes") for session in manifest.sessions)
    return next((count for count in counted if isinstance(count, int) and count > 0), None)


def sharing_its_images(stored: Mapping[str, Any], given: Mapping[str, Any], run: Workspace) -> Mapping[str, Any]:
    """Return the configuration of a run that is to be continued, by however many devices.

    Its steps keep their number of images, unless the settings say otherwise, which then are compared.

    Args:
        stored: The configuration.
        given: The settings that were given.
        run: The run.
    """
    count, said, data = processes_at_first(read_manifest(run.manifest)), given.get("data"), stored.get("data")
    sizes = {"batch_size", "global_batch_size"}
    if isinstance(data, Mapping) and isinstance(said, Mapping) and not sizes.isdisjoint(said):
        return {**stored, "data": {key: value for key, value in data.items() if key not in sizes}}
    return stored if count is None else with_images_of_step(stored, count)


def require_same_settings(stored: Mapping[str, Any], given: Mapping[str, Any], run: Workspace, processes: int) -> None:
    """Check that a resumed run keeps what identifies it.

    Args:
        stored: Its configuration.
        given: The resolved configuration of the fit that goes on with it.
        run: The run.
        processes: How many processes are going to train.

    Raises:
        SettingsError: With a line for every setting that would change the result.
    """
    before = with_images_of_step(stored, processes_at_first(read_manifest(run.manifest)))
    was, now = (json.loads(canonical(each)) for each in (before, with_images_of_step(given, processes)))
    if was == now or canonical(stored) == canonical(given):  # the latter where the machine says how many devices
        return
    changed = differences(was, now)
    raise SettingsError(
        [
            f"{path}: {new!r} given, {shown(run.path)} was begun with {old!r}; a resumed run keeps its settings "
            "(leave it out, or begin a new run without --resume)"
            for path, (old, new) in changed.items()
        ]
    )
