"""Which trials count, and those whose process was cut off."""

import datetime
import logging
from collections.abc import Iterable
from pathlib import PurePath
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.search_space import intersection_search_space
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from visionforge.runs.files import within
from visionforge.runs.processes import ProcessId
from visionforge.runs.workspace import Workspace
from visionforge.tuning.folder import StudyFolder

log = logging.getLogger(__name__)

OWNER_WAIT_S = 10.0  # a trial says whose it is within milliseconds of its beginning
# User attributes of a trial
SURPLUS, REASON, OWNER, RUN, RETRY, RETRIES = "surplus", "reason", "owner", "run", "retry_of", "retries"
EARLIER_S = "earlier_seconds"  # that the run took before it was paused
CONTINUES = "continues"  # number of the trial that was paused, or cut off later, and whose run the trial goes on with
EPOCHS = "epochs"  # that the trial has, told when its values are chosen
OWN = "own"  # the trial has the values of the configuration itself


def counted(trials: Iterable[FrozenTrial]) -> list[FrozenTrial]:
    """Return the trials that are part of `n_trials`, by number.

    Not among them are those that still wait, those that were one too many, and those that were cut off and put in line
    again: their retry counts.
    """
    trials = list(trials)
    retried = {trial.user_attrs.get(RETRY) for trial in trials if not trial.user_attrs.get(SURPLUS)}
    return sorted(
        (
            trial
            for trial in trials
            if trial.state != TrialState.WAITING and not trial.user_attrs.get(SURPLUS) and trial.number not in retried
        ),
        key=lambda trial: trial.number,
    )


def first_attempts(trials: Iterable[FrozenTrial]) -> dict[int, int]:
    """Return the number of every trial → that under which its values were first tried.

    Trials that are equal otherwise are told apart by it: a trial that was cut off, or waited, has a later number.
    """
    first: dict[int, int] = {}
    for trial in sorted(trials, key=lambda trial: trial.number):  # a retry comes after what it tries again
        before = trial.user_attrs.get(RETRY)
        first[trial.number] = first.get(before, trial.number) if isinstance(before, int) else trial.number
    return first


def epochs_of(trial: FrozenTrial) -> int:
    """Return how many epochs a trial was trained for, as far as it has told: up to its last validated one."""
    return max(trial.intermediate_values, default=-1) + 1


def spent_s(trial: FrozenTrial) -> float | None:
    """Return how long a trial took, in seconds, and what it goes on with before it; None while it runs."""
    if trial.duration is None:
        return None
    return trial.duration.total_seconds() + float(trial.user_attrs.get(EARLIER_S) or 0.0)


def run_of(trial: FrozenTrial, folder: StudyFolder) -> Workspace | None:
    """Return the run of a trial, in the study's own folder, wherever that lies now; None if it says none.

    Raises:
        RunError: If a link leads out of the folder.
    """
    run = trial.user_attrs.get(RUN)
    name = PurePath(run).name if isinstance(run, str) else ""
    return Workspace(within(folder.path, folder.trials.name, name)) if name else None


def finished(trials: Iterable[FrozenTrial]) -> list[FrozenTrial]:
    """Return the trials that count and have ended."""
    return [trial for trial in counted(trials) if trial.state.is_finished()]


def failures_in_a_row(trials: Iterable[FrozenTrial]) -> list[FrozenTrial]:
    """Return the failed trials since the last that did not fail, in the order in which they ended."""
    ended = sorted(finished(trials), key=lambda trial: trial.datetime_complete or datetime.datetime.min)
    row: list[FrozenTrial] = []
    for trial in reversed(ended):
        if trial.state != TrialState.FAIL:
            break
        row.insert(0, trial)
    return row


def common_space(trials: Iterable[FrozenTrial]) -> dict[str, BaseDistribution]:
    """Return the parameters that all trials have; the configuration's own values are no reason to lack one.

    Its values outside their ranges are no parameters of its trial, which is always completed.

    Args:
        trials: Trials that have ended.
    """
    found = intersection_search_space([trial for trial in trials if not trial.user_attrs.get(OWN)])
    return {name: distribution for name, distribution in found.items() if not distribution.single()}


def put_in_line(study: Study, trial: FrozenTrial, times: int = 1) -> None:
    """Let the values of a trial that was cut off be tried again.

    Args:
        study: The study.
        trial: The trial; it has failed already.
        times: How often at most; a trial that kills its process each time must not do so for ever.
    """
    before = int(trial.user_attrs.get(RETRIES, 0))
    if before < times and (params := _values_of(trial)) is not None:
        kept: dict[str, Any] = {OWN: True} if trial.user_attrs.get(OWN) else {}
        if CONTINUES in trial.user_attrs:  # with its run, or with that of the one before if it did not come so far
            kept[CONTINUES] = trial.number if RUN in trial.user_attrs else trial.user_attrs[CONTINUES]
        study.enqueue_trial(params, user_attrs={**kept, RETRY: trial.number, RETRIES: before + 1})


def _values_of(trial: FrozenTrial) -> dict[str, Any] | None:
    """Return the values of a trial; None if its process was killed while the sampler chose them."""
    fixed = trial.system_attrs.get("fixed_params")
    if fixed is not None:  # it was itself a retry, or the study's first
        return {**fixed, **trial.params}
    return trial.params if EPOCHS in trial.user_attrs else None


def cut_off(study: Study, trial: FrozenTrial, reason: str, times: int = 1) -> bool:
    """Fail a trial that says it is running, and put its values in line again; see `put_in_line`.

    Returns:
        Whether this process did it: another worker may have been faster.
    """
    storage = study._storage
    try:
        storage.set_trial_user_attr(trial._trial_id, REASON, reason)
        if _values_of(trial) is None:  # the next trial takes its place, and is given the same values
            storage.set_trial_user_attr(trial._trial_id, SURPLUS, True)
        if not storage.set_trial_state_values(trial._trial_id, TrialState.FAIL):
            return False
    except optuna.exceptions.UpdateFinishedTrialError:
        return False
    put_in_line(study, trial, times)
    return True


def without_owner(study: Study) -> list[FrozenTrial]:
    """Return the running trials that do not say whose they are: just begun, or killed in that moment."""
    running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    return [trial for trial in running if _owner(trial) is None]


def _owner(trial: FrozenTrial) -> ProcessId | None:
    """Return whose a trial is; None if it does not say, or says what is no process."""
    try:
        return ProcessId.from_dict(trial.user_attrs[OWNER])
    except (KeyError, ValueError):
        return None


def lives_here(trial: FrozenTrial) -> bool:
    """Return whether the process of a trial is one of this machine, and lives."""
    owner = _owner(trial)
    return owner is not None and owner.find() is not None


def recover(study: Study) -> list[FrozenTrial]:
    """Cut off the trials whose process is known to be dead, say so, and return them.

    Every worker looks for them, and one of them is the first: it alone says so and has them in its list.
    """
    found = []
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        owner = _owner(trial)
        if owner is None:
            age = datetime.datetime.now() - (trial.datetime_start or datetime.datetime.min)
            dead = age.total_seconds() > OWNER_WAIT_S
        else:
            dead = not owner.may_live()
        if dead and cut_off(study, trial, "its process was killed"):
            log.warning("trial %d was cut off; its values are tried again", trial.number)
            found.append(trial)
    return found
