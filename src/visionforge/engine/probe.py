"""A probe: settings checked, a classifier fitted to the features of a network that stays as it is, and a run of it."""

from collections.abc import Callable
from typing import Any

from visionforge.config.environment import warn_of_environment
from visionforge.config.folds import fold_problems
from visionforge.config.loading import RawConfig
from visionforge.config.problems import value_at
from visionforge.config.schema import ModelSettings, RunSettings
from visionforge.engine.first_imports import import_lightning
from visionforge.engine.fit import Request
from visionforge.engine.folds import FoldRuns, fold_requests, joined_folds, number_of_folds, refuse_seeds, work_on
from visionforge.engine.resume import WORDS, complete_run, outputs_of
from visionforge.engine.run import Run
from visionforge.engine.several_fits import Making, for_each
from visionforge.engine.validation import check_arguments
from visionforge.errors import SettingsError
from visionforge.inference.loading import find_target
from visionforge.runs.logfile import RunLog
from visionforge.runs.query import find_checkpoint
from visionforge.runs.session import PROBE
from visionforge.runs.signals import Interruption

SETTING = "probe.network"
_OF_NETWORK = ("backbone", "tta", "tta_weight", "monitor")  # what a probe reads of the section `model`


def probe_request(raw: RawConfig) -> Request:
    """Check the settings of a probe; those of a run whose network is probed lie underneath.

    What only a training reads is left out, so that probes with the same result are known as the same.

    Args:
        raw: The settings as they were given, and `run`, which is short for `probe.network`.

    Raises:
        VisionForgeError: For every mistake that the user can mend.
    """
    raw = raw.copy()
    if (run := raw.values.pop("run", None)) is not None:
        raw.set(SETTING, str(run), "with --run")
    if (choice := raw.values.get("resume")) not in (None, *WORDS):
        raise SettingsError(f"--resume: {choice}: a probe is made in one go; give the same command again")
    if isinstance(named := value_at(raw.values, SETTING), str):
        checkpoint = find_checkpoint(named, SETTING)
        raw = raw.over(find_target(PROBE, None, str(checkpoint)).config, f"of {checkpoint}")
    settings = check_arguments(raw, PROBE)
    if problems := fold_problems(settings.data, whole=False):
        raise SettingsError(problems)
    return Request(_of_a_probe(for_each(settings, PROBE)), raw.sources, raw.values)


def _of_a_probe(settings: RunSettings) -> RunSettings:
    read = {name: getattr(settings.model, name) for name in _OF_NETWORK}
    return settings.model_copy(update={"model": ModelSettings().model_copy(update=read), "ckpt_path": None})


def probe(request: Request, interruption: Interruption, parent: dict[str, Any] | None = None) -> Run:
    """Fit the classifier, test it, and write everything into a run folder; if it fails, nothing is left.

    Args:
        request: What is probed.
        interruption: Handles the signals.
        parent: What the run comes from, for its manifest.

    Raises:
        VisionForgeError: For every mistake that the user can mend.
        Interrupted: If a signal ended it.
    """
    import_lightning()  # see `fit.fit`
    from visionforge.engine.construction import Construction
    from visionforge.engine.probing import Probing

    with RunLog(request.settings.log_level) as run_log:
        warn_of_environment()
        construction = Construction(request.settings, sources=request.sources, probing=True)
        probing = Probing(construction, run_log, interruption, parent)
        probing.run()
        return Run(probing.workspace)


def complete_probe(request: Request) -> Run | None:
    """Return the newest complete run of a probe; None if there is none, or it is to be made anew."""
    if request.settings.resume == "never":
        return None
    import_lightning()
    from visionforge.engine.construction import Construction

    resolved = Construction(request.settings, sources=request.sources, probing=True).resolved
    known = complete_run(resolved, outputs_of(request.settings), PROBE)
    return None if known is None else Run.of(known)


PROBES = Making(probe_request, probe, complete_probe)


def probe_folds(
    raw: RawConfig,
    folds: int | str,
    interruption: Interruption,
    begun: Callable[[int, int, Run | None], None] = lambda *_: None,
    ended: Callable[[Run], None] = lambda _: None,
    seeds: object = None,
) -> FoldRuns:
    """Fit a classifier for every fold, and join them; see `folds.fit_folds`.

    Args:
        raw: The settings as they were given.
        folds: Number of folds, 2 to 100.
        interruption: Handles the signals.
        begun: Called before each fold.
        ended: Called with each run that was made now.
        seeds: Several seeds were asked for, too, which is refused.

    Raises:
        VisionForgeError: For every mistake that the user can mend, before the first run begins.
        LockedError: If somebody else's process is at one of the folds.
        Interrupted: If a signal ended a run.
    """
    refuse_seeds(seeds)
    requests = fold_requests(raw, number_of_folds(folds), PROBES)
    runs, locked = work_on(requests, interruption, begun, ended, PROBES)
    if locked is not None:
        raise locked
    every = [runs[fold] for fold in range(len(requests))]
    return FoldRuns(every, joined_folds(requests[0], every, interruption))
