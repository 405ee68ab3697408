"""A worker's share of the cells: claim the next one, work on it, tell the study what became of it."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence

from optuna.study import Study
from optuna.trial import FrozenTrial, Trial, TrialState

from visionforge.benchmarking.cells import Record, work_on
from visionforge.benchmarking.costs import Meter
from visionforge.benchmarking.plan import Cell
from visionforge.benchmarking.study import AGAIN, RECORD, SPENT, is_surplus, key_of, spent_on
from visionforge.errors import VisionForgeError
from visionforge.redaction import redact_text
from visionforge.runs.locks import LockedError
from visionforge.runs.processes import this_process
from visionforge.runs.signals import Interrupted, Interruption
from visionforge.tuning.trials import OWNER, REASON, RUN, SURPLUS, cut_off, recover, without_owner

log = logging.getLogger(__name__)

ORDERLY_RETRIES = 1_000  # an interrupted cell is gone on with whenever the benchmark is
OWNER_POLL_S = 0.1
LONGEST_REASON = 500
Work = Callable[[Cell, str, Meter, Interruption], Record]


class SurplusError(Exception):
    """Somebody else is at this cell, or it is no longer part of the benchmark."""


class CellWork:
    """The function that the study calls for a trial.

    Args:
        cells: Key → cell.
        name: Name of the benchmark.
        alone: No other worker is at work.
        interruption: Handles the signals.
        work: Works on a cell.
    """

    def __init__(
        self, cells: Mapping[str, Cell], name: str, alone: bool, interruption: Interruption, work: Work = work_on
    ) -> None:
        self._cells = cells
        self._name = name
        self._alone = alone
        self._interruption = interruption
        self._work = work

    def __call__(self, trial: Trial) -> float:
        """Work on the cell of a trial and return its first metric.

        Raises:
            SurplusError: If there is nothing to do.
            Interrupted: If a signal ended it; the cell is in line again.
            Exception: If it failed; the study keeps the reason.
        """
        study = trial.study
        frozen = study._storage.get_trial(trial._trial_id)
        cell = self._cells.get(key_of(frozen) or "")
        if cell is None or is_surplus(study, frozen):
            trial.set_user_attr(SURPLUS, True)
            raise SurplusError
        trial.set_user_attr(OWNER, this_process().as_dict())
        meter = Meter(self._alone)
        try:
            record = self._work(cell, self._name, meter, self._interruption)
        except Interrupted as interrupted:
            trial.set_user_attr(SPENT, meter.found)
            told = study._storage.get_trial(trial._trial_id)
            cut_off(study, told, f"interrupted by {interrupted.name}", ORDERLY_RETRIES)
            raise
        except Exception as error:
            trial.set_user_attr(REASON, reason_of(error))
            trial.set_user_attr(AGAIN, isinstance(error, LockedError))
            raise
        trial.set_user_attr(RECORD, _with_earlier(record, *spent_on(study, frozen)))
        trial.set_user_attr(RUN, record["path"])
        return float(record["metrics"].get(record["first"], 0.0))


def reason_of(error: Exception) -> str:
    """Return why a cell failed, in a line."""
    told = "; ".join(error.problems) if isinstance(error, VisionForgeError) else f"{type(error).__name__}: {error}"
    return redact_text(" ".join(told.split()))[:LONGEST_REASON]


def _with_earlier(record: Record, cpu: float, energy: float, whole: bool) -> Record:
    """Return a record with what the attempts before this one have cost."""
    spent = record["spent"]
    if spent is None:
        return record
    counted = spent.get("counted_wh")
    spent = {
        **spent,
        "cpu_seconds": spent["cpu_seconds"] + cpu,
        "counted_wh": None if counted is None else counted + energy,
    }
    return {**record, "spent": spent, "whole": record["whole"] and whole}


def run_cells(study: Study, work: CellWork, ended: Callable[[FrozenTrial], None]) -> None:
    """Work on cells until none is in line.

    Args:
        study: The study.
        work: Works on the cell of a trial.
        ended: Called after each.

    Raises:
        Interrupted: If a signal asked to end.
    """
    while True:
        recover(study)
        if without_owner(study):
            time.sleep(OWNER_POLL_S)  # killed as it began: its cell is put in line in a moment
            continue
        if nothing_in_line(study.get_trials(deepcopy=False)):
            return
        study.optimize(work, n_trials=1, catch=(Exception,), callbacks=[lambda _, trial: ended(trial)])


def nothing_in_line(trials: Sequence[FrozenTrial]) -> str | None:
    """Return why no further cell is begun; None if one is in line."""
    if any(trial.state == TrialState.WAITING for trial in trials):
        return None
    running = sum(trial.state == TrialState.RUNNING for trial in trials)
    return f"{running} cells are still being worked on elsewhere" if running else "no cell is in line"
