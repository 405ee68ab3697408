"""Successive halving whose trials wait: after so many epochs the best part goes on, and the others may do so later.

Asynchronous successive halving (Li et al., 2020, arXiv:1810.05934), by the mean over the later half of a trial's
epochs: with a validation split of a hundred images its best epoch is noise. A trial that is not among the best of its
rung is paused with its checkpoint; as soon as it is among them, because worse ones have come after it, it goes on from
there before another trial begins. So no epoch is trained twice, and a trial that came early is not judged by few.
"""

import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from optuna.pruners import BasePruner
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from visionforge.config.schema import TuneSettings
from visionforge.config.schema.metrics import higher_is_better
from visionforge.tuning.trials import CONTINUES, OWN, RETRY, counted, epochs_of, first_attempts

log = logging.getLogger(__name__)

Ranked = tuple[float, bool, int]  # how good, the lower the better; whether it is there still; its first attempt


@dataclass(frozen=True)
class Ladder:
    """After how many epochs trials are compared, and how many of them go on.

    Attributes:
        rungs: Numbers of epochs, ascending, all below that of a whole trial.
        factor: One of so many goes on.
        minimise: Lower values are better.
    """

    rungs: tuple[int, ...]
    factor: int
    minimise: bool

    @classmethod
    def of(cls, settings: TuneSettings, epochs: int) -> "Ladder | None":
        """Return the ladder of a search for trials of so many epochs; None if its pruner is another."""
        if settings.pruner != "halving":
            return None
        rungs, rung, factor = [], max(1, settings.n_warmup_epochs), settings.reduction_factor
        while rung < epochs:
            rungs.append(rung)
            rung *= factor
        return cls(tuple(rungs), factor, not higher_is_better(settings.metric))

    def goes_on(self, trials: Iterable[FrozenTrial], trial: FrozenTrial) -> bool:
        """Return whether a trial goes on after the epoch that it has just told of.

        The trial with the configuration's own values always does: all others are compared with it.

        Args:
            trials: All trials of the study.
            trial: The trial.
        """
        epochs = epochs_of(trial)
        if epochs not in self.rungs or trial.user_attrs.get(OWN):
            return True
        trials = [*(other for other in trials if other.number != trial.number), trial]
        return trial.number in self._best(counted(trials), first_attempts(trials), epochs)

    def to_promote(self, trials: Iterable[FrozenTrial]) -> FrozenTrial | None:
        """Return a paused trial that is by now among the best of its rung, the highest rung first; None if none is."""
        trials = list(trials)
        known, first = counted(trials), first_attempts(trials)
        by_number = {trial.number: trial for trial in known}
        for rung in reversed(self.rungs):
            for number in self._best(known, first, rung):
                trial = by_number[number]
                if trial.state == TrialState.PRUNED and epochs_of(trial) == rung:
                    return trial
        return None

    def _best(self, known: Sequence[FrozenTrial], first: Mapping[int, int], rung: int) -> list[int]:
        """Return the numbers of the trials that go on after a rung, best first."""
        reached = [t for t in known if t.state != TrialState.FAIL and epochs_of(t) >= rung]
        reached.sort(key=lambda trial: self._rank(trial, rung, first[trial.number]))
        return [trial.number for trial in reached[: len(reached) // self.factor]]

    def _rank(self, trial: FrozenTrial, rung: int, first: int) -> Ranked:
        """Return how a trial compares: by its mean over the later half of the epochs, since single ones vary more.

        Of equal ones that comes first which went on before, then that which was tried first.
        """
        later = [value for step, value in trial.intermediate_values.items() if rung // 2 <= step < rung]
        values = [value for value in later if not math.isnan(value)]
        mean = math.fsum(values) / len(values) if values else math.inf
        return mean if self.minimise or not values else -mean, epochs_of(trial) == rung, first


class HalvingPruner(BasePruner):
    """Pauses trials, as a `Ladder` says.

    Args:
        ladder: The ladder.
    """

    def __init__(self, ladder: Ladder) -> None:
        self._ladder = ladder

    def prune(self, study: Study, trial: FrozenTrial) -> bool:
        """Return whether a trial is to wait."""
        return not self._ladder.goes_on(study.get_trials(deepcopy=False), trial)


def promote(study: Study, ladder: Ladder) -> None:
    """Put a paused trial in line that is by now good enough to go on; to be called by one process at a time.

    Not while another is in line: it may be one that went on and was cut off, whose values are missing until it begins.
    """
    trials = study.get_trials(deepcopy=False)
    if any(trial.state == TrialState.WAITING for trial in trials):
        return
    trial = ladder.to_promote(trials)
    if trial is not None:
        log.debug("trial %d goes on after %d epochs", trial.number, epochs_of(trial))
        study.enqueue_trial(trial.params, user_attrs={RETRY: trial.number, CONTINUES: trial.number})
