"""The search itself: trial after trial until enough of them count, the target is reached, or time is up."""

import datetime
import logging
import time
from collections import Counter
from collections.abc import Callable, Sequence

import optuna
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from visionforge.config.schema import RunSettings
from visionforge.errors import TrainingError
from visionforge.tuning.halving import Ladder
from visionforge.tuning.objective import Objective, trial_epochs
from visionforge.tuning.pruners import make_pruner
from visionforge.tuning.samplers import SamplerOfTrial, grid_sampler
from visionforge.tuning.space import Space, Values
from visionforge.tuning.study import minimised
from visionforge.tuning.trials import OWN, REASON, counted, failures_in_a_row, finished, recover, without_owner

log = logging.getLogger(__name__)

OWNER_POLL_S = 0.1
GRID_EXHAUSTED = "the grid is exhausted"


def begin(study: Study, space: Space, starts: Sequence[Values] = (), grid: bool = False) -> None:
    """Put the configuration's own values in line as the first trial, then others; take up what a killed process left.

    Args:
        study: The study.
        space: The space.
        starts: Values that are tried next, if they were not tried yet.
        grid: Every point of a grid is tried, and nothing else.
    """
    if not grid and not study.get_trials(deepcopy=False):
        study.enqueue_trial(space.of_base(), user_attrs={OWN: True}, skip_if_exists=True)
    for values in starts:
        study.enqueue_trial(values, skip_if_exists=True)
    if starts:
        log.info("%d trials of earlier studies are tried first", len(starts))
    recover(study)


def reason_to_stop(
    settings: RunSettings,
    trials: list[FrozenTrial],
    deadline: float | None,
    begun: datetime.datetime = datetime.datetime.min,
) -> str | None:
    """Return why no further trial is begun, or None.

    Args:
        settings: The settings.
        trials: All trials of the study.
        deadline: Time of `time.monotonic` after which none is begun.
        begun: Trials that failed before are no reason: what made them fail may have been mended.

    Raises:
        TrainingError: If too many trials have failed in a row.
    """
    tune = settings.tune
    failed = [trial for trial in failures_in_a_row(trials) if (trial.datetime_complete or begun) >= begun]
    if len(failed) >= tune.max_failures:
        reasons = Counter(str(trial.user_attrs.get(REASON, "unknown")) for trial in failed)
        common, times = reasons.most_common(1)[0]
        raise TrainingError(
            f"tune: {len(failed)} trials in a row failed, so the search stops; the most common reason ({times} of "
            f"{len(failed)}): {common}"
        )
    ladder = Ladder.of(tune, trial_epochs(settings))
    if len(counted(trials)) >= tune.n_trials and (ladder is None or ladder.to_promote(trials) is None):
        return f"all {tune.n_trials} trials are done"
    ended = [trial for trial in finished(trials) if trial.state in (TrialState.COMPLETE, TrialState.PRUNED)]
    single = tune.second_metric is None  # of two objectives, the first is no reason to leave out the second
    if tune.target is not None and single and not minimised(tune.metric) and len(ended) >= tune.target_trials:
        values = [trial.values[0] for trial in ended if trial.state == TrialState.COMPLETE]
        if values and max(values) >= tune.target:
            return f"{tune.metric} {max(values):.4f} has reached the target of {tune.target:g}"
    if deadline is not None and time.monotonic() >= deadline:
        return f"the time of {tune.timeout_minutes:g} minutes is up"
    return None


def search(
    study: Study,
    settings: RunSettings,
    space: Space,
    objective: Objective,
    ended: Callable[[FrozenTrial], None],
    deadline: float | None,
) -> str:
    """Run trials until there is a reason to stop, and return it.

    Args:
        study: The study.
        settings: The settings.
        space: The space.
        objective: Runs a trial.
        ended: Called after every trial.
        deadline: Time of `time.monotonic` after which no trial is begun.

    Raises:
        TrainingError: If too many trials have failed in a row.
        Interrupted: If a signal asked to end.
    """
    study.pruner = make_pruner(settings.tune, trial_epochs(settings))
    study.sampler = SamplerOfTrial(settings.tune, space, settings.seed_everything)
    grid = grid_sampler(space, settings.seed_everything) if settings.tune.sampler == "grid" else None
    begun = datetime.datetime.now()
    while True:
        recover(study)
        if without_owner(study):
            time.sleep(OWNER_POLL_S)  # killed as it began, its place is free: the next trial's values depend on it
            continue
        trials = study.get_trials(deepcopy=False)
        reason = reason_to_stop(settings, trials, deadline, begun)
        if reason is not None:
            return reason
        if grid is not None and grid.is_exhausted(study):
            return GRID_EXHAUSTED
        if grid is not None and grid.waits(study):
            time.sleep(OWNER_POLL_S)
            continue
        study.optimize(objective, n_trials=1, catch=(Exception,), callbacks=[lambda _, trial: ended(trial)])


def quiet_optuna() -> None:
    """Leave it to visionforge to tell of trials."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
