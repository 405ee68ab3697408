"""The study proposes the same values whether or not it was interrupted, and counts each trial once."""

import contextlib
import datetime
import os
import pickle
import time

import cmaes
import numpy as np
import optuna
import pytest
from optuna._transform import _SearchSpaceTransform
from optuna.distributions import FloatDistribution
from optuna.samplers import CmaEsSampler, GPSampler, GridSampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.storages import RDBStorage
from optuna.trial import TrialState

from tests.conftest import REPOSITORY
from tests.runs.helpers import python
from visionforge.config.schema import RunSettings, TuneSettings
from visionforge.data import dataset_info
from visionforge.errors import RunError, SettingsError, TrainingError
from visionforge.runs.processes import this_process
from visionforge.tuning.folder import StudyFolder
from visionforge.tuning.pruners import make_pruner
from visionforge.tuning.samplers import SamplerOfTrial, grid_of, grid_sampler, make_sampler
from visionforge.tuning.search import reason_to_stop, search
from visionforge.tuning.space import build_space
from visionforge.tuning.storage import shown_storage
from visionforge.tuning.study import best_trials, load_study, open_study
from visionforge.tuning.trials import (
    EPOCHS,
    OWN,
    OWNER,
    REASON,
    RETRY,
    SURPLUS,
    counted,
    cut_off,
    failures_in_a_row,
    finished,
    recover,
    without_owner,
)
from visionforge.tuning.tuning import Tuning

STEPS = {
    "model.backbone.dropout": {"low": 0, "high": 0.4, "step": 0.1},
    "data.batch_size": {"choices": [16, 32]},
    "model.optimizer.learning_rate": {"low": 1e-3, "high": 1e-1, "log": True},
}


def settings(**tune):
    tree = {"data": {"dataset": "breastmnist"}, "model": {"backbone": {"name": "mini_cnn", "pretrained": False}}}
    return RunSettings.model_validate({**tree, "tune": {"preset": "none", "space": STEPS, **tune}})


def space_of(chosen):
    return build_space(chosen, dataset_info("breastmnist").flags, [], Tuning._check)


@pytest.fixture
def folder(tmp_path):
    return StudyFolder(tmp_path / "study")


def made(folder, searched=None, **tune):
    return open_study(settings(**tune).tune, folder, "s", searched or {"a": 1})


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("tpe", TPESampler),
        ("random", RandomSampler),
        ("cmaes", CmaEsSampler),
        ("gp", GPSampler),
        ("nsgaii", NSGAIISampler),
    ],
)
def test_every_sampler_proposes_and_repeats_itself(name, kind):
    chosen = settings(sampler=name, n_startup_trials=3)
    space = space_of(chosen)

    def proposed(seed):
        study = optuna.create_study(direction="maximize")
        found = []
        for number in range(8):
            study.sampler = make_sampler(chosen.tune, space, seed, number)
            assert isinstance(study.sampler, kind)
            trial = study.ask()
            found.append(space.suggest(trial))
            study.tell(trial, found[-1]["model.backbone.dropout"])
        return found

    assert proposed(1) == proposed(1)
    assert proposed(1) != proposed(2)
    assert len({tuple(values.items()) for values in proposed(1)}) > 4


def test_grid_goes_through_all_values_once():
    chosen = settings(sampler="grid", space={k: v for k, v in STEPS.items() if k != "model.optimizer.learning_rate"})
    space = space_of(chosen)
    study = optuna.create_study()
    found = []
    while True:
        study.sampler = make_sampler(chosen.tune, space, 1, len(found))
        assert isinstance(study.sampler, GridSampler)
        if study.sampler.is_exhausted(study):
            break
        study.optimize(lambda trial: len(found.append(tuple(space.suggest(trial).values())) or found), n_trials=1)
    assert len(found) == len(set(found)) == 10


