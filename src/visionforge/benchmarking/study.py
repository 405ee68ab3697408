"""The study of a benchmark: its cells put in line, claimed by workers, and what has become of each."""

import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import optuna
from optuna.pruners import NopPruner
from optuna.samplers import RandomSampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from visionforge.benchmarking.plan import Cell
from visionforge.config.schema import BenchmarkSettings
from visionforge.errors import VisionForgeError
from visionforge.runs.files import refuse_links
from visionforge.runs.locks import held
from visionforge.tuning.folder import StudyFolder
from visionforge.tuning.storage import LOCK_WAIT_S, open_storage
from visionforge.tuning.study import ask_in_turn, load_study
from visionforge.tuning.trials import REASON, RETRIES, RETRY, SURPLUS, counted, recover

log = logging.getLogger(__name__)

CELL = "cell"  # the one parameter of a trial: the key of its cell
RECORD, AGAIN, SPENT = "record", "again", "spent"  # user attributes of a trial
WITHOUT_DATA = "without_data"  # user attribute of the study: place of data that cannot be had → why
State = Literal["complete", "failed", "running", "waiting", "new", "refused"]


@dataclass(frozen=True)
class BenchmarkFolder(StudyFolder):
    """Where a benchmark lies: ``OUTPUTS/benchmarks/NAME``."""

    @property
    def log(self) -> Path:
        """Everything that was logged."""
        return self.path / "benchmark.log"

    @property
    def page(self) -> Path:
        """The leaderboard as a page."""
        return self.path / "index.html"

    @property
    def writing(self) -> Path:
        """Lock file of the one who writes the leaderboard."""
        return self.path / ".leaderboard.lock"

    def table(self, kind: str) -> Path:
        """Return the leaderboard as `csv`, `md` or `json`."""
        return self.path / f"leaderboard.{kind}"


@dataclass(frozen=True)
class Status:
    """What has become of a cell.

    Attributes:
        state: complete, failed, running, waiting, new (not in line yet), or refused (it cannot work).
        trial: Its trial; None if it has none.
        reason: Why it has failed or was refused.
    """

    state: State
    trial: FrozenTrial | None = None
    reason: str | None = None

    @property
    def record(self) -> dict[str, Any] | None:
        """What is kept of its run."""
        return None if self.trial is None else self.trial.user_attrs.get(RECORD)


@contextmanager
def named_here() -> Iterator[None]:
    """Name settings of the database by this section in the problems that they tell."""
    try:
        yield
    except VisionForgeError as error:
        error.problems = tuple(problem.replace("tune.storage", "benchmark.storage") for problem in error.problems)
        raise


def open_benchmark(settings: BenchmarkSettings, folder: BenchmarkFolder, name: str) -> Study:
    """Make the study, or take it up again.

    Raises:
        SettingsError: If the address of the database is none.
        RunError: If it cannot be reached or written.
    """
    refuse_links(folder.path)
    with named_here():
        study = optuna.create_study(
            storage=open_storage(settings, folder),
            study_name=study_name(name),
            direction="maximize",
            load_if_exists=True,
            pruner=NopPruner(),
            sampler=RandomSampler(seed=0),  # proposes nothing: every trial is put in line
        )
    ask_in_turn(study, folder)
    return study


def read_benchmark(settings: BenchmarkSettings, folder: BenchmarkFolder, name: str) -> Study:
    """Open the study of a benchmark to read it.

    Raises:
        RunError: If there is none.
    """
    with named_here():
        return load_study(settings, folder, study_name(name))


def study_name(name: str) -> str:
    """Return what the study of a benchmark is called in a database that it may share with searches."""
    return f"benchmark {name}"


def key_of(trial: FrozenTrial) -> str | None:
    """Return the key of the cell of a trial; None if it has none."""
    found = (trial.system_attrs.get("fixed_params") or {}).get(CELL)
    return None if found is None else str(found)


