"""A search whose trials train all folds: their mean is the value, and bad ones end between two folds."""

import json

import pytest
import yaml

import visionforge as vf
from tests.conftest import QUICK, flags, run_folders
from visionforge.errors import SettingsError
from visionforge.reading import read_yaml


def settings(outputs, **changes):
    given = {
        **QUICK,
        "trainer.max_epochs": "1",
        "trainer.default_root_dir": str(outputs),
        "tune.preset": "quick",
        "tune.epochs": "1",
        "log_level": "error",
    }
    return {**{name: yaml.safe_load(str(text)) for name, text in given.items()}, **changes}


def epochs_of(study):
    """Return the share of epochs that was saved, and those of each trial, as the summary has them."""
    content = json.loads((study.path / "reports" / "study_summary.json").read_text())
    return content["epochs_saved"], [trial["epochs"] for trial in content["trials"]]


@pytest.mark.slow
def test_value_of_a_trial_is_the_mean_over_its_folds(tmp_path):
    study = vf.tune(n_trials=2, folds=3, **settings(tmp_path, **{"tune.pruner": "none"}))
    for trial in study.optuna.trials:
        values = trial.user_attrs["folds"]
        assert len(values) == 3
        assert trial.value == pytest.approx(sum(values) / 3)
        assert trial.user_attrs["run"]
    folds = [read_yaml(path / "config.yaml")["data"]["fold"] for path in run_folders(study.path / "trials")]
    assert sorted(folds) == [0, 0, 1, 1, 2, 2]
    assert epochs_of(study) == (0.0, [3, 3])
    best = yaml.safe_load(study.best_config.read_text())
    assert (best["data"]["folds"], best["data"]["fold"]) == (3, None)
    assert "--folds 3" in (study.path / "index.html").read_text()
    again = vf.tune(n_trials=2, folds=3, **settings(tmp_path, **{"tune.pruner": "none"}))
    assert again.path == study.path
    alone = vf.tune(n_trials=1, **settings(tmp_path, **{"tune.pruner": "none", "data.folds": 3, "data.fold": 0}))
    assert alone.path != study.path


@pytest.mark.slow
def test_a_trial_that_lags_ends_between_two_folds(tmp_path, monkeypatch):
    monkeypatch.setattr("optuna.trial.Trial.should_prune", lambda trial: trial.number == 1)
    study = vf.tune(n_trials=2, folds=3, **settings(tmp_path))
    first, second = study.optuna.trials
    assert len(first.user_attrs["folds"]) == 3
    assert second.state.name == "PRUNED"
    assert len(second.user_attrs["folds"]) == 1
    assert epochs_of(study) == (pytest.approx(1 - 4 / 6), [3, 1])
    assert second.intermediate_values == {0: pytest.approx(second.user_attrs["folds"][0])}


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"tune.cross_validate": True}, "tune.cross_validate: needs data.folds"),
        ({"tune.cross_validate": True, "data.folds": 3, "data.fold": 1}, "data.fold: 1 is one fold"),
        ({"tune.cross_validate": True, "data.folds": 3, "tune.refit": True}, "tune.refit: trains one network"),
        ({"data.folds": 3}, "data.fold: is not given"),
    ],
)
def test_searches_that_are_refused(changes, told, tmp_path):
    with pytest.raises(SettingsError, match=told):
        vf.tune(n_trials=1, **settings(tmp_path, **changes))


def test_fit_does_not_take_a_search_for_a_fold(tmp_path):
    asked = settings(tmp_path, **{"tune.cross_validate": True, "data.folds": 3})
    with pytest.raises(SettingsError, match=r"data\.fold: is not given"):
        vf.fit(**asked)


def test_command_line(tmp_path, refuse):
    (problem,) = refuse("tune", *flags(), "--folds", "3", "--data.folds", "4")
    assert "differ" in problem
    (problem,) = refuse("tune", *flags(), "--folds", "1")
    assert "2 to 100" in problem
