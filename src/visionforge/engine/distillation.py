"""What a fit has to do with a teacher: which one it is, what it may have learnt, and the student of an ensemble."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from visionforge.config.loading import RawConfig
from visionforge.config.schema import DataSettings, RunSettings
from visionforge.config.schema.data import FOLD_POOLS
from visionforge.engine.fit import Request
from visionforge.engine.run import Run
from visionforge.engine.validation import check_arguments
from visionforge.errors import RunError, SettingsError
from visionforge.evaluation.metric_names import metric_name
from visionforge.fetch import Checksum
from visionforge.reading import UnreadableError, read_yaml
from visionforge.runs.paths import portable, shown
from visionforge.runs.query import READINGS, find_checkpoint
from visionforge.runs.session import ActiveRun
from visionforge.runs.workspace import Workspace

FLAG = "--distill"
SETTING = "model.distillation.teacher"
_DIVISION = ("folds", "fold", "fold_pool", "fold_repeats", "fold_seed")  # of images into training and test
_TOLD = ("auc", "accuracy")  # metrics that are printed of a student


# --- any teacher


def require_untaught(settings: RunSettings) -> None:
    """Refuse a teacher that has learnt images on which the student is tested.

    That can only be if either of them divides the test split into folds, too. Of a checkpoint that lies in no run it is
    not known.

    Raises:
        SettingsError: If it has.
    """
    assert settings.model.distillation.teacher is not None
    checkpoint = find_checkpoint(settings.model.distillation.teacher, SETTING)
    theirs = _stored_data(checkpoint)
    mine = settings.data.model_dump(mode="json")
    if theirs.get("dataset") != mine["dataset"] or theirs.get("synthetic", mine["synthetic"]) != mine["synthetic"]:
        return
    one, other = _division(mine), _division(theirs)
    if one != other and any(each and "test" in FOLD_POOLS.get(str(each["fold_pool"]), ()) for each in (one, other)):
        raise SettingsError(
            f"{SETTING}: {shown(checkpoint)} has learnt images on which this fit is tested, because data.fold_pool is "
            "all for one of them; name a teacher whose folds are divided in the same way and hold out the same one"
        )


def _stored_data(checkpoint: Path) -> Mapping[str, Any]:
    try:
        content = read_yaml(Workspace(checkpoint.parent.parent).config)
    except (OSError, UnreadableError):
        return {}
    data = content.get("data") if isinstance(content, dict) else None
    return data if isinstance(data, dict) else {}


def _division(data: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return how the images are divided; None for the splits of the archive."""
    if data.get("folds") is None:
        return None
    return {name: data.get(name, DataSettings.model_fields[name].default) for name in (*_DIVISION, "groups")}


def describe_teacher(active: ActiveRun, teacher: str) -> None:
    """Write into the manifest which file is learnt from; a resumed run has to learn from the same.

    Raises:
        RunError: If it is another than the run was begun with.
    """
    checkpoint = find_checkpoint(teacher, SETTING)
    found = {"checkpoint": portable(checkpoint), "sha256": Checksum("sha256", "").of(checkpoint)}
    before = (active.manifest.teacher or {}).get("sha256")
    if before not in (None, found["sha256"]):
        raise RunError(
            f"{SETTING}: {shown(checkpoint)} has SHA-256 {found['sha256']}, the run was begun with {before}; put that "
            "file back, or begin a new run"
        )
    active.update(teacher=found)


# --- the student of an ensemble of folds


def without_distillation(raw: RawConfig) -> RawConfig:
    """Return the settings of those whom the student learns from.

    Raises:
        SettingsError: If a teacher is named, too.
    """
    raw = raw.copy()
    model = raw.values.get("model")
    given = model.pop("distillation", None) if isinstance(model, dict) else None
    if isinstance(given, dict) and given.get("teacher") is not None:
        raise SettingsError(
            f"{SETTING}: {given['teacher']} is given, with {FLAG} it is the ensemble of the folds; leave one of them "
            "out"
        )
    return raw


def student_request(raw: RawConfig, of_fold: Request) -> Request:
    """Check the settings of the student, whose teacher is not there yet; it keeps the splits of the archive.

    Args:
        raw: The settings as they were given.
        of_fold: The fit of a fold.

    Raises:
        VisionForgeError: For every mistake that the user can mend.
    """
    if "test" in FOLD_POOLS[of_fold.settings.data.fold_pool]:
        raise SettingsError(
            f"{FLAG}: is not for data.fold_pool {of_fold.settings.data.fold_pool}, which leaves no split to test the "
            "student on; leave one of them out"
        )
    raw = raw.copy()
    if isinstance(data := raw.values.get("data"), dict):
        for name in _DIVISION:
            data.pop(name, None)
    raw.merge({"model": {"distillation": {"teacher": "ensemble"}}}, f"with {FLAG}")
    same = {"trainer": of_fold.settings.trainer, "resume": of_fold.settings.resume}
    settings = check_arguments(raw, "fit").model_copy(update=same)
    return Request(settings, raw.sources, raw.values)


def taught_by(request: Request, ensemble: Run) -> Request:
    """Return the fit of a student, whose teacher is there now."""
    model = request.settings.model
    distillation = model.distillation.model_copy(update={"teacher": str(ensemble.path.resolve())})
    model = model.model_copy(update={"distillation": distillation})
    return replace(request, settings=request.settings.model_copy(update={"model": model}))


def student_text(student: Run, ensemble: Run) -> str:
    """Return in a line how well a student does on the test split, beside the ensemble that it has learnt from."""
    own, its = student.result.content, ensemble.result.content
    reading = next((name for name in reversed(READINGS) if own.get(name) and its.get(name)), None)
    pairs = [] if reading is None else [(name, own[reading].get(name), its[reading].get(name)) for name in _TOLD]
    told = [f"{metric_name(name, None)} {a:.4f} (ensemble {b:.4f})" for name, a, b in pairs if None not in (a, b)]
    return ", ".join([*told, str(shown(student.path))])