def statuses(trials: Iterable[FrozenTrial], cells: Sequence[Cell]) -> dict[str, Status]:
    """Return key of a cell → what has become of it; those that cannot work are refused.

    Args:
        trials: All trials of the study.
        cells: The cells.
    """
    trials = list(trials)
    waiting = [trial for trial in trials if trial.state == TrialState.WAITING]
    by_key: dict[str, list[FrozenTrial]] = {}
    for trial in [*counted(trials), *waiting]:
        if key := key_of(trial):
            by_key.setdefault(key, []).append(trial)
    return {
        cell.key: Status("refused", reason=cell.problem) if cell.settings is None else _status(by_key.get(cell.key, ()))
        for cell in cells
    }


def _status(trials: Sequence[FrozenTrial]) -> Status:
    order: tuple[tuple[TrialState, State], ...] = (
        (TrialState.COMPLETE, "complete"),
        (TrialState.RUNNING, "running"),
        (TrialState.WAITING, "waiting"),
        (TrialState.FAIL, "failed"),
    )
    for state, name in order:
        if found := [trial for trial in trials if trial.state == state]:
            reason = (
                str(found[-1].user_attrs.get(REASON, "its process ended unexpectedly")) if name == "failed" else None
            )
            return Status(name, found[-1], reason)
    return Status("new")


def put_cells_in_line(study: Study, folder: BenchmarkFolder, cells: Sequence[Cell], retry_failed: bool) -> None:
    """Put in line what is not there yet, what was cut off, and what has failed if that is asked for.

    Args:
        study: The study.
        folder: Where it lies.
        cells: All cells, in the order of their work.
        retry_failed: Try those again that have failed by a fault of their own.
    """
    with held(folder.asking, f"{folder.path}: the cells", LOCK_WAIT_S):
        recover(study)
        found = statuses(study.get_trials(deepcopy=False), cells)
        for cell in cells:
            status = found[cell.key]
            trial = status.trial
            if status.state == "new":
                study.enqueue_trial({CELL: cell.key})
            elif status.state == "failed" and trial is not None and (retry_failed or _was_cut_off(trial)):
                study.enqueue_trial({CELL: cell.key}, user_attrs={RETRY: trial.number, RETRIES: 0})


def _was_cut_off(trial: FrozenTrial) -> bool:
    """Return whether a trial failed by no fault of its own: its process was killed, or somebody else had the run."""
    return bool(trial.user_attrs.get(AGAIN)) or CUT_OFF in str(trial.user_attrs.get(REASON, CUT_OFF))


CUT_OFF = "its process was killed"  # what `recover` says


def is_surplus(study: Study, trial: FrozenTrial) -> bool:
    """Return whether another trial of the same cell is done or being worked on: two hosts had put it in line."""
    key = key_of(trial)
    others = (each for each in counted(study.get_trials(deepcopy=False)) if key_of(each) == key)
    busy = (TrialState.COMPLETE, TrialState.RUNNING)
    return key is None or any(
        each.state in busy and each.number < trial.number and not each.user_attrs.get(SURPLUS) for each in others
    )


def spent_on(study: Study, trial: FrozenTrial) -> tuple[float, float, bool]:
    """Return what the earlier attempts at a cell have cost, which its trial goes on with.

    Returns:
        Processor time in seconds, watt-hours that were counted, and whether all of them have said so.
    """
    trials = {each.number: each for each in study.get_trials(deepcopy=False)}
    cpu, energy, whole = 0.0, 0.0, True
    before = trial.user_attrs.get(RETRY)
    while before in trials:
        spent = trials[before].user_attrs.get(SPENT)
        if spent is None:
            whole = False
        else:
            cpu += float(spent.get("cpu_seconds") or 0.0)
            energy += float(spent.get("counted_wh") or 0.0)
        before = trials[before].user_attrs.get(RETRY)
    return cpu, energy, whole
