"""Cross-validation: a network for every fold, and all of them as one."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from visionforge.config.folds import fold_problems
from visionforge.config.loading import RawConfig
from visionforge.engine.ensembles import make_ensemble
from visionforge.engine.fit import Request, fit, request_of
from visionforge.engine.resume import WORDS, complete_run, outputs_of
from visionforge.engine.run import Run
from visionforge.errors import SettingsError
from visionforge.runs.config_hash import processes_of
from visionforge.runs.locks import LockedError
from visionforge.runs.signals import Interruption

FLAG = "--folds"
# number of the fold, folds in all, and a run that is complete already
Begun = Callable[[int, int, Run | None], None]


@dataclass(frozen=True)
class FoldRuns:
    """The networks of a cross-validation.

    Attributes:
        runs: One run for every fold, in their order.
        ensemble: All of them as one; None where they cannot be joined, as networks that find boxes.
    """

    runs: list[Run]
    ensemble: Run | None


def fold_requests(raw: RawConfig, folds: int) -> list[Request]:
    """Check the settings of a cross-validation, and return a fit for every fold.

    Args:
        raw: The settings as they were given.
        folds: Number of folds, at least 2.

    Raises:
        VisionForgeError: For every mistake that the user can mend.
    """
    choice = raw.values.get("resume")
    if choice not in (None, *WORDS):
        raise SettingsError(f"--resume: {choice} is one run, {FLAG} are several; allowed: {', '.join(WORDS)}")
    data = raw.values.get("data")
    data = data if isinstance(data, dict) else {}
    if data.get("fold") is not None:
        raise SettingsError(f"data.fold: {data['fold']} is one fold, {FLAG} trains them all; leave one of them out")
    if data.get("folds") not in (None, folds):
        raise SettingsError(f"data.folds: {data['folds']} and {FLAG} {folds} differ; leave one of them out")
    raw = raw.copy()
    raw.merge({"data": {"folds": folds, "fold": 0}}, f"with {FLAG}")
    request = request_of(raw)
    settings = request.settings
    if problems := fold_problems(settings.data, whole=False):
        raise SettingsError(problems)
    if processes_of(settings.trainer.model_dump()) is not None:
        raise SettingsError(f"trainer.devices: with {FLAG}, each run is on one device; set it to 1")
    anew, trainer = settings.resume == "never", settings.trainer
    if trainer.devices in ("auto", -1, "-1"):
        trainer = trainer.model_copy(update={"devices": 1})
    return [
        replace(
            request,
            settings=settings.model_copy(
                update={
                    "trainer": trainer,
                    "data": settings.data.model_copy(update={"fold": fold}),
                    "resume": "never" if anew else "auto",
                }
            ),
        )
        for fold in range(folds * settings.data.fold_repeats)
    ]


def fit_folds(
    raw: RawConfig,
    folds: int,
    interruption: Interruption,
    begun: Begun = lambda *_: None,
    ended: Callable[[Run], None] = lambda _: None,
) -> FoldRuns:
    """Fit a network for every fold, and join them.

    A complete run of a fold is taken as it is, and an interrupted one is continued, so that the same call finishes what
    was interrupted. Several processes may make the same call at once: each takes folds that no other is at.

    Args:
        raw: The settings as they were given.
        folds: Number of folds, at least 2.
        interruption: Handles the signals.
        begun: Called before each fold.
        ended: Called with each run that was trained now.

    Raises:
        VisionForgeError: For every mistake that the user can mend, before the first run begins.
        LockedError: If another process is still at one of the folds.
        Interrupted: If a signal ended a run.
    """
    requests = fold_requests(raw, folds)
    runs: dict[int, Run] = {}
    locked: dict[int, LockedError] = {}
    for fold, request in enumerate(requests):
        done = None if request.settings.resume == "never" else _complete(request)
        begun(fold, len(requests), done)
        if done is None:
            try:
                done = fit(request, interruption)
            except LockedError as error:  # another process is at it
                locked[fold] = error
                continue
            ended(done)
        runs[fold] = done
    for fold, reason in locked.items():  # they may have ended by now
        done = _complete(requests[fold])
        if done is None:
            raise reason
        runs[fold] = done
    return FoldRuns([runs[fold] for fold in range(len(requests))], _joined(requests[0], runs, interruption))


def _complete(request: Request) -> Run | None:
    from visionforge.engine.construction import Construction  # seconds

    resolved = Construction(request.settings, sources=request.sources).resolved
    known = complete_run(resolved, outputs_of(request.settings))
    return None if known is None else Run.of(known)


def _joined(request: Request, runs: dict[int, Run], interruption: Interruption) -> Run | None:
    from visionforge.config.schema.tasks import task_named
    from visionforge.data.registry import dataset_info

    settings = request.settings
    if task_named(dataset_info(settings.data.dataset, settings.data.synthetic).task).detects:
        return None
    every = [runs[fold] for fold in sorted(runs)]
    return make_ensemble(every, interruption, outputs_of(settings), anew=settings.resume == "never")
