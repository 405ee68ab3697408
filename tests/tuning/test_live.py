"""What the terminal shows of a search."""

import io

import optuna
import pytest
from optuna.trial import TrialState
from rich.console import Console

from visionforge.tuning.live import Progress, params_text, value_text
from visionforge.tuning.objective import EPOCHS
from visionforge.tuning.report import short_names, summary
from visionforge.tuning.trials import REASON


def shown(progress):
    console = Console(file=io.StringIO(), width=100)
    console.print(progress._render())
    return console.file.getvalue()


@pytest.fixture
def study():
    study = optuna.create_study(direction="maximize")
    trial = study.ask()
    trial.suggest_float("model.optimizer.learning_rate", 0.1, 0.1)
    study.tell(trial, 0.75)
    trial = study.ask()
    trial.report(0.5, 0)
    study.tell(trial, state=TrialState.PRUNED)
    trial = study.ask()
    trial.set_user_attr(REASON, "out of memory")
    study.tell(trial, state=TrialState.FAIL)
    return study


def test_table_counts_and_names_the_best(study):
    text = shown(Progress(study, 10, ["val/auc"], quiet=False))
    assert "3/10 trials   1 complete, 1 pruned, 1 failed" in text
    assert "best: trial 0, val/auc 0.7500" in text
    assert "learning_rate 0.1" in text
    assert "time left –" in text


def test_current_epoch_is_shown(study):
    progress = Progress(study, 10, ["val/auc"], quiet=False)
    progress.epoch(3, 4, 9, 0.6)
    assert "trial 3, epoch 4/9, val/auc 0.6000" in shown(progress)


def test_trials_of_other_processes_are_shown(study):
    trial = study.ask()
    trial.set_user_attr(EPOCHS, 9)
    trial.report(0.3, 0)
    progress = Progress(study, 10, ["val/auc"], quiet=False)
    with progress:
        progress._live = type("Live", (), {"update": lambda self, text: None, "__exit__": lambda *_: None})()
        progress.tick()
        progress._live = None
    assert "trial 3, epoch 1/9" in shown(progress)


def test_a_line_per_trial_once(study, caplog):
    progress = Progress(study, 10, ["val/auc"], quiet=False)
    study.tell(study.ask(), 0.8)
    with caplog.at_level("INFO"):
        progress.refresh()
        progress.refresh()
    assert [record.message.split(",")[0] for record in caplog.records] == ["trial 3 (4/10) val/auc 0.8000"]


def test_short_names_tell_parameters_apart():
    names = short_names(["model.mixup.alpha", "model.loss.alpha", "model.loss.gamma"])
    assert names == {
        "model.mixup.alpha": "mixup.alpha",
        "model.loss.alpha": "loss.alpha",
        "model.loss.gamma": "gamma",
    }


def test_values_and_parameters_in_words(study):
    assert (value_text(0.98765), value_text(94246.0)) == ("0.9877", "94,246")
    assert params_text(study.trials[0]) == "learning_rate 0.1"


def test_epochs_are_counted_where_not_every_one_is_validated():
    study = optuna.create_study(direction="maximize")
    trial = study.ask()
    trial.set_user_attr(EPOCHS, 8)
    for epoch in (1, 3):  # from 0, every second
        trial.report(0.5, epoch)
    study.tell(trial, state=TrialState.PRUNED)
    (row,) = summary(study, ["val/auc"], {})["trials"]
    assert row["epochs"] == 4
    assert summary(study, ["val/auc"], {})["epochs_saved"] == 0.5
    assert "pruned after 4 epochs" in Progress(study, 1, ["val/auc"], quiet=False)._line(study.trials[0])
