"""CMA-ES whose state is computed anew from the trials, because Optuna's sampler unpickles it from the study's storage.

Whoever can write a shared storage could otherwise run code in every worker. The state after some generations follows
from the trials of these generations, so nothing is kept of it but the number of the generation in each trial.
"""

from typing import Any

import cmaes
import numpy as np
from optuna._transform import _SearchSpaceTransform  # the one that CmaEsSampler scales the parameters with
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution
from optuna.samplers import CmaEsSampler
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from visionforge.tuning.trials import common_space

GENERATION = "cma:generation"  # system attribute of a trial, as Optuna names it


class ReplayedCmaEsSampler(CmaEsSampler):
    """Optuna's `CmaEsSampler` (Hansen, 2016, arXiv:1604.00772) without a pickle.

    Args:
        seed: Seed of the proposals.
        n_startup_trials: Completed trials that are proposed at random before.
    """

    def __init__(self, seed: int, n_startup_trials: int) -> None:
        super().__init__(seed=seed, n_startup_trials=n_startup_trials)

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Return the numbers that every completed trial has, but for the configuration's own."""
        found = common_space(study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)))
        return {name: each for name, each in found.items() if isinstance(each, FloatDistribution | IntDistribution)}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Return the values that the evolution proposes; nothing while it has too few trials or parameters to go by.

        Raises:
            ValueError: If the study has several objectives.
        """
        self._raise_error_if_multi_objective(study)
        completed = self._get_trials(study)
        if not search_space or len(completed) < self._n_startup_trials:
            return {}
        scaling = _SearchSpaceTransform(search_space, transform_step=True, transform_0_1=True)
        evolution = self._replayed(scaling, study.direction, completed)
        evolution._rng.seed(self._cma_rng.rng.randint(1, 2**16))  # a retry has another number
        values = scaling.untransform(evolution.ask())
        study._storage.set_trial_system_attr(trial._trial_id, GENERATION, evolution.generation)
        return values

    def _replayed(
        self, scaling: _SearchSpaceTransform, direction: StudyDirection, completed: list[FrozenTrial]
    ) -> cmaes.CMA:
        """Return the state after all generations of which enough trials are completed, those that were first count."""
        evolution = self._init_optimizer(scaling, direction)
        assert isinstance(evolution, cmaes.CMA)
        sign = 1.0 if direction == StudyDirection.MINIMIZE else -1.0
        ordered = sorted(completed, key=lambda trial: (trial.datetime_complete is None, trial.datetime_complete))
        while True:
            members = [t for t in ordered if t.system_attrs.get(GENERATION) == evolution.generation]
            if len(members) < evolution.population_size:
                return evolution
            low, high = scaling.bounds.T
            evolution.tell(
                [
                    (np.clip(scaling.transform(t.params), low, high), sign * float(t.values[0]))
                    for t in members[: evolution.population_size]
                ]
            )
