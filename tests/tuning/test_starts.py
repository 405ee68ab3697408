"""A search begins with the best trials of earlier studies, whatever images these were on, and whoever made them."""

import optuna
import pytest
import yaml
from optuna.distributions import CategoricalDistribution, FloatDistribution

from tests.conftest import flags, run_folders
from tests.tuning.test_study import STEPS, settings, space_of
from visionforge.cli.main import main
from visionforge.errors import RunError, SettingsError
from visionforge.tuning.folder import StudyFolder
from visionforge.tuning.search import begin
from visionforge.tuning.starts import earlier_values
from visionforge.tuning.study import open_study

RATE, BATCH, DROPOUT = "model.optimizer.learning_rate", "data.batch_size", "model.backbone.dropout"
DISTRIBUTIONS = {
    RATE: FloatDistribution(1e-6, 1.0, log=True),
    BATCH: CategoricalDistribution([16, 32, 64]),
    DROPOUT: FloatDistribution(0.0, 0.9),
    "model.mixup.alpha": FloatDistribution(0.0, 1.0),
}


def earlier(folder, name, *trials, **tune):
    """A study of an earlier search: trials of (values, value or None if it was pruned)."""
    study_folder = StudyFolder(folder / name)
    study_folder.path.mkdir(parents=True)
    chosen = settings(**tune).tune
    study_folder.settings.write_text(yaml.safe_dump({"tune": chosen.model_dump(mode="json")}))
    study = open_study(chosen, study_folder, name, {})
    for params, value in trials:
        state = optuna.trial.TrialState.PRUNED if value is None else optuna.trial.TrialState.COMPLETE
        study.add_trial(
            optuna.trial.create_trial(
                params=params, distributions={path: DISTRIBUTIONS[path] for path in params}, value=value, state=state
            )
        )
    return study_folder


@pytest.fixture
def space():
    return space_of(settings())


def test_best_ones_come_first_and_take_turns(tmp_path, space):
    earlier(tmp_path, "one", ({RATE: 0.01}, 0.7), ({RATE: 0.02}, 0.9), ({RATE: 0.03}, None), ({RATE: 0.05}, 0.8))
    earlier(tmp_path, "two", ({BATCH: 32}, 0.6))
    found = earlier_values(("one", str(tmp_path / "two")), 2, space, tmp_path)
    assert found == [{RATE: 0.02}, {BATCH: 32}, {RATE: 0.05}]


def test_lower_is_better_where_the_study_says_so(tmp_path, space):
    earlier(tmp_path, "one", ({RATE: 0.01}, 0.7), ({RATE: 0.02}, 0.9), metric="val/loss")
    assert earlier_values(("one",), 1, space, tmp_path) == [{RATE: 0.01}]


def test_only_what_can_be_proposed_is_taken_and_once(tmp_path, space):
    earlier(
        tmp_path,
        "one",
        ({RATE: 0.5, BATCH: 64, DROPOUT: 0.33, "model.mixup.alpha": 0.2}, 0.9),  # nothing of it is in the ranges
        ({RATE: 0.5, BATCH: 16, DROPOUT: 0.1}, 0.8),
        ({RATE: 0.7, BATCH: 16, DROPOUT: 0.1}, 0.7),  # the same of what is left
        ({RATE: 0.01, BATCH: 64, DROPOUT: 0.3}, 0.6),
    )
    found = earlier_values(("one",), 5, space, tmp_path)
    assert found == [{BATCH: 16, DROPOUT: 0.1}, {RATE: 0.01, DROPOUT: 0.3}]


def test_they_are_tried_after_the_own_values_and_never_twice(tmp_path, space):
    folder = StudyFolder(tmp_path / "mine")
    study = open_study(settings().tune, folder, "mine", {})
    starts = [{RATE: 0.02, BATCH: 32, DROPOUT: 0.1}, {BATCH: 16}]
    begin(study, space)
    for _ in range(2):
        begin(study, space, starts)  # the second time as a command that goes on
        begin(study, space, starts)
    values = [space.suggest(study.ask()) for _ in range(3)]
    assert values[0][RATE] == settings().model.optimizer.learning_rate
    assert values[1] == starts[0]
    assert values[2][BATCH] == 16
    begin(study, space, starts)
    assert not study.get_trials(states=(optuna.trial.TrialState.WAITING,))


def test_mistakes_are_one_line(tmp_path, space):
    earlier(tmp_path, "one", ({"model.mixup.alpha": 0.2}, 0.9), ({RATE: 0.01}, None))
    with pytest.raises(SettingsError, match=r"tune.start_from: no completed trial of .*one has a value"):
        earlier_values(("one",), 5, space, tmp_path)
    with pytest.raises(RunError, match=r"tune.start_from: onee is no study: .*nearest: one"):
        earlier_values(("onee",), 5, space, tmp_path)
    away = tmp_path / "away"
    away.mkdir()
    (away / "config.yaml").write_text(yaml.safe_dump({"tune": {"storage": "postgresql://elsewhere/x"}}))
    with pytest.raises(SettingsError, match=r"tune.start_from: the study is kept in a database of its own, which is"):
        earlier_values(("away",), 5, space, tmp_path)
    (away / "config.yaml").write_text("tune: {}")
    with pytest.raises(RunError, match="holds no database"):
        earlier_values(("away",), 5, space, tmp_path)


@pytest.mark.slow
def test_from_the_command_line(tmp_path, capsys):
    space = {RATE: STEPS[RATE], BATCH: STEPS[BATCH]}
    given = [
        *flags(trainer__default_root_dir=tmp_path, trainer__max_epochs=1),
        *("--tune.preset", "none", "--tune.space", yaml.safe_dump(space, default_flow_style=True).strip()),
        *("--tune.pruner", "none", "--tune.sampler", "random", "--tune.n_startup_trials", "0"),
    ]
    studies = tmp_path / "studies"
    earlier(studies, "before", ({RATE: 0.0123, BATCH: 16}, 0.9), ({RATE: 0.02, BATCH: 16}, 0.8))
    more = ["--tune.start_from", "[before]", "--tune.start_trials", "1", "--tune.n_trials", "2", "--tune.study", "now"]
    assert main(["tune", *given, *more]) == 0
    assert "1 trials of earlier studies are tried first" in capsys.readouterr().err
    runs = run_folders(studies / "now" / "trials")
    rates = [yaml.safe_load((run / "config.yaml").read_text())["model"]["optimizer"]["learning_rate"] for run in runs]
    assert 0.0123 in rates
    assert main(["tune", *given, *more, "--tune.sampler", "grid"]) == 2
    assert "tune.start_from: a grid tries every point" in capsys.readouterr().err
    assert main(["tune", *given, *more[2:], "--tune.start_from", "[nothing]"]) == 2
    assert "tune.start_from: nothing is no study" in capsys.readouterr().err
