"""Cross-validation: a network for every fold, and all of them as one."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pydantic_core import PydanticSerializationError

from visionforge.config.loading import RawConfig, switched
from visionforge.config.schema import RunSettings
from visionforge.engine.distillation import SETTING as TEACHER
from visionforge.engine.distillation import student_request, taught_by, without_distillation
from visionforge.engine.ensembles import make_ensemble
from visionforge.engine.fit import Request, fit
from visionforge.engine.resume import outputs_of
from visionforge.engine.run import Run
from visionforge.engine.several_fits import FITS, Making, complete_fit, for_each, refuse_one_run
from visionforge.engine.worker_processes import Process, end_workers, start_worker
from visionforge.errors import SettingsError
from visionforge.runs.locks import LockedError
from visionforge.runs.signals import Interruption

FLAG = "--folds"
POLL_S = 0.2
MOST = 100
# number of the fold, folds in all, and a run that is complete already
Begun = Callable[[int, int, Run | None], None]


@dataclass(frozen=True)
class FoldRuns:
    """The networks of a cross-validation.

    Attributes:
        runs: One run for every fold, in their order.
        ensemble: All of them as one; None where they cannot be joined, as networks that find boxes.
        student: The network that has learnt from all of them, if one was asked for.
    """

    runs: list[Run]
    ensemble: Run | None
    student: Run | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return them as plain values; see `Run.as_dict`."""
        together = {"ensemble": self.ensemble, "student": self.student}
        return {
            "runs": [run.as_dict() for run in self.runs],
            **{name: None if run is None else run.as_dict() for name, run in together.items()},
        }


def fold_requests(raw: RawConfig, folds: int, making: Making = FITS) -> list[Request]:
    """Check the settings of a cross-validation, and return a fit for every fold.

    Args:
        raw: The settings as they were given.
        folds: Number of folds, at least 2.
        making: What is made of each, a fit or a probe.

    Raises:
        VisionForgeError: For every mistake that the user can mend.
    """
    refuse_one_run(raw, FLAG)
    data = raw.values.get("data")
    data = data if isinstance(data, dict) else {}
    if data.get("fold") is not None:
        raise SettingsError(f"data.fold: {data['fold']} is one fold, {FLAG} trains them all; leave one of them out")
    if data.get("folds") not in (None, folds):
        raise SettingsError(f"data.folds: {data['folds']} and {FLAG} {folds} differ; leave one of them out")
    raw = raw.copy()
    raw.merge({"data": {"folds": folds, "fold": 0}}, f"with {FLAG}")
    request = making.request_of(raw)
    return [replace(request, settings=each) for each in of_each_fold(for_each(request.settings, FLAG))]


def of_each_fold(settings: RunSettings) -> list[RunSettings]:
    """Return the settings of the fit of every fold."""
    data = settings.data
    assert data.folds is not None
    return [
        settings.model_copy(update={"data": data.model_copy(update={"fold": fold})})
        for fold in range(data.folds * data.fold_repeats)
    ]


def fit_folds(
    raw: RawConfig,
    folds: int | str | None,
    interruption: Interruption,
    begun: Begun = lambda *_: None,
    ended: Callable[[Run], None] = lambda _: None,
    workers: int | str | None = None,
    seeds: object = None,
    distill: object = None,
) -> FoldRuns:
    """Fit a network for every fold, and join them; and one that learns from them all, if it is asked for.

    A complete run of a fold is taken as it is, and an interrupted one is continued, so that the same call finishes what
    was interrupted. Several processes may make the same call at once: each takes folds that no other is at.

    Args:
        raw: The settings as they were given.
        folds: Number of folds, 2 to 100.
        interruption: Handles the signals.
        begun: Called before each fold that this process trains or finds complete.
        ended: Called with each run that this process has trained.
        workers: Processes of this machine that share the folds, this one among them; None is 1.
        seeds: Several seeds were asked for, too, which is refused.
        distill: A student is asked for, a switch or its text.

    Raises:
        VisionForgeError: For every mistake that the user can mend, before the first run begins.
        LockedError: If somebody else's process is still at one of the folds.
        Interrupted: If a signal ended a run; the other processes are ended, too.
    """
    requests = requests_of_folds(raw, folds, seeds, distill)
    student = student_request(raw, requests[0]) if switched("--distill", distill) else None
    workers = min(1 if workers is None else _number("--workers", workers, 1), len(requests))
    _require_sendable(requests[0].settings, workers)
    started: list[Process] = []
    try:
        if workers > 1:
            started = [_start(requests[0].settings, number, workers) for number in range(1, workers)]
        runs, _ = work_on(requests, interruption, begun, ended)
        for process in started:
            while process.poll() is None:
                interruption.check()
                time.sleep(POLL_S)
    finally:
        with interruption.deferred():
            end_workers(started)
    left = [request for request in requests if request.settings.data.fold not in runs]
    more, locked = work_on(left, interruption, begun, ended)
    if locked is not None:
        raise locked
    runs |= more
    every = [runs[fold] for fold in range(len(requests))]
    ensemble = joined_folds(requests[0], every, interruption)
    if student is None or ensemble is None:
        return FoldRuns(every, ensemble)
    student = taught_by(student, ensemble)
    return FoldRuns(every, ensemble, complete_fit(student) or fit(student, interruption))