def test_a_point_of_a_grid_that_somebody_tries_is_waited_for():
    chosen = settings(sampler="grid", space={"data.batch_size": {"choices": [16, 32]}})
    space, study = space_of(chosen), optuna.create_study(direction="maximize")
    grid = grid_sampler(space, 1)
    study.sampler = grid
    first = study.ask()
    assert not grid.waits(study)
    second = study.ask()
    assert grid.waits(study)
    study.tell(first, 0.5)
    assert (grid.waits(study), grid.is_exhausted(study)) == (True, False)
    study.tell(second, 0.5)
    assert (grid.waits(study), grid.is_exhausted(study)) == (False, True)


def test_a_search_by_nsgaii_has_generations():
    space = space_of(settings())
    sizes = {n: make_sampler(settings(sampler="nsgaii", n_trials=n).tune, space, 1, 0) for n in (5, 50, 1000)}
    assert [each._population_size for each in sizes.values()] == [4, 10, 50]


def test_a_sampler_is_that_of_the_trials_place_in_the_study():
    chosen = settings(sampler="random")
    space = space_of(chosen)
    one, other = (optuna.create_study(direction="maximize") for _ in range(2))
    found = []
    for number in range(4):
        one.sampler = make_sampler(chosen.tune, space, 7, number)
        found.append(space.suggest(one.ask()))
    other.sampler = SamplerOfTrial(chosen.tune, space, 7)
    other.ask()  # of another process, which runs on
    assert [space.suggest(other.ask()) for _ in range(3)] == found[1:]


def test_grid_needs_an_end_and_no_conditions():
    with pytest.raises(SettingsError, match="learning_rate: a grid needs choices, or low and high with a step"):
        grid_of(space_of(settings(sampler="grid")))
    conditional = {
        "model.optimizer.name": {"choices": ["sgd", "adamw"]},
        "model.optimizer.momentum": {"choices": [0.8, 0.9]},
    }
    with pytest.raises(SettingsError, match=r"depends on model\.optimizer\.name, which a grid cannot follow"):
        grid_of(space_of(settings(sampler="grid", space=conditional)))


def pruned_at(pruner, curves):
    """Return after how many reports the last of several trials is pruned, or None."""
    study = optuna.create_study(direction="maximize", pruner=pruner)
    for values in curves:
        trial = study.ask()
        for step, value in enumerate(values):
            trial.report(value, step)
            if trial.should_prune():
                study.tell(trial, state=TrialState.PRUNED)
                last = step + 1
                break
        else:
            study.tell(trial, values[-1])
            last = None
    return last


GOOD, BAD = [0.8] * 8, [0.1] * 8


def test_start_up_trials_and_warm_up_epochs_reach_the_pruner():
    def after(startup, warmup, name="median"):
        chosen = TuneSettings(pruner=name, n_startup_trials=startup, n_warmup_epochs=warmup)
        return pruned_at(make_pruner(chosen, 8), [*[GOOD] * 4, BAD])

    assert after(4, 0) == 1
    assert after(4, 3) == 4
    assert after(5, 0) is None
    assert after(4, 2, "percentile") == 3
    assert after(0, 0, "none") is None


def test_percentile_and_patience_and_hyperband_have_their_own_settings():
    middle = [0.5] * 8

    def percentile(share):
        chosen = TuneSettings(pruner="percentile", percentile=share, n_startup_trials=3, n_warmup_epochs=0)
        return pruned_at(make_pruner(chosen, 8), [GOOD, BAD, BAD, middle])

    assert percentile(20) == 1
    assert percentile(90) is None
    falling = [0.3, 0.2, 0.15, 0.1, 0.1, 0.1, 0.1, 0.1]

    def patient(patience):
        chosen = TuneSettings(pruner="patient", patience=patience, n_startup_trials=1, n_warmup_epochs=0)
        return pruned_at(make_pruner(chosen, 8), [GOOD, falling])

    assert (patient(1), patient(3)) == (3, 5)
    hyperband = make_pruner(TuneSettings(pruner="hyperband", n_warmup_epochs=1), 27)
    assert isinstance(hyperband, optuna.pruners.HyperbandPruner)
    assert hyperband._reduction_factor == 3
    assert make_pruner(TuneSettings(pruner="hyperband", reduction_factor=4), 27)._reduction_factor == 4
    assert any(pruned_at(hyperband, [[0.9] * 27] * 8 + [[0.1] * 27]) is not None for _ in range(4))


