"""Trials that wait: as a loop of its own does it, no epoch is trained twice, and a pause leaves no trace in a run."""

import json
import math
import shutil
import signal
import sqlite3
from collections import Counter
from contextlib import closing
from pathlib import Path

import numpy as np
import optuna
import pytest
import yaml
from optuna.trial import TrialState

import visionforge as vf
from tests.conftest import QUICK, run_folders
from visionforge.config.schema import TuneSettings
from visionforge.errors import SettingsError
from visionforge.runs.signals import Interrupted
from visionforge.tuning.folder import StudyFolder
from visionforge.tuning.halving import HalvingPruner, Ladder, promote
from visionforge.tuning.objective import Pausing
from visionforge.tuning.study import ask_in_turn, best_trials
from visionforge.tuning.trials import CONTINUES, OWN, RETRIES, RETRY, RUN, counted, cut_off, epochs_of

EPOCHS = 12


def ladder_of(epochs=EPOCHS, **changes):
    return Ladder.of(TuneSettings(**{"pruner": "halving", "metric": "val/auc", **changes}), epochs)


def curves_of(seed, count=25):
    """Return (count, EPOCHS) values that rise at their own pace to their own height, with noise."""
    rng = np.random.default_rng(seed)
    height, pace = rng.uniform(0.5, 1.0, (count, 1)), rng.uniform(0.1, 1.0, (count, 1))
    return height * (1 - np.exp(-pace * np.arange(1, EPOCHS + 1))) + rng.normal(0, 0.02, (count, EPOCHS))


def searched(study, ladder, curves):
    """Let the study train every curve once; return how often every epoch was trained, and the study's values."""
    trained, index, begun = Counter(), {}, 0
    study.enqueue_trial({}, user_attrs={OWN: True})
    while len(counted(study.trials)) < len(curves) or ladder.to_promote(study.trials) is not None:
        trial = study.ask()
        before = trial.user_attrs.get(CONTINUES)
        if before is None:
            index[trial.number], first, begun = begun, 0, begun + 1
        else:
            paused = study.trials[before]
            index[trial.number], first = index[before], epochs_of(paused)
            for step, value in paused.intermediate_values.items():
                trial.report(value, step)
        own = curves[index[trial.number]]
        for epoch in range(first, len(own)):
            trained[index[trial.number], epoch] += 1
            trial.report(own[epoch], epoch)
            if trial.should_prune():
                study.tell(trial, state=TrialState.PRUNED)
                break
        else:
            study.tell(trial, max(own))
    return trained, {index[t.number]: t.value for t in counted(study.trials) if t.state == TrialState.COMPLETE}


