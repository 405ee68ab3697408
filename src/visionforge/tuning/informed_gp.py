"""A Gaussian process that learns from trials that were ended early, too."""

import copy
import math
import statistics
from collections.abc import Container, Iterator, Sequence
from functools import cache
from typing import Any, cast

from optuna.distributions import BaseDistribution
from optuna.samplers import GPSampler
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from visionforge.tuning.trials import counted, epochs_of


class InformedGPSampler(GPSampler):
    """Optuna's `GPSampler` (Rasmussen and Williams, 2006), to which pruned and paused trials say something, too.

    It looks at completed trials alone, of which pruning leaves few, so that most of a search would stay random. Here a
    trial that ended after some epochs counts with what it would have come to if it had gained as much after them as
    the completed ones did on average.
    """

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Propose values."""
        return super().sample_relative(cast(Study, _Informed(study)), trial, search_space)


class _Informed:
    """A study in which trials that were ended early look completed."""

    def __init__(self, study: Study) -> None:
        self._study = study

    def __getattr__(self, name: str) -> Any:
        return getattr(self._study, name)

    def _get_trials(
        self, deepcopy: bool = True, states: Container[TrialState] | None = None, use_cache: bool = False
    ) -> list[FrozenTrial]:
        trials = counted(self._study._get_trials(deepcopy=deepcopy, use_cache=use_cache))
        found = [trial for trial in trials if states is None or trial.state in states]
        single = len(self._study.directions) == 1  # with two objectives, no trial is ended early
        return [*found, *completions(trials, self._study.direction)] if single else found


def completions(trials: Sequence[FrozenTrial], direction: StudyDirection) -> Iterator[FrozenTrial]:
    """Yield the trials that were ended early, as if they had gone on as the completed ones did on average.

    Args:
        trials: Trials of a study with one objective.
        direction: Which way is better.
    """
    best = min if direction == StudyDirection.MINIMIZE else max

    def so_far(trial: FrozenTrial, epochs: int) -> float | None:
        values = [value for step, value in trial.intermediate_values.items() if step < epochs and math.isfinite(value)]
        return best(values) if values else None

    completed = [trial for trial in trials if trial.state == TrialState.COMPLETE and math.isfinite(trial.values[0])]

    @cache
    def gain(epochs: int) -> float:
        then = [(trial.values[0], so_far(trial, epochs)) for trial in completed]
        gains = [end - before for end, before in then if before is not None]
        return statistics.fmean(gains) if gains else 0.0

    for trial in trials:
        epochs = epochs_of(trial)
        if trial.state != TrialState.PRUNED or (value := so_far(trial, epochs)) is None:
            continue
        made = copy.copy(trial)
        made.state = TrialState.COMPLETE
        made.values = [value + gain(epochs)]
        yield made