@pytest.mark.parametrize("storage", [None, "journal", "file"])
def test_study_is_kept_where_it_is_told_and_found_again(folder, tmp_path, storage):
    url = f"sqlite:///{tmp_path / 'mine.db'}" if storage == "file" else storage
    study = made(folder, storage=url)
    study.tell(study.ask(), 0.5)
    files = {None: folder.database, "journal": folder.journal, "file": tmp_path / "mine.db"}
    assert files[storage].is_file()
    assert [trial.value for trial in made(folder, storage=url).trials] == [0.5]


def test_password_is_not_shown(folder):
    chosen = TuneSettings(storage="postgresql://me:secret@host/db")
    assert "secret" not in shown_storage(chosen, folder)


@pytest.mark.parametrize("url", ["foo", "://", "sqlite"])
def test_address_that_is_none_is_one_line(folder, url):
    with pytest.raises(SettingsError, match=r"tune\.storage: is no address of a database"):
        made(folder, storage=url)


def test_storage_that_cannot_be_written_is_one_line(folder):
    with pytest.raises(RunError, match="cannot be opened"):
        made(folder, storage="sqlite:////proc/nothing/study.db")


def test_study_of_something_else_is_refused(folder):
    made(folder, {"space": 1, "configuration": "a"})
    with pytest.raises(SettingsError, match=r"was begun with other settings \(configuration\)"):
        made(folder, {"space": 1, "configuration": "b"})
    with pytest.raises(SettingsError, match="was begun with other objectives"):
        made(folder, {"space": 1, "configuration": "a"}, metric="val/loss")


def test_direction_follows_from_the_metric(folder, tmp_path):
    assert made(folder).direction.name == "MAXIMIZE"
    assert made(StudyFolder(tmp_path / "loss"), metric="val/loss").direction.name == "MINIMIZE"
    two = made(StudyFolder(tmp_path / "two"), second_metric="multiply_adds", sampler="nsgaii", pruner="none")
    assert [direction.name for direction in two.directions] == ["MAXIMIZE", "MINIMIZE"]
    for values in ((0.9, 5.0), (0.8, 1.0), (0.7, 3.0)):
        two.tell(two.ask(), values)
    assert [trial.number for trial in best_trials(two)] == [0, 1, 2]


@pytest.mark.slow
def test_waiting_trial_is_taken_by_one_process_only(folder):
    """Two that take the same one would both run it, and the second could not tell its result."""
    code = """
import sys, time
from pathlib import Path
from visionforge.config.schema import TuneSettings
from visionforge.tuning.search import quiet_optuna
from visionforge.tuning.folder import StudyFolder
from visionforge.tuning.study import open_study
quiet_optuna()
study = open_study(TuneSettings(), StudyFolder(Path(sys.argv[1])), "s", {"a": 1})
print("ready", flush=True)
time.sleep(max(0.0, float(sys.argv[2]) - time.time()))
print(*(study.ask().number for _ in range(10)), flush=True)
"""
    study = made(folder)
    for number in range(40):
        study.enqueue_trial({"x": number})
    start = time.time() + 15
    with contextlib.ExitStack() as stack:
        processes = [stack.enter_context(python(code, folder.path, start, cwd=REPOSITORY)) for _ in range(4)]
        taken = [int(text) for process in processes for text in process.stdout.read().split()]
    assert sorted(taken) == list(range(40))