def halved(curves, rungs, factor, sign):
    """Return how many epochs of every curve asynchronous halving trains, by a loop of its own; the first is whole."""
    reached: dict[int, int] = {}  # curve → place of the rung at which it stands
    ends = [*rungs, curves.shape[1]]

    def best(place):
        there = [curve for curve, where in reached.items() if where >= place]
        later = sign * curves[:, ends[place] // 2 : ends[place]].mean(axis=1)
        order = sorted(there, key=lambda c: (-later[c], reached[c] == place))
        return order[: len(there) // factor]

    def train(curve):
        while reached.get(curve, -1) < len(rungs):
            reached[curve] = reached.get(curve, -1) + 1
            if curve and reached[curve] < len(rungs) and curve not in best(reached[curve]):
                return

    def promoted():
        for place in reversed(range(len(rungs))):
            for curve in best(place):
                if reached[curve] == place:
                    return curve
        return None

    for curve in range(len(curves)):
        while (next_one := promoted()) is not None:
            train(next_one)
        train(curve)
    while (next_one := promoted()) is not None:
        train(next_one)
    return {curve: ends[place] for curve, place in reached.items()}


@pytest.mark.parametrize("factor", [2, 3])
@pytest.mark.parametrize("metric", ["val/auc", "val/loss"])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_it_trains_what_a_loop_of_its_own_trains_and_no_epoch_twice(tmp_path, seed, metric, factor):
    ladder = ladder_of(metric=metric, reduction_factor=factor, n_warmup_epochs=2)
    sign = -1 if metric == "val/loss" else 1
    curves = sign * curves_of(seed)
    study = optuna.create_study(direction="maximize" if sign > 0 else "minimize", pruner=HalvingPruner(ladder))
    ask_in_turn(study, StudyFolder(tmp_path / "study"), ladder)
    trained, complete = searched(study, ladder, curves)
    assert set(trained.values()) == {1}
    expected = halved(curves, ladder.rungs, factor, sign)
    assert {curve: sum(c == curve for c, _ in trained) for curve in range(len(curves))} == expected
    assert set(complete) == {curve for curve, epochs in expected.items() if epochs == EPOCHS}
    assert sum(trained.values()) < 0.6 * curves.size


def test_rungs_follow_warm_up_and_factor():
    assert ladder_of(20).rungs == (3, 9)
    assert ladder_of(20, reduction_factor=2).rungs == (3, 6, 12)
    assert ladder_of(20, reduction_factor=4).rungs == (3, 12)
    assert ladder_of(20, n_warmup_epochs=0).rungs == (1, 3, 9)
    assert ladder_of(3).rungs == ()
    assert ladder_of(pruner="median") is None


def test_values_that_are_not_defined_are_the_worst(tmp_path):
    ladder = ladder_of(n_warmup_epochs=1, reduction_factor=2)
    study = optuna.create_study(direction="maximize", pruner=HalvingPruner(ladder))
    answers = []
    for value in (math.nan, 0.1, 0.2, math.nan):
        trial = study.ask()
        trial.report(value, 0)
        answers.append(trial.should_prune())
        study.tell(trial, state=TrialState.PRUNED)
    assert answers == [True, False, False, True]
    assert ladder.to_promote(study.trials).number == 2


def test_nobody_is_promoted_while_one_that_went_on_and_was_cut_off_is_in_line():
    """Its values are missing until it begins, so that another could take its place."""
    ladder = ladder_of(n_warmup_epochs=1, reduction_factor=2)
    study = optuna.create_study(direction="maximize")
    for value in (0.1, 0.2, 0.3, 0.4):
        trial = study.ask()
        trial.suggest_float("x", 0, 1)
        trial.report(value, 0)
        study.tell(trial, state=TrialState.PRUNED)
    promote(study, ladder)
    went_on = study.ask()
    assert went_on.user_attrs[CONTINUES] == 3
    went_on.set_user_attr(RUN, "its run")
    cut_off(study, study.trials[went_on.number], "its process was killed")
    promote(study, ladder)
    waiting = [t.user_attrs[CONTINUES] for t in study.trials if t.state == TrialState.WAITING]
    assert waiting == [went_on.number]


def tried(study, x):
    """Begin a trial of a value, as one of many workers does."""
    study.enqueue_trial({"x": x})
    return asked(study)


def asked(study):
    trial = study.ask()
    trial.suggest_float("x", 0.0, 9.0)
    trial.set_user_attr("epochs", EPOCHS)
    return trial


@pytest.mark.parametrize("cut", [[], [0], [1], [0, 1]])
def test_of_equal_trials_that_comes_first_which_was_tried_first_whatever_was_cut_off(cut):
    ladder = ladder_of(n_warmup_epochs=1, reduction_factor=3)
    study = optuna.create_study(direction="maximize")
    trials = [tried(study, x) for x in (0.0, 1.0, 2.0)]
    for place in cut:
        cut_off(study, study.trials[trials[place].number], "its process was killed")
    for place in cut:
        trials[place] = asked(study)
    for trial in trials:
        trial.report(0.5, 0)
        study.tell(trial, state=TrialState.PRUNED)
    assert ladder.to_promote(study.trials).params["x"] == 0.0


def test_of_equal_results_that_is_the_best_which_was_tried_first():
    study = optuna.create_study(direction="maximize")
    first, second = tried(study, 0.0), tried(study, 1.0)
    cut_off(study, study.trials[first.number], "its process was killed")
    study.tell(second, 0.5)
    study.tell(asked(study), 0.5)
    assert [trial.params["x"] for trial in best_trials(study)] == [0.0, 1.0]


def test_one_that_was_cut_off_before_it_had_its_run_goes_on_with_that_of_the_one_before():
    study = optuna.create_study(direction="maximize")
    paused = study.ask()
    paused.suggest_float("x", 0, 1)
    study.tell(paused, state=TrialState.PRUNED)
    study.enqueue_trial(paused.params, user_attrs={RETRY: 0, CONTINUES: 0})
    cut_off(study, study.trials[study.ask().number], "its process was killed")
    assert study.trials[-1].user_attrs == {CONTINUES: 0, RETRY: 1, RETRIES: 1}


def test_folds_are_not_halved(tmp_path):
    with pytest.raises(SettingsError, match=r"tune\.pruner: halving pauses within a training"):
        vf.tune(n_trials=1, folds=3, **{**given(tmp_path), "tune.pruner": "halving"})


# --- real trainings


def given(outputs, **changes):
    read = {name: yaml.safe_load(str(text)) for name, text in QUICK.items()}
    ours = {
        "trainer.default_root_dir": str(outputs),
        "trainer.max_epochs": 4,
        "trainer.deterministic": True,
        "data.synthetic.classes": 6,
        "tune.preset": "quick",
        "tune.pruner": "halving",
        "tune.n_warmup_epochs": 1,
        "tune.target": None,
        "log_level": "error",
    }
    return {**read, **ours, **changes}


@pytest.fixture
def second_waits(monkeypatch):
    """The second trial is paused after an epoch, and goes on after the third."""

    def to_promote(self, trials):
        waiting = [t for t in counted(trials) if t.number == 1 and t.state == TrialState.PRUNED]
        return waiting[0] if waiting and len(trials) > 2 else None

    monkeypatch.setattr(Ladder, "goes_on", lambda self, trials, trial: (trial.number, epochs_of(trial)) != (1, 1))
    monkeypatch.setattr(Ladder, "to_promote", to_promote)


@pytest.mark.slow
def test_a_trial_that_waited_is_a_run_that_was_never_paused(tmp_path, second_waits):
    study = vf.tune(n_trials=3, **given(tmp_path))
    first, paused, third, resumed = study.optuna.trials
    assert [trial.state for trial in study.optuna.trials].count(TrialState.COMPLETE) == 3
    assert (epochs_of(paused), resumed.user_attrs[CONTINUES], len(resumed.intermediate_values)) == (1, 1, 4)
    assert resumed.params == paused.params
    assert len(run_folders(study.path / "trials")) == 3
    rows = {row["trial"]: row for row in study.summary["trials"]}
    assert list(rows) == [first.number, third.number, resumed.number]
    assert study.summary["epochs_saved"] == 0
    assert rows[3]["epochs"] == 4
    assert rows[3]["seconds"] == pytest.approx(paused.duration.total_seconds() + resumed.duration.total_seconds())
    run = vf.open_run(resumed.user_attrs["run"])
    assert len(run.stored.manifest.sessions) == 2
    assert resumed.value == max(resumed.intermediate_values.values())
    never = vf.fit(run.path / "config.yaml", **{"trainer.default_root_dir": str(tmp_path / "never")})
    assert never.epochs.drop(columns="seconds").equals(run.epochs.drop(columns="seconds"))


@pytest.mark.slow
def test_one_that_was_killed_before_it_was_compared_waits_where_it_goes_on(tmp_path, second_waits, monkeypatch):
    """After the checkpoint of an epoch at which trials are compared; the signal stands in for the kill."""
    asked_for = Pausing.on_train_epoch_start

    def killed(self, trainer, module):
        if self._trial.number == 3 and trainer.current_epoch == 2:
            raise Interrupted(signal.SIGTERM)
        asked_for(self, trainer, module)

    with monkeypatch.context() as once:
        once.setattr(Pausing, "on_train_epoch_start", killed)
        with pytest.raises(Interrupted):
            vf.tune(n_trials=3, **given(tmp_path))
    monkeypatch.setattr(Ladder, "goes_on", lambda self, trials, trial: (trial.number, epochs_of(trial)) != (4, 2))
    study = vf.tune(n_trials=3, **given(tmp_path))
    cut, waits = study.optuna.trials[3:5]
    assert (cut.state, epochs_of(cut)) == (TrialState.FAIL, 2)
    assert (waits.state, epochs_of(waits), waits.user_attrs[CONTINUES]) == (TrialState.PRUNED, 2, 3)
    assert json.loads((Path(waits.user_attrs["run"]) / "run.json").read_text())["state"] == "pruned"


@pytest.mark.slow
def test_a_run_that_is_gone_is_trained_anew(tmp_path, monkeypatch, second_waits):
    """Its folder was cleaned up between two calls."""
    monkeypatch.setattr("visionforge.tuning.objective.checkpoint_to_resume", lambda folder: None)
    study = vf.tune(n_trials=3, **given(tmp_path))
    assert len(run_folders(study.path / "trials")) == 4
    assert len(study.optuna.trials[3].intermediate_values) == 4


@pytest.mark.slow
def test_no_run_beside_the_study_is_gone_on_with(tmp_path, second_waits):
    """A study may be a stranger's: the run that it names is looked for in its own folder, by its name."""
    elsewhere = tmp_path / "elsewhere"
    study = vf.tune(n_trials=2, **given(tmp_path / "a"))
    shutil.move(study.optuna.trials[1].user_attrs["run"], elsewhere)
    with closing(sqlite3.connect(study.path / "database" / "study.db")) as database:
        named = (json.dumps(str(elsewhere)),)
        database.execute("UPDATE trial_user_attributes SET value_json = ? WHERE key = 'run' AND trial_id = 2", named)
        database.commit()
    before = {path: path.stat().st_mtime_ns for path in elsewhere.rglob("*")}
    again = vf.tune(n_trials=3, **given(tmp_path / "a"))
    assert again.optuna.trials[1].user_attrs["run"] == str(elsewhere)
    assert again.optuna.trials[-1].user_attrs[CONTINUES] == 1
    assert {path: path.stat().st_mtime_ns for path in elsewhere.rglob("*")} == before