def requests_of_folds(
    raw: RawConfig, folds: int | str | None, seeds: object, distill: object, making: Making = FITS
) -> list[Request]:
    """Check what is asked for, and return a fit for every fold; see `fit_folds`.

    Raises:
        VisionForgeError: For every mistake that the user can mend.
    """
    asked = switched("--distill", distill)
    if asked and folds is None:
        raise SettingsError(f"--distill: is for {FLAG}; a network learns from any other run by {TEACHER}")
    refuse_seeds(seeds)
    if folds is None:
        raise SettingsError(f"--workers: is for {FLAG}; say how many folds there are")
    return fold_requests(without_distillation(raw) if asked else raw, number_of_folds(folds), making)


def refuse_seeds(seeds: object) -> None:
    """Refuse several seeds.

    Raises:
        SettingsError: If there are any.
    """
    if seeds is not None:
        raise SettingsError(f"--seeds: is not for {FLAG}; data.fold_repeats divides the images several times")


def number_of_folds(given: int | str) -> int:
    """Return the number of folds that a flag says.

    Raises:
        SettingsError: If it is none.
    """
    return _number(FLAG, given, 2)


def _number(flag: str, given: int | str, least: int) -> int:
    text = str(given).strip()
    if not text.isdecimal() or not least <= int(text) <= MOST:
        raise SettingsError(f"{flag}: {text} is not allowed; allowed: a whole number, {least} to {MOST}")
    return int(text)


def work_on(
    requests: Sequence[Request],
    interruption: Interruption,
    begun: Begun = lambda *_: None,
    ended: Callable[[Run], None] = lambda _: None,
    making: Making = FITS,
) -> tuple[dict[int, Run], LockedError | None]:
    """Fit folds that nobody else is at.

    Returns:
        Fold → run, of those that are complete; and why one was left to another process.
    """
    runs: dict[int, Run] = {}
    locked = None
    for request in requests:
        fold = request.settings.data.fold
        assert fold is not None
        done = making.complete(request)
        if done is None:
            begun(fold, _count(request), None)
            try:
                done = making.make(request, interruption)
            except LockedError as error:
                locked = error
                continue
            ended(done)
        else:
            begun(fold, _count(request), done)
        runs[fold] = done
    return runs, locked


def _count(request: Request) -> int:
    data = request.settings.data
    return (data.folds or 0) * data.fold_repeats


def _require_sendable(settings: RunSettings, workers: int) -> None:
    if workers == 1:
        return
    if settings.resume == "never":
        raise SettingsError("workers: several share folds by what is complete, so --resume never is for one")
    try:
        settings.model_dump_json(exclude_unset=True)
    except PydanticSerializationError as error:
        raise SettingsError(
            "workers: callbacks and loggers that are objects stay in this process; name their classes, or use one"
        ) from error


def _start(settings: RunSettings, number: int, workers: int) -> Process:
    quiet = settings.model_copy(update={"log_level": "warning"})
    sent = quiet.model_dump_json(exclude_unset=True).encode()
    return start_worker("visionforge.engine.fold_worker", sent, number, workers, settings.trainer.accelerator)


def joined_folds(request: Request, runs: Sequence[Run], interruption: Interruption) -> Run | None:
    """Return the networks of all folds as one; None where they cannot be joined, as those that find boxes."""
    from visionforge.config.schema.tasks import task_named
    from visionforge.data.registry import dataset_info

    settings = request.settings
    if task_named(dataset_info(settings.data.dataset, settings.data.synthetic).task).detects:
        return None
    anew, outputs = settings.resume == "never", outputs_of(settings)
    return make_ensemble(runs, interruption, outputs, anew, settings.log_level)