def test_trial_of_a_dead_process_is_tried_again_once(folder):
    study = made(folder)

    def killed():
        trial = study.ask()
        trial.suggest_float("x", 0, 1)
        trial.set_user_attr(EPOCHS, 3)
        trial.set_user_attr(OWNER, {**this_process().as_dict(), "pid": 4194303, "created": 1.0})
        return trial

    first = killed()
    assert [trial.number for trial in recover(study)] == [0]
    assert recover(study) == []
    assert counted(study.trials) == []
    second = killed()
    assert second.params == first.params
    assert study.trials[1].user_attrs[RETRY] == 0
    assert len(counted(study.trials)) == 1
    assert [trial.number for trial in recover(study)] == [1]
    assert [trial.state.name for trial in study.trials] == ["FAIL", "FAIL"], "not a third time"
    assert [trial.number for trial in finished(study.trials)] == [1]
    assert study.trials[1].user_attrs[REASON] == "its process was killed"


def test_a_trial_without_a_sign_of_life_is_tried_again_only_if_its_process_may_be_dead(folder, monkeypatch):
    """A machine that was suspended wakes up with old signs of life, and with all its processes."""
    study = made(folder)
    owners = {
        "lives": this_process().as_dict(),
        "dead": {**this_process().as_dict(), "pid": 4194303},
        "elsewhere": {**this_process().as_dict(), "machine": "node-7/1/2", "host": "node-7"},
        "nonsense": "somebody",
    }
    for owner in owners.values():
        trial = study.ask()
        trial.set_user_attr(OWNER, owner)
    monkeypatch.setattr(RDBStorage, "_get_stale_trial_ids", lambda *_: [trial._trial_id for trial in study.trials])
    optuna.storages.fail_stale_trials(study)
    states = dict(zip(owners, [trial.state.name for trial in study.trials], strict=True))
    assert states == {"lives": "RUNNING", "dead": "FAIL", "elsewhere": "FAIL", "nonsense": "FAIL"}


@pytest.mark.parametrize("owner", [None, {"pid": float("inf")}])
def test_trial_that_was_killed_before_it_said_whose_it_is_is_tried_again(folder, monkeypatch, owner):
    study = made(folder)
    trial = study.ask()
    trial.suggest_float("x", 0, 1)
    if owner is not None:  # a stranger's study
        trial.set_user_attr(OWNER, owner)
    assert recover(study) == [], "it may just have begun"
    assert [trial.number for trial in without_owner(study)] == [0]
    monkeypatch.setattr("visionforge.tuning.trials.OWNER_WAIT_S", -1.0)  # instead of waiting
    assert [trial.number for trial in recover(study)] == [0]
    assert counted(study.trials) == []


def test_a_kill_as_a_trial_begins_does_not_change_the_values_that_follow(folder, tmp_path, monkeypatch):
    monkeypatch.setattr("visionforge.tuning.trials.OWNER_WAIT_S", 0.5)
    chosen = settings(n_trials=6, n_startup_trials=2, target=None)

    def objective(trial):
        trial.set_user_attr(OWNER, this_process().as_dict())
        return -((trial.suggest_float("x", 0, 1) - 0.3) ** 2)

    def values(study, n_trials):
        until = settings(n_trials=n_trials, n_startup_trials=2, target=None)
        assert (
            search(study, until, space_of(chosen), objective, lambda _: None, None) == f"all {n_trials} trials are done"
        )
        return [trial.params["x"] for trial in finished(study.trials)]

    expected = values(made(StudyFolder(tmp_path / "whole")), 6)
    study = made(folder)
    assert values(study, 3) == expected[:3]
    study.ask()  # and killed here
    assert values(study, 6) == expected


def test_trial_of_a_living_process_is_left_alone(folder):
    study = made(folder)
    trial = study.ask()
    trial.set_user_attr(OWNER, this_process().as_dict())
    other = study.ask()
    other.set_user_attr(OWNER, {**this_process().as_dict(), "host": "elsewhere", "machine": "elsewhere/1/2"})
    assert recover(study) == []


def test_interrupted_trial_is_tried_again_however_often(folder):
    study = made(folder)
    for number in range(5):
        trial = study.ask()
        trial.suggest_float("x", 0, 1)
        trial.set_user_attr(EPOCHS, 3)
        cut_off(study, study.trials[number], "interrupted", 1000)
    assert len({trial.params["x"] for trial in study.trials[:5]}) == 1
    assert counted(study.trials) == []


