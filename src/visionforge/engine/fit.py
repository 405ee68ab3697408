"""A fit: settings checked, a run folder made or taken up again, training, the test of the best checkpoint, a report."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from visionforge.config.environment import strict_defaults, warn_of_environment
from visionforge.config.folds import fold_problems
from visionforge.config.loading import RawConfig, is_first_process, switched
from visionforge.config.problems import value_at
from visionforge.config.schema import RunSettings
from visionforge.config.schema.model import AUTO as UNSETTLED
from visionforge.config.seeding import STRICT_VARIABLE
from visionforge.engine.distributed import (
    CHECKPOINT,
    expected_processes,
    inherited_checkpoint,
    refuse_search_by_ranks,
    told_to_ranks,
)
from visionforge.engine.first_imports import import_lightning
from visionforge.engine.resume import (
    WORDS,
    interrupted_run,
    may_go_on,
    outputs_of,
    require_same_settings,
    sharing_its_images,
)
from visionforge.engine.run import Run
from visionforge.engine.slurm import refuse_other_tasks
from visionforge.engine.team import Team, current_team
from visionforge.engine.validation import AUTO, check_arguments, settings_of
from visionforge.errors import RunError, SettingsError
from visionforge.inference.trust import FLAG, training_config
from visionforge.runs.logfile import RunLog
from visionforge.runs.paths import resolve
from visionforge.runs.query import find_checkpoint, find_run
from visionforge.runs.session import FOLDER, ActiveRun
from visionforge.runs.signals import Interruption
from visionforge.runs.workspace import Workspace

if TYPE_CHECKING:  # torch and Lightning take seconds
    from visionforge.engine.construction import Construction


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


@dataclass(frozen=True)
class Origin:
    """What a new run comes from, if it is not made for its own sake.

    Attributes:
        parent: What the manifest says of it.
        trial: The fit is a trial of a study.
    """

    parent: dict[str, Any] | None = None
    trial: TrialPart | None = None


@dataclass(frozen=True)
class Request:
    """A fit whose settings are checked.

    Attributes:
        settings: The settings.
        sources: Dotted path → where it was written.
        given: The settings as they were given, for the other ranks.
        run: A run that was named to be continued.
        stored: The configuration of that run.
        profile: It is also measured where the time goes.
        open_weights: Nobody has said whether the network begins with pretrained weights.
    """

    settings: RunSettings
    sources: Mapping[str, str]
    given: Mapping[str, Any] = field(default_factory=dict)
    run: Workspace | None = None
    stored: Mapping[str, Any] | None = None
    profile: bool = False
    open_weights: bool = False


def require_subject(raw: RawConfig) -> None:
    """Refuse a fit of which nothing is said: it would begin with a download that nobody has asked for.

    Raises:
        SettingsError: With what can be typed.
    """
    told = {name: value for name, value in raw.values.items() if name != "resume" or value not in WORDS}
    usual = RawConfig()
    for path, value in strict_defaults().items():
        usual.set(path, value, "")
    if told == usual.values:
        raise SettingsError(
            "fit: say what is trained on; type: visionforge fit --config quickstart (real digits, no download), "
            "visionforge fit photos/ (yours), or visionforge fit --data.dataset bloodmnist (a download)"
        )


def request_of(raw: RawConfig, here: bool = True) -> Request:
    """Check the settings of a fit; those of a run that it goes on with lie underneath.

    Args:
        raw: The settings as they were given, and `trust`, the name of a run whose classes may be built.
        here: Whether this machine is the one that trains.

    Raises:
        VisionForgeError: For every mistake that the user can mend.
    """
    given, raw = raw.values, raw.copy()
    choice, trust = raw.values.get("resume"), raw.values.pop("trust", None)
    profile = switched("--profile", raw.values.pop("profile", None))
    run = None if choice is None or choice in WORDS else find_run(str(choice), "--resume")
    if run is None:
        if trust is not None:
            raise SettingsError(f"{FLAG}: is for a run that is continued; name it with --resume, too")
        settings = check_arguments(raw, "fit", here)
        if problems := fold_problems(settings.data, whole=False):  # a search may leave it open
            raise SettingsError(problems)
        _require_checkpoint(settings.ckpt_path)
        if (teacher := settings.model.distillation.teacher) is not None:
            find_checkpoint(teacher, "model.distillation.teacher")
        _require_one_profiler(settings, profile)
        left_open = value_at(raw.values, "model.backbone.pretrained") in (None, UNSETTLED)
        return Request(settings, raw.sources, _settled(given, settings), profile=profile, open_weights=left_open)
    stored = training_config(run, None if trust is None else str(trust), "--resume")
    shared = sharing_its_images(stored, given, run)
    raw = raw.over(shared, f"in {run.config}")
    settings = check_arguments(raw, "fit", here)
    if (together := settings.data.global_batch_size) is not None:  # other ranks may see the run as this one leaves it
        given = {**given, "data": {**(given.get("data") or {}), "global_batch_size": together}}
    _require_one_profiler(settings, profile)
    return Request(settings, raw.sources, _settled(given, settings), run, stored, profile)


def _settled(given: Mapping[str, Any], settings: RunSettings) -> Mapping[str, Any]:
    """Return what other ranks are told, who are to go by what this one has chosen, not by what they would."""
    told, trainer, model = dict(given), given.get("trainer"), given.get("model", {})
    if isinstance(trainer, Mapping) and trainer.get("precision") == AUTO:
        told["trainer"] = {**trainer, "precision": settings.trainer.precision}
    if isinstance(model, Mapping) and isinstance(backbone := model.get("backbone", {}), Mapping):
        told["model"] = {**model, "backbone": {**backbone, "pretrained": settings.model.backbone.pretrained}}
    return told


def _with_other_weights(request: Request) -> "Construction | None":
    """Return a training for which `pretrained: auto` has become the opposite, as where weights could (not) be had.

    None if there can be none: nobody publishes weights for the backbone, or something asks for them.
    """
    from visionforge.engine.construction import Construction

    settings = request.settings
    backbone = settings.model.backbone
    other = backbone.model_copy(update={"pretrained": not backbone.pretrained})
    settings = settings.model_copy(update={"model": settings.model.model_copy(update={"backbone": other})})
    try:
        return Construction(settings, sources=request.sources)
    except SettingsError:
        return None


def _require_one_profiler(settings: RunSettings, profile: bool) -> None:
    if profile and (settings.trainer.model_extra or {}).get("profiler") is not None:
        raise SettingsError("--profile: trainer.profiler names another; leave one of them out")


def _require_checkpoint(text: str | None) -> None:
    if text is not None and not resolve(text).is_file():
        raise RunError(
            f"ckpt_path: {text} does not exist; name a checkpoint file to begin from, or continue an "
            "interrupted run with --resume RUN"
        )


def fit(request: Request, interruption: Interruption, origin: Origin | None = None) -> Run:
    """Train, test the best checkpoint, and write everything into the run folder.

    Args:
        request: What is trained.
        interruption: Handles the signals.
        origin: What the run comes from.

    Returns:
        The run.

    Raises:
        VisionForgeError: For every mistake that the user can mend.
        Interrupted: If a signal ended the fit.
    """
    settings, origin = request.settings, origin or Origin()
    if settings.trainer.deterministic:
        os.environ.setdefault(*STRICT_VARIABLE)  # read once, when CUDA starts
    first, team = is_first_process(), current_team()
    if not first and team is None:
        refuse_search_by_ranks(settings.resume)

    import_lightning()  # which sets up its loggers here, so this comes before our own
    from visionforge.engine.construction import Construction
    from visionforge.engine.distributed import current_rank
    from visionforge.engine.training import Training

    quiet = origin.trial is not None and settings.log_level != "debug"  # the study tells of its trials
    with RunLog("error" if quiet else settings.log_level, current_rank()) as run_log:
        warn_of_environment()
        construction = Construction(settings, sources=request.sources)
        refuse_other_tasks(construction.settings)
        run = _continued(request, construction, first)
        if run is None and first and request.open_weights and may_go_on(settings.resume):
            other = _with_other_weights(request)
            if other is not None and (run := _continued(request, other, first)) is not None:
                construction, request = other, replace(request, given=_settled(request.given, other.settings))
        with (
            _following(None if first else team),
            _reopened(run, first) as (active, checkpoint),
            told_to_ranks(request.given, first),
        ):
            training = Training(construction, run_log, interruption, origin, active, checkpoint, request.profile)
            training.run()
        return Run(training.workspace)


@contextmanager
def _following(team: Team | None) -> Iterator[None]:
    """Take from the first process of a launcher, if there is one, which run is trained and what it goes on from."""
    if team is None:
        yield
        return
    decided = {name: value for name, value in team.follow().items() if name in (FOLDER, CHECKPOINT) and value}
    os.environ.update(decided)
    try:
        yield
    finally:
        for name in decided:
            os.environ.pop(name, None)


def _continued(request: Request, construction: "Construction", first: bool) -> Workspace | None:
    """Return the run that the fit goes on with, or None for a new one."""
    settings = construction.settings
    processes = expected_processes(settings)
    if request.run is not None:
        assert request.stored is not None
        require_same_settings(_resolved(request.stored), construction.resolved, request.run, processes)
        return request.run
    return interrupted_run(settings.resume, construction.resolved, outputs_of(settings), processes) if first else None


def _resolved(stored: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a stored configuration as it would be stored now: earlier versions wrote classes by their short names."""
    from visionforge.engine.construction import Construction

    try:
        return Construction(settings_of(stored)).resolved
    except SettingsError:  # what it says is compared as it stands
        return stored


@contextmanager
def _reopened(run: Workspace | None, first: bool) -> Iterator[tuple[ActiveRun | None, Path | None]]:
    """Lock a run and choose what it continues from; the other ranks, started by the first, are told what it chose."""
    if not first:
        yield None, inherited_checkpoint() or (None if run is None else _choose(run))
        return
    if run is None:
        yield None, None
        return
    active = ActiveRun.reopen(run)
    try:
        checkpoint = _choose(run)
        os.environ[CHECKPOINT] = str(checkpoint or "")
        yield active, checkpoint
    except BaseException as error:
        if active.manifest.state == "running":  # nobody has written how it ended: it did not come that far
            active.finish("interrupted", str(error) or type(error).__name__)
        raise
    finally:
        os.environ.pop(CHECKPOINT, None)


def _choose(run: Workspace) -> Path | None:
    from visionforge.training.checkpoints import checkpoint_to_resume

    return checkpoint_to_resume(run.checkpoints)
