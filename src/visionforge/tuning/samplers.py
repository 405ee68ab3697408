"""How values are proposed."""

from collections.abc import Sequence
from functools import partial
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.samplers import (
    BaseSampler,
    GridSampler,
    NSGAIISampler,
    RandomSampler,
    TPESampler,
)
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from visionforge.config.schema import TuneSettings
from visionforge.config.seeding import derive_seed
from visionforge.errors import SettingsError
from visionforge.tuning.cma_es import ReplayedCmaEsSampler
from visionforge.tuning.informed_gp import InformedGPSampler
from visionforge.tuning.space import Space
from visionforge.tuning.storage import _experimental
from visionforge.tuning.trials import counted

_GENERATIONS = 5  # of nsgaii in a search, at least
_LEAST_POPULATION, _MOST_POPULATION = 4, 50


def make_sampler(settings: TuneSettings, space: Space, seed: int, position: int) -> BaseSampler:
    """Return the sampler for one trial.

    Its seed is a function of the study's seed and of the trial's position, so that a study proposes the same values
    whether or not it was interrupted.

    Args:
        settings: The settings.
        space: The space.
        seed: The study's seed.
        position: Number of trials that count and came before.

    Raises:
        SettingsError: If a grid is asked for and a parameter has no end of values.
    """
    number = derive_seed(seed, "sampler", position) % 2**32
    match settings.sampler:
        case "random":
            return RandomSampler(seed=number)
        case "cmaes":
            return ReplayedCmaEsSampler(number, settings.n_startup_trials)
        case "gp":
            return InformedGPSampler(seed=number, n_startup_trials=settings.n_startup_trials)
        case "nsgaii":
            population = max(_LEAST_POPULATION, min(_MOST_POPULATION, settings.n_trials // _GENERATIONS))
            return NSGAIISampler(seed=number, population_size=population)
        case "grid":
            return grid_sampler(space, seed)
    with _experimental():
        return TPESampler(
            seed=number,
            n_startup_trials=settings.n_startup_trials,
            multivariate=True,
            group=True,  # conditional parameters
            constant_liar=True,  # several workers
        )


class SamplerOfTrial(BaseSampler):
    """Lets `make_sampler` choose when a trial is asked for, which one process does at a time: its position is its own.

    Args:
        settings: The settings.
        space: The space.
        seed: The study's seed.
    """

    def __init__(self, settings: TuneSettings, space: Space, seed: int) -> None:
        self._make = partial(make_sampler, settings, space, seed)
        self._sampler: BaseSampler = RandomSampler(seed=0)

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Make the sampler of a trial, which has just begun."""
        others = [each for each in counted(study.get_trials(deepcopy=False)) if each.number != trial.number]
        self._sampler = self._make(len(others))
        self._sampler.before_trial(study, trial)

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Return what is proposed together."""
        return self._sampler.infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Propose values."""
        return self._sampler.sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Propose one value."""
        return self._sampler.sample_independent(study, trial, param_name, param_distribution)

    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None) -> None:
        """Tell the sampler of the trial's end."""
        self._sampler.after_trial(study, trial, state, values)


class _Grid(GridSampler):
    """A grid whose end the search looks for itself, before every trial.

    Optuna's stops the study after a trial, and fails there if the trial was put in line and is no point of the grid.
    """

    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None) -> None:
        """Do nothing."""

    def waits(self, study: Study) -> bool:
        """Return whether all points that are left are tried by others just now; Optuna's would try them twice."""
        running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        left = set(self._get_unvisited_grid_ids(study))
        return bool(left) and left <= {trial.system_attrs.get("grid_id") for trial in running}


def grid_sampler(space: Space, seed: int) -> _Grid:
    """Return a sampler of all points of a grid.

    Raises:
        SettingsError: If a parameter has no end of values.
    """
    return _Grid(grid_of(space), seed=derive_seed(seed, "grid") % 2**32)


def grid_of(space: Space) -> dict[str, list[Any]]:
    """Return all values of every parameter.

    Raises:
        SettingsError: If a parameter has no end of them, or is not always proposed.
    """
    found: dict[str, list[Any]] = {}
    problems = []
    for parameter in space.parameters:
        values = parameter.grid()
        deciders = {p.path for p in space.parameters} & {c.decider for c in parameter.conditions}
        if values is None:
            problems.append(f"tune.space.{parameter.path}: a grid needs choices, or low and high with a step")
        elif deciders:
            problems.append(
                f"tune.space.{parameter.path}: depends on {', '.join(deciders)}, which a grid cannot follow"
            )
        else:
            found[parameter.path] = values
    if problems:
        raise SettingsError(problems)
    return found