def test_a_trial_that_was_killed_while_its_values_were_chosen_counts_for_nothing(folder):
    study = made(folder)
    trial = study.ask()
    trial.suggest_float("x", 0, 1)  # the first of several
    trial.set_user_attr(OWNER, {**this_process().as_dict(), "pid": 4194303, "created": 1.0})
    assert [cut.number for cut in recover(study)] == [0]
    assert counted(study.trials) == []
    assert len(study.trials) == 1, "half of its values are not tried again"


def test_the_configurations_own_trial_is_tried_again_without_any_value(folder):
    study = made(folder)
    study.enqueue_trial({}, user_attrs={OWN: True})
    study.ask().set_user_attr(EPOCHS, 3)
    assert cut_off(study, study.trials[0], "interrupted", 1000)
    (waiting,) = [trial for trial in study.trials if trial.state == TrialState.WAITING]
    assert waiting.user_attrs[OWN]
    assert not study.trials[0].user_attrs.get(SURPLUS)


def test_a_retry_that_is_one_too_many_does_not_take_its_predecessor_along(folder):
    study = made(folder)
    for _ in range(2):
        study.tell(study.ask(), 0.3)
    study.enqueue_trial({}, user_attrs={RETRY: 0})
    study.ask().set_user_attr(SURPLUS, True)
    assert [trial.number for trial in counted(study.trials)] == [0, 1]


def test_what_counts(folder):
    study = made(folder)
    study.tell(study.ask(), 0.3)
    surplus = study.ask()
    surplus.set_user_attr(SURPLUS, True)
    study.tell(surplus, state=TrialState.FAIL)
    study.enqueue_trial({"x": 1})
    assert [trial.number for trial in counted(study.trials)] == [0]


def fail(study, reason):
    trial = study.ask()
    trial.set_user_attr(REASON, reason)
    study.tell(trial, state=TrialState.FAIL)


def test_failures_in_a_row_stop_the_search_with_the_common_cause(folder):
    study = made(folder)
    chosen = settings(max_failures=3)
    fail(study, "a")
    study.tell(study.ask(), 0.3)
    for reason in ("out of memory", "a", "out of memory"):
        assert reason_to_stop(chosen, study.trials, None) is None
        fail(study, reason)
    assert len(failures_in_a_row(study.trials)) == 3
    with pytest.raises(TrainingError, match=r"3 trials in a row failed.*\(2 of 3\): out of memory"):
        reason_to_stop(chosen, study.trials, None)
    begun = datetime.datetime.now()  # the cause was mended, and the same command begins
    assert reason_to_stop(chosen, study.trials, None, begun) is None
    for _ in range(3):
        fail(study, "a")
    with pytest.raises(TrainingError, match="3 trials in a row failed"):
        reason_to_stop(chosen, study.trials, None, begun)


def test_of_two_objectives_the_first_does_not_end_the_search(folder):
    two = settings(second_metric="parameters", sampler="nsgaii", pruner="none", target_trials=1)
    study = open_study(two.tune, folder, "s", {"a": 1})
    study.tell(study.ask(), (1.0, 5.0))
    assert reason_to_stop(two, study.trials, None) is None


def test_target_needs_its_trials(folder):
    study = made(folder)
    for value, stops in ((0.99995, False), (0.3, False), (0.4, True)):
        study.tell(study.ask(), value)
        assert (reason_to_stop(settings(target_trials=3), study.trials, None) is not None) == stops
    assert reason_to_stop(settings(target=None), study.trials, None) is None
    assert reason_to_stop(settings(target=0.99999), study.trials, None) is None
    assert "reached the target of 0.9999" in reason_to_stop(settings(), study.trials, None)
    assert reason_to_stop(settings(metric="val/loss"), study.trials, None) is None


