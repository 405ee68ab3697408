"""The functions and objects of `import visionforge`."""

import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from lightning.pytorch.callbacks import Callback, EarlyStopping
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.trainer.connectors.data_connector import warning_cache

import visionforge as vf
from tests.engine.test_one_parse import nested
from visionforge.cli.main import main
from visionforge.runs.paths import shown


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return vf.fit(nested(), trainer={"default_root_dir": tmp_path_factory.mktemp("python")})


class Counts(Callback):
    epochs = 0

    def on_train_epoch_end(self, trainer, pl_module):
        Counts.epochs += 1


def test_a_run_has_numbers_and_tables(run):
    assert run.state == "complete"
    assert 0 <= run.metrics["auc"] <= 1
    assert all(low <= high for low, high in run.intervals.values())
    assert isinstance(run.predictions, pd.DataFrame)
    assert len(run.predictions) == 32
    assert list(run.epochs["epoch"]) == [0, 1]
    assert run.settings.model.backbone.name == "mini_cnn"
    assert run.model.spec.classes == tuple(run.per_class)
    assert run.model.predict_probabilities(np.zeros((2, 28, 28, 3), np.uint8))[0].shape == (2, 4)
    assert "accuracy" in repr(run)
    page = run._repr_html_()
    assert "<table>" in page
    assert "<svg" in page
    assert "<script" not in page


@pytest.mark.parametrize(
    ("given", "named", "line"),
    [
        ("photos/", {}, 'type: vf.fit(vf.starter("photos/").settings)'),
        ("table.csv", {}, 'type: vf.fit(vf.starter("table.csv").settings)'),
        (
            "breastmnist",
            {},
            'type: vf.fit(data={"dataset": "breastmnist"}), or vf.fit(vf.starter("breastmnist").settings)',
        ),
        (None, {"minutes": 1}, "type: vf.fit(vf.starter(SOURCE, minutes=1).settings)"),
        (None, {}, "fit: say what is trained on"),
        (None, {"resume": "auto"}, "fit: say what is trained on"),
    ],
)
def test_what_a_starter_takes_is_answered_with_the_starter(tmp_path, monkeypatch, given, named, line):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    with pytest.raises(vf.SettingsError) as raised:
        vf.fit(given, **named)
    (told,) = raised.value.problems
    assert line in told


def test_a_starter_is_no_configuration():
    with pytest.raises(vf.SettingsError, match=r"type: vf.fit\(found.settings\)"):
        vf.fit(vf.starter("digits", minutes=1))


def test_runs_are_found_and_compared(run):
    assert vf.open_run(run.path).hash == vf.open_run(run).hash == run.hash
    assert vf.open_run(run.path.parent / "latest").name == run.name
    assert [each.name for each in vf.list_runs(run.path.parent)] == [run.name]
    comparison = vf.compare([run, run.path], resamples=50)
    assert "with_tta.auc" in comparison.metrics.index
    assert "<table" in comparison._repr_html_()
    assert set(comparison.tests["test"]) == {"delong", "mcnemar"}
    assert comparison.verdicts.empty
    judged = vf.compare([run, run.path], resamples=50, margins={"accuracy": 0.5})
    assert set(judged.verdicts["verdict"]) == {"non-inferior"}
    assert "non-inferior" in repr(judged)
    assert "non-inferior" in judged._repr_html_()
    with pytest.raises(vf.SettingsError, match="margins: 'accuracyy' is no metric; nearest: accuracy"):
        vf.compare([run, run.path], margins={"accuracyy": 0.5})
    for one in ([run], "latest", run.path, run):
        with pytest.raises(vf.SettingsError, match="compare: one run was given; two or more are compared"):
            vf.compare(one)
    with pytest.raises(vf.SettingsError, match="resamples: -1 is not allowed; allowed: 0 to 100,000"):
        vf.compare([run, run], resamples=-1)
    with pytest.raises(vf.SettingsError, match="confidence: 95 is not allowed"):
        vf.compare([run, run], confidence=95)


def test_an_evaluation_is_an_object(run):
    result = vf.evaluate(run, "val")
    assert result.path.parent.name == "evaluations"
    assert result.content["split"] == "val"
    assert len(result.predictions) == 32
    again = vf.evaluate(run.path / "checkpoints" / "best.ckpt", trainer={"default_root_dir": run.path.parent})
    assert again.metrics == run.metrics
    with pytest.raises(vf.SettingsError, match="split: train is not allowed"):
        vf.evaluate(run, "train")


