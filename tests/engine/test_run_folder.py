"""RunFolder and SplitReport give anybody's training a whole run folder that survives whatever ends it."""

import os
import signal
import subprocess
import sys

import lightning.pytorch as pl
import pytest
import torch
import yaml

import visionforge as vf
from tests.cli.fleet import results, same_weights
from tests.conftest import EXHAUSTIVE, REPOSITORY, run_folders
from tests.engine import own_training
from visionforge.cli.main import main


def train(outputs, **environment) -> subprocess.CompletedProcess:
    """Run the training in a process of its own."""
    command = [sys.executable, "-m", "tests.engine.own_training", str(outputs)]
    known = {**os.environ, **environment, "PYTHONPATH": os.pathsep.join([str(REPOSITORY), *filter(None, sys.path)])}
    return subprocess.run(command, env=known, capture_output=True, text=True, check=False, timeout=300)


def only(outputs):
    (run,) = run_folders(outputs)
    return run


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The run of a training that nobody has interrupted."""
    outputs = tmp_path_factory.mktemp("whole")
    done = train(outputs)
    assert done.returncode == 0, done.stderr
    return only(outputs)


def test_a_training_by_callbacks_alone_leaves_a_whole_run(whole):
    run = vf.open_run(whole)
    assert run.state == "complete"
    assert whole.name.endswith(f"_rows_own_{run.hash}")
    assert list(run.epochs["epoch"]) == [0, 1, 2, 3]
    assert run.metrics["accuracy"] > 0.9
    low, high = run.intervals["accuracy"]
    assert low <= run.metrics["accuracy"] <= high
    assert len(run.predictions) == 60
    assert {"truth", "prediction", "probability_a", "raw_probability_a"} <= set(run.predictions.columns)
    assert run.report.stat().st_size > 100_000
    assert {path.name for path in (whole / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt", "last-previous.ckpt"}
    config = yaml.safe_load((whole / "config.yaml").read_text())
    assert config["config"] == {"rate": 0.01}
    assert config["trainer"]["max_epochs"] == 4
    assert "epoch 4, loss" in (whole / "run.log").read_text()


@pytest.mark.slow
@pytest.mark.parametrize(("name", "status"), [("SIGKILL", -9), pytest.param("SIGTERM", 1, marks=EXHAUSTIVE)])
def test_what_ends_it_is_gone_on_from_bit_by_bit(whole, tmp_path, name, status):
    ended = train(tmp_path, STOP="2.3", SIGNAL=name)
    assert ended.returncode == status, ended.stderr
    assert vf.open_run(only(tmp_path)).state == "interrupted"
    done = train(tmp_path)
    assert done.returncode == 0, done.stderr
    assert "continues from" in done.stderr
    run = only(tmp_path)
    assert vf.open_run(run).state == "complete"
    assert same_weights(run, whole)
    header, *rows = (run / "metrics.csv").read_text().splitlines()
    seconds = header.split(",").index("seconds")

    def without_times(text):
        return [[cell for place, cell in enumerate(line.split(",")) if place != seconds] for line in text.splitlines()]

    assert without_times((run / "metrics.csv").read_text()) == without_times((whole / "metrics.csv").read_text())
    assert results(run)[1] == results(whole)[1], "the predictions differ"
    assert len(rows) == 4


def fit(outputs, *more, module=None, **options):
    folder = vf.RunFolder(outputs, **{"data": "rows", **options})
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    trainer = pl.Trainer(max_epochs=1, callbacks=[folder, *more], **quiet)
    train_batches, val_batches = own_training.loader(64)[0], own_training.loader(32)[0]
    trainer.fit(module or own_training.Own(), train_batches, val_batches)
    return folder.workspace.path


def test_what_differs_is_another_run(tmp_path):
    first, again = fit(tmp_path), fit(tmp_path)
    other = fit(tmp_path, config={"rate": 1})
    assert vf.open_run(first).hash == vf.open_run(again).hash != vf.open_run(other).hash
    assert again.name == f"{first.name}-2"
    assert [run.state for run in vf.list_runs(tmp_path)] == ["complete"] * 3


class Fails(own_training.Own):
    def on_train_epoch_end(self):
        raise RuntimeError("of my own")


def test_an_error_is_written_into_the_run(tmp_path):
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(RuntimeError, match="of my own"):
        fit(tmp_path, module=Fails())
    run = vf.open_run(only(tmp_path))
    assert (run.state, run.stored.manifest.error) == ("failed", "RuntimeError: of my own")
    with pytest.raises(RuntimeError, match="of my own"):  # nothing holds the folder or the signals any more
        fit(tmp_path, module=Fails())
    assert signal.getsignal(signal.SIGINT) is before


def test_the_commands_say_whose_run_it_is(whole, capsys):
    for command in (["fit", "--resume", str(whole)], ["test", "--run", str(whole)], ["reproduce", str(whole)]):
        assert main(command) == 2
        assert "RunFolder" in capsys.readouterr().err or command[0] == "reproduce"
    assert main(["runs", "list", "--outputs", str(whole.parent)]) == 0
    assert whole.name[:20] in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"mode": "most"}, "mode: 'most' is not allowed; allowed: min, max"),
        ({"resume": "always"}, "resume: 'always' is not allowed; allowed: auto, never"),
        ({"checkpoint_minutes": 0}, "checkpoint_minutes: 0 is not allowed"),
    ],
)
def test_mistakes(tmp_path, options, said):
    with pytest.raises(vf.SettingsError, match=said):
        vf.RunFolder(tmp_path, **options)


@pytest.mark.slow
def test_report_without_a_run_folder_and_without_batches(tmp_path):
    spec = vf.TaskSpec.of_arrays(torch.rand(6, 8, 8).numpy(), torch.arange(6).numpy() % 3)
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    for report, said in (
        (vf.SplitReport(spec, own_training.loader(32)[0]), "there is no folder"),
        (vf.SplitReport(spec, folder=tmp_path / "r"), "there are no test batches"),
    ):
        trainer = pl.Trainer(max_epochs=1, enable_checkpointing=False, callbacks=[report], **quiet)
        with pytest.raises(vf.VisionForgeError, match=said):
            trainer.fit(own_training.Own(), own_training.loader(64)[0])
    report = vf.SplitReport(spec, own_training.loader(32)[0], folder=tmp_path / "r")
    trainer = pl.Trainer(max_epochs=1, enable_checkpointing=False, callbacks=[report], **quiet)
    trainer.fit(own_training.Own(), own_training.loader(64)[0])
    assert report.content["images"] == 32
    assert (tmp_path / "r" / "metrics.json").is_file()