def test_number_of_trials_and_time_stop_the_search(folder):
    study = made(folder)
    study.tell(study.ask(), 0.3)
    assert reason_to_stop(settings(n_trials=1), study.trials, None) == "all 1 trials are done"
    assert reason_to_stop(settings(timeout_minutes=5), study.trials, 0.0) == "the time of 5 minutes is up"


@pytest.mark.slow
def test_cma_es_is_replayed_from_the_trials_and_unpickles_nothing(folder, tmp_path):
    """Against the cmaes package, told the same solutions in the same order."""
    chosen = settings(sampler="cmaes", n_startup_trials=1)
    study = made(folder, sampler="cmaes", n_startup_trials=1)

    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "unpickled"),)

    told: dict[int, list[tuple[np.ndarray, float]]] = {}
    for number in range(40):
        study.sampler = make_sampler(chosen.tune, space_of(chosen), 1, number)
        trial = study.ask()
        rate = trial.suggest_float("rate", 1e-3, 1e-1, log=True)
        drop = trial.suggest_float("drop", 0.0, 0.4)
        study._storage.set_trial_system_attr(trial._trial_id, "cma:optimizer:0", pickle.dumps(Trap()).hex())
        value = -((np.log10(rate) + 2) ** 2) - (drop - 0.1) ** 2
        study.tell(trial, value)
        generation = study.trials[-1].system_attrs.get("cma:generation")
        if generation is not None:
            told.setdefault(generation, []).append(
                (np.array([drop / 0.4, (np.log(rate / 1e-3)) / np.log(100)]), -value)
            )
    assert not (tmp_path / "unpickled").exists()
    reference = cmaes.CMA(mean=np.full(2, 0.5), sigma=1 / 6, bounds=np.array([[0.0, 1.0]] * 2), n_max_resampling=20)
    size = reference.population_size
    while len(told.get(reference.generation, [])) >= size:
        reference.tell(told[reference.generation][:size])
    assert reference.generation > 3
    completed = study.get_trials(states=(TrialState.COMPLETE,))
    space = {"drop": FloatDistribution(0.0, 0.4), "rate": FloatDistribution(1e-3, 1e-1, log=True)}
    scaling = _SearchSpaceTransform(space, transform_step=True, transform_0_1=True)
    replayed = make_sampler(chosen.tune, space_of(chosen), 1, 40)._replayed(scaling, study.direction, completed)
    assert replayed.generation == reference.generation
    np.testing.assert_allclose(replayed.mean, reference.mean, atol=1e-9)
    np.testing.assert_allclose(replayed._C, reference._C, atol=1e-9)


@pytest.mark.parametrize("kind", [None, "journal"])
def test_a_report_reads_a_study_and_changes_nothing_of_it(folder, kind):
    study = made(folder, storage=kind)
    study.tell(study.ask(), 0.3)
    path = folder.database if kind is None else folder.journal
    path.chmod(0o444)
    before = path.read_bytes(), sorted(path.parent.iterdir())
    loaded = load_study(settings(storage=kind).tune, folder, "s")
    assert [trial.value for trial in loaded.trials] == [0.3]
    assert (path.read_bytes(), sorted(path.parent.iterdir())) == before
    with pytest.raises(RunError, match="holds no study other"):
        load_study(settings(storage=kind).tune, folder, "other")


@pytest.mark.parametrize("content", [b"", b"SQLite format 3\0" + bytes(100), b"{]", b"\xff" * 5000])
@pytest.mark.parametrize("kind", [None, "journal"])
def test_a_damaged_storage_is_told_in_one_line(folder, kind, content):
    path = folder.database if kind is None else folder.journal
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    with pytest.raises(RunError):
        load_study(settings(storage=kind).tune, folder, "s")
    assert path.read_bytes() == content


def test_a_storage_behind_a_link_is_not_followed(folder, tmp_path):
    made(folder)
    folder.database.rename(tmp_path / "elsewhere.db")
    folder.database.symlink_to(tmp_path / "elsewhere.db")
    with pytest.raises(RunError, match="leads out of"):
        load_study(settings().tune, folder, "s")