def test_predictions_of_a_run_say_how_many_and_where(run):
    said = vf.predict(run)
    assert repr(said) == f"{len(said.predictions)} predictions: {shown(said.path / 'predictions.csv')}"
    assert f"{len(said.predictions)} predictions" in said._repr_html_()


def test_lightning_does_not_warn_of_who_augments(run, capsys):
    warning_cache.clear()
    vf.evaluate(run, "val")
    assert any("on_before_batch_transfer" in text for text in warning_cache)
    assert "on_before_batch_transfer" not in capsys.readouterr().err


def test_objects_among_the_flags(tmp_path):
    Counts.epochs = 0
    objects = {"callbacks": [EarlyStopping("val/loss"), Counts()], "logger": CSVLogger(tmp_path / "csv")}
    run = vf.fit(nested(), trainer={"default_root_dir": tmp_path / "o", "max_epochs": 1, **objects})
    assert Counts.epochs == 1
    assert [each["class_path"].rpartition(".")[2] for each in run.config["trainer"]["callbacks"]] == [
        "EarlyStopping",
        "Counts",
    ]
    assert list((tmp_path / "csv").rglob("metrics.csv"))


def test_several_seeds(tmp_path):
    runs = vf.fit(nested(), trainer={"default_root_dir": tmp_path, "max_epochs": 1}, seeds=[5, 9])
    assert [run.config["seed_everything"] for run in runs] == [5, 9]
    (again,) = vf.fit(nested(), trainer={"default_root_dir": tmp_path, "max_epochs": 1}, seeds=[9])
    assert again.path == runs[1].path


def test_a_search_returns_its_study(tmp_path):
    search = {"preset": "quick", "study": "s", "pruner": "none"}
    trainer = {"default_root_dir": tmp_path, "max_epochs": 1}
    study = vf.tune(nested(), n_trials=2, tune=search, trainer=trainer)
    assert list(study.trials["state"]) == ["complete", "complete"]
    assert study.best_settings.model.optimizer.learning_rate in set(study.trials["model.optimizer.learning_rate"])
    assert "best: trial" in repr(study)
    assert "<table" in study._repr_html_()
    assert vf.open_study(tmp_path / "studies" / "s").best == study.best


def test_mistakes_are_told_all_at_once_and_nothing_is_printed(tmp_path, capsys):
    with pytest.raises(vf.SettingsError) as caught:
        vf.fit(nested(), data={"batch_size": 0}, trainer={"max_epoch": 3}, seed_everything="x")
    lines = caught.value.problems
    assert len(lines) == 3
    assert all("(in Python)" in line for line in lines)
    with pytest.raises(vf.SettingsError, match=r"config: a int is not allowed"):
        vf.fit(3)
    with pytest.raises(vf.VisionForgeError, match="nothing"):
        vf.open_run("nothing")
    assert list(tmp_path.iterdir()) == []
    assert capsys.readouterr().out == ""


def test_the_command_line_and_its_arguments_are_no_input(run, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["notebook", "--data.batch_size", "0"])
    made = vf.fit(nested(), trainer={"default_root_dir": tmp_path, "max_epochs": 1})
    assert made.state == "complete"
    assert capsys.readouterr().out == ""


def test_importing_is_light_and_lists_the_public_names():
    code = (
        "import sys, visionforge as vf; print(sorted(dir(vf)) == sorted(vf.__all__)); "
        "print('torch' in sys.modules, 'lightning' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "False", "False"]
    for name in vf.__all__:
        assert getattr(vf, name) is not None


def test_what_python_trained_the_commands_know(run, capsys):
    assert main(["runs", "show", str(run.path)]) == 0
    assert run.name in capsys.readouterr().out


def test_no_name_of_a_run_steers_a_terminal_or_a_page(run, tmp_path, monkeypatch):
    """Folders come from strangers: their names are escaped in texts, and are no scheme of an address."""
    monkeypatch.chdir(tmp_path)
    named = tmp_path / "javascript:alert(1)\x1b[31m"
    shutil.copytree(run.path, named)
    (named / "report.html").write_text("", encoding="utf-8")
    opened = vf.open_run(named)
    compared = vf.compare([opened, run], resamples=0)
    for text in (repr(opened), repr(opened.result), repr(compared), opened._repr_html_(), compared._repr_html_()):
        assert "\x1b" not in text
    assert 'href="./javascript%3Aalert' in opened._repr_html_()
