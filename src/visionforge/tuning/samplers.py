"""How values are proposed."""

from collections.abc import Sequence
from typing import Any

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
            return NSGAIISampler(seed=number)
        case "grid":
            return _Grid(grid_of(space), seed=derive_seed(seed, "grid") % 2**32)
    with _experimental():
        return TPESampler(
            seed=number,
            n_startup_trials=settings.n_startup_trials,
            multivariate=True,
            group=True,  # conditional parameters
            constant_liar=True,  # several workers
        )


class _Grid(GridSampler):
    """A grid whose end the search looks for itself, before every trial.

    Optuna's stops the study after a trial, and fails there if the trial was put in line and is no point of the grid.
    """

    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None) -> None:
        """Do nothing."""


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
