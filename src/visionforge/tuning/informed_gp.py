"""A Gaussian process that learns from trials that were ended early, too."""

import copy
import math
import statistics
from collections.abc import Container, Iterable, Iterator, Sequence
from functools import cache
from typing import Any, cast

from optuna.distributions import BaseDistribution
from optuna.samplers import GPSampler
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from visionforge.tuning.trials import common_space, counted, epochs_of


class InformedGPSampler(GPSampler):
    """Optuna's `GPSampler` (Rasmussen and Williams, 2006), to which pruned and paused trials say something, too.

    It looks at completed trials alone, of which pruning leaves few, so that most of a search would stay random. Here a
    trial that ended after some epochs counts with what it would have come to if it had gained as much after them as
    the completed ones did on average.
    """

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Return what every trial that says something has, but for the configuration's own."""
        return common_space(_Informed(study)._get_trials(deepcopy=False, states=(TrialState.COMPLETE,), use_cache=True))

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Propose values."""
        return super().sample_relative(cast(Study, _Informed(study, search_space)), trial, search_space)


class _Informed:
    """A study in which trials that were ended early look completed.

    Args:
        study: The study.
        parameters: Completed trials that lack one of them are left out.
    """

    def __init__(self, study: Study, parameters: Iterable[str] = ()) -> None:
        self._study = study
        self._parameters = set(parameters)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._study, name)

    def _get_trials(
        self, deepcopy: bool = True, states: Container[TrialState] | None = None, use_cache: bool = False
    ) -> list[FrozenTrial]:
        trials = counted(self._study._get_trials(deepcopy=deepcopy, use_cache=use_cache))
        found = [trial for trial in trials if states is None or trial.state in states]
        single = len(self._study.directions) == 1  # with two objectives, no trial is ended early
        found += completions(trials, self._study.direction) if single else ()
        return [
            trial for trial in found if trial.state != TrialState.COMPLETE or self._parameters <= trial.params.keys()
        ]


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
