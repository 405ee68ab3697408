"""The Gaussian process learns from trials that were ended early."""

import math

import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.samplers import GPSampler
from optuna.study import StudyDirection
from optuna.trial import TrialState, create_trial

from visionforge.tuning.cma_es import ReplayedCmaEsSampler
from visionforge.tuning.informed_gp import InformedGPSampler, completions
from visionforge.tuning.trials import OWN, RETRY, SURPLUS

X = {"x": FloatDistribution(0.0, 1.0)}


def ended(x, *values, state=TrialState.COMPLETE, best=max, **attributes):
    """A trial whose epochs had these values."""
    return create_trial(
        state=state,
        values=[best(values)] if state == TrialState.COMPLETE else None,
        params={"x": x},
        distributions=X,
        intermediate_values=dict(enumerate(values)),
        user_attrs=attributes,
    )


def pruned(x, *values, **attributes):
    return ended(x, *values, state=TrialState.PRUNED, **attributes)


def values_of(trials, direction):
    return [trial.value for trial in completions(trials, direction)]


def test_they_count_with_what_the_others_gained_after_as_many_epochs():
    trials = [ended(0.1, 0.5, 0.6, 0.9), ended(0.2, 0.4, 0.7, 0.6), pruned(0.3, 0.3), pruned(0.4, 0.2, 0.35)]
    gains = ((0.9 - 0.5) + (0.7 - 0.4)) / 2, ((0.9 - 0.6) + 0.0) / 2
    assert values_of(trials, StudyDirection.MAXIMIZE) == pytest.approx([0.3 + gains[0], 0.35 + gains[1]])
    lower = [ended(0.1, 0.9, 0.4, best=min), pruned(0.2, 0.8)]
    assert values_of(lower, StudyDirection.MINIMIZE) == pytest.approx([0.8 - 0.5])


def test_what_says_nothing_is_left_out():
    known = [pruned(0.1, 0.3), pruned(0.2, math.nan), pruned(0.3)]
    assert values_of(known, StudyDirection.MAXIMIZE) == [0.3]
    assert values_of([*known, ended(0.4, math.inf, 0.5)], StudyDirection.MAXIMIZE) == [0.3]
    assert [trial.state for trial in known] == [TrialState.PRUNED] * 3  # the study's own are not changed


def proposed(sampler, trials, direction="maximize"):
    study = optuna.create_study(direction=direction, sampler=sampler)
    study.add_trials(trials)
    return study.ask(X).params["x"]


def search(*more):
    """Two completed trials, and pruned ones that get better towards 0.8."""
    several = [pruned(x, 1 - abs(x - 0.8)) for x in (0.0, 0.2, 0.5, 0.7, 0.9, 1.0)]
    return [ended(0.1, 0.1, 0.2), ended(0.3, 0.3, 0.4), *several, *more]


def test_proposals_are_where_they_were_good():
    theirs, ours = (
        [proposed(sampler(seed=seed, n_startup_trials=5), search()) for seed in range(4)]
        for sampler in (GPSampler, InformedGPSampler)
    )
    assert all(abs(x - 0.8) > 0.2 for x in theirs), "two are completed, so they are random"
    assert all(abs(x - 0.8) < 0.15 for x in ours)


def test_trials_that_do_not_count_teach_nothing():
    misleading = [pruned(0.05, 5.0, **{SURPLUS: True}), pruned(0.05, 5.0), ended(0.05, 0.2, **{RETRY: 9})]
    assert abs(proposed(InformedGPSampler(seed=0, n_startup_trials=5), search(*misleading)) - 0.8) < 0.15


@pytest.mark.parametrize("sampler", [InformedGPSampler, ReplayedCmaEsSampler])
def test_the_configurations_own_trial_takes_no_parameter_out(sampler):
    both = {**X, "y": FloatDistribution(0.0, 1.0)}
    own = create_trial(value=0.5, params={"x": 0.5}, distributions=X, user_attrs={OWN: True})
    others = [create_trial(value=x, params={"x": x, "y": x}, distributions=both) for x in (0.1, 0.4, 0.8)]
    study = optuna.create_study(direction="maximize", sampler=sampler(seed=0, n_startup_trials=2))
    study.add_trials([own, *others])
    trial = study.ask()
    assert set(trial.relative_params) == {"x", "y"}
    assert own.params == {"x": 0.5}


def test_a_parameter_that_pruned_trials_lack_is_drawn_by_itself():
    momentum = {**X, "momentum": FloatDistribution(0.5, 0.9)}
    complete = [create_trial(value=x, params={"x": x, "momentum": 0.7}, distributions=momentum) for x in (0.1, 0.4)]
    study = optuna.create_study(direction="maximize", sampler=InformedGPSampler(seed=0, n_startup_trials=2))
    study.add_trials([*complete, *search()[2:]])
    trial = study.ask()
    assert set(trial.relative_params) == {"x"}
    assert 0.5 <= trial.suggest_float("momentum", 0.5, 0.9) <= 0.9
