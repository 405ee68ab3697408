"""Flags of the Trainer change what they say, and nothing else: numbers of batches, lengths, precision, monitors."""

import csv
import dataclasses
import json

import numpy as np
import pytest
import torch
import yaml

from tests.conftest import flags, run_folders
from visionforge.cli.main import main
from visionforge.data.source import EMBEDDED
from visionforge.engine.limits import integers_first, limited
from visionforge.runs.config_hash import digest

LONGER = {"data__synthetic__train": 128, "model__tta": "off"}  # eight batches


def fitted(outputs, *more, **changes):
    """Fit, and return the run folder and its manifest."""
    before = set(run_folders(outputs))
    settings = {**LONGER, "trainer__default_root_dir": outputs, **changes}
    status = main(["fit", *flags(**settings), *more])
    assert status == 0
    (run,) = set(run_folders(outputs)) - before
    return run, json.loads((run / "run.json").read_text())


def column(run, name):
    with (run / "metrics.csv").open(newline="") as file:
        return [float(row[name]) if row[name] else None for row in csv.DictReader(file)]


@pytest.mark.parametrize(("value", "steps"), [("1", 1), ("1.0", 8), ("0.5", 4), ("3", 3)])
def test_one_is_a_batch_and_one_point_zero_is_all(tmp_path, value, steps):
    run, manifest = fitted(tmp_path, trainer__max_epochs=1, trainer__limit_train_batches=value)
    assert manifest["progress"]["steps"] == steps
    kept = yaml.safe_load((run / "config.yaml").read_text())["trainer"]["limit_train_batches"]
    assert (kept, type(kept)) == (yaml.safe_load(value), type(yaml.safe_load(value)))


def test_the_type_of_a_limit_is_part_of_the_digest_and_all_is_the_default():
    def of(**trainer):
        return digest({"data": {}, "trainer": {"limit_train_batches": None, **trainer}})

    assert of(limit_train_batches=1) != of(limit_train_batches=1.0) == of()
    assert of(gradient_clip_val=1) == of(gradient_clip_val=1.0) != of()
    assert of(check_val_every_n_epoch=None) != of(check_val_every_n_epoch=1) == of()


def test_integers_come_first_whatever_was_made_before():
    assert integers_first(float | int | None) == int | float | None
    assert str(integers_first(float | int | None)) == "int | float | None"
    assert integers_first(float | None) is None
    assert integers_first(int) is None


@pytest.mark.parametrize(("limit", "images"), [(None, 100), (1.0, 100), (0.5, 64), (2, 64), (9, 100), (0, 0)])
def test_images_that_a_limit_leaves(limit, images):
    assert limited(100, limit, 32) == images


def test_without_a_test_batch_there_are_no_test_results(tmp_path, capsys):
    run, manifest = fitted(tmp_path, trainer__max_epochs=1, trainer__limit_test_batches=0)
    assert manifest["state"] == "complete"
    assert not (run / "metrics.json").exists()
    assert not (run / "predictions.csv").exists()
    assert "no image of the test split was evaluated" in capsys.readouterr().err


@pytest.mark.parametrize("ends", [{"trainer__max_epochs": 5}, {"trainer__max_steps": 40}])
def test_a_step_schedule_falls_by_epochs_however_the_training_ends(tmp_path, ends):
    schedule = {"model__schedule__name": "step", "model__schedule__step_epochs": 2, "model__schedule__gamma": 0.5}
    changes = {"trainer__max_epochs": 60, **schedule, **ends}
    run, manifest = fitted(tmp_path, model__optimizer__learning_rate=0.01, **changes)
    assert column(run, "lr") == [0.01, 0.01, 0.005, 0.005, 0.0025]  # of the last step of each epoch
    assert manifest["progress"] == {"epochs": 5, "max_epochs": 5, "steps": 40}


def test_warm_up_cosine_and_accumulation_follow_the_optimiser_steps(tmp_path):
    """8 batches in groups of 3 are 3 steps an epoch; against the closed form."""
    run, manifest = fitted(
        tmp_path,
        trainer__max_epochs=60,
        trainer__max_steps=9,
        trainer__accumulate_grad_batches=3,
        model__schedule__warmup_epochs=1,
        model__schedule__min_lr=0.001,
        model__optimizer__learning_rate=0.01,
    )
    assert manifest["progress"] == {"epochs": 3, "max_epochs": 3, "steps": 9}
    cosine = [0.001 + 0.009 * (1 + torch.cos(torch.tensor(torch.pi * s / 6)).item()) / 2 for s in range(6)]
    assert column(run, "lr") == pytest.approx([0.01 * 3 / 4, cosine[2], cosine[5]], rel=1e-5)


@pytest.mark.parametrize("precision", ["bf16-true", "64-true", "bf16-mixed"])
def test_every_precision_trains_calibrates_and_predicts(tmp_path, precision):
    run, _ = fitted(
        tmp_path,
        trainer__precision=precision,
        model__tta="full",
        data__dataset="digits",
        data__resolution=8,
        data__max_samples=128,
        evaluation__report="true",
    )
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["without_tta"]["auc"] is not None
    assert main(["validate", "--run", str(run)]) == 0
    content = torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)["state_dict"]
    wanted = {"bf16-true": torch.bfloat16, "64-true": torch.float64}.get(precision, torch.float32)
    assert content["network.features.0.weight"].dtype == wanted


def test_a_training_that_steps_cut_short_says_what_it_does_not_reach(tmp_path, capsys):
    fitted(
        tmp_path,
        trainer__max_epochs=9,
        trainer__max_steps=9,
        model__schedule__warmup_epochs=1,
        model__averaging__name="ema",
        model__averaging__start_epoch=3,
    )
    told = "trainer.max_steps: 9 steps end the training in epoch 2, before model.averaging.start_epoch (3)"
    assert told in capsys.readouterr().err


def test_overfitting_repeats_the_first_batches(tmp_path, caplog):
    run, manifest = fitted(tmp_path, trainer__overfit_batches=2, trainer__max_epochs=3)
    assert manifest["progress"]["steps"] == 6
    losses = column(run, "train/loss")
    assert losses[2] < losses[0]


MISTAKES = {
    "no group": (["--trainer.accumulate_grad_batches", "0"], "trainer.accumulate_grad_batches: 0 is not allowed"),
    "no batch": (["--trainer.limit_train_batches", "0.01"], "trainer: You requested to check 0.01"),
    "no gpu": (["--trainer.sync_batchnorm", "true"], "trainer.sync_batchnorm: true needs GPUs, the device is the CPU"),
    "more epochs": (["--trainer.min_epochs", "5"], "trainer.min_epochs: 5 is not allowed; at most 2"),
    "more steps": (["--trainer.max_steps", "4", "--trainer.min_steps", "5"], "trainer.min_steps: 5 is not allowed"),
    "never validated": (["--trainer.check_val_every_n_epoch", "3"], "trainer.check_val_every_n_epoch: 3 leaves no"),
    "interval": (["--trainer.val_check_interval", "30"], "trainer: `val_check_interval`"),
    "no checkpoints": (["--trainer.enable_checkpointing", "false"], "trainer.enable_checkpointing: false is not"),
    "barebones": (["--trainer.barebones", "true"], "trainer.barebones: true is not allowed"),
    "devices": (["--trainer.devices", "-1"], "trainer: `devices` selected with `CPUAccelerator`"),
    "clip": (["--trainer.gradient_clip_val", "-1"], "trainer.gradient_clip_val: -1 is not allowed"),
    "averaged in 8 bits": (
        ["--trainer.precision", "bf16-true", "--model.averaging.name", "ema"],
        "model.averaging.name: ema is lost in rounding under trainer.precision bf16-true",
    ),
    "monitor": (
        ["--trainer.callbacks+=EarlyStopping", "--trainer.callbacks.monitor=val_loss"],
        "trainer.callbacks: EarlyStopping goes by 'val_loss', which is not logged; nearest: val/loss",
    ),
    "steps as a number": (
        ["--trainer.max_steps", "4.0"],
        "trainer.max_steps: 4.0 is not allowed (on the command line); allowed: an integer",
    ),
    "sanity steps as a text": (
        ["--trainer.num_sanity_val_steps", "1e1"],
        "trainer.num_sanity_val_steps: '1e1' is not allowed (on the command line); allowed: an integer or null",
    ),
    "step of another callback": (
        ["--trainer.callbacks+=EarlyStopping", "--trainer.callbacks.monitor=step"],
        "trainer.callbacks: EarlyStopping goes by 'step', which is not logged",
    ),
    "finder": (["--trainer.callbacks+=BatchSizeFinder"], "trainer.callbacks: BatchSizeFinder does not go with a run"),
}


@pytest.mark.parametrize(("arguments", "told"), MISTAKES.values(), ids=MISTAKES)
def test_mistakes_are_told_before_anything_is_trained(refuse, arguments, told):
    (line,) = refuse("fit", *flags(), *arguments)
    assert line.startswith(told)


INTEGERS = {
    "data.batch_size": "allowed: an integer, 1 to 2048",
    "trainer.max_epochs": "allowed: an integer, 1 to 1000 epochs",
    "evaluation.resamples": "allowed: an integer, 0 to 100000",
    "data.max_samples": "allowed: an integer, at least 1 or null",
    "seed_everything": "allowed: an integer, 0 to 4294967295",
}


@pytest.mark.parametrize("written", ["16.0", "1e1", "'16'", "true"])
@pytest.mark.parametrize("name", INTEGERS)
def test_an_integer_is_written_as_one(refuse, tmp_path, name, written):
    value = yaml.safe_load(written)
    tree = value
    for part in reversed(name.split(".")):
        tree = {part: tree}
    (tmp_path / "x.yaml").write_text(yaml.safe_dump(tree))
    given = flags()
    if f"--{name}" in given:
        del given[given.index(f"--{name}") : given.index(f"--{name}") + 2]
    for where, arguments in (("on the command line", [f"--{name}", written]), ("in x.yaml", ["--config", "x.yaml"])):
        (line,) = refuse("fit", *given, *arguments)
        assert line == f"{name}: {value!r} is not allowed ({where}); {INTEGERS[name]}"


@pytest.mark.parametrize("watched", ["step", "epoch"])
def test_a_checkpoint_can_go_by_what_it_counts_itself(tmp_path, watched):
    chosen = ["--trainer.callbacks+=ModelCheckpoint", f"--trainer.callbacks.monitor={watched}"]
    more = [f"--trainer.callbacks.dirpath={tmp_path / 'mine'}", "--trainer.callbacks.mode=max"]
    fitted(tmp_path / "outputs", *chosen, *more)
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["epoch=1-step=16.ckpt"]


@pytest.mark.parametrize(
    ("given", "defined"),
    [
        ({"limit_val_batches": 1}, False),
        ({"limit_val_batches": 2}, True),
        ({"overfit_batches": 1}, False),
        ({"overfit_batches": 0.5, "limit_val_batches": 2}, False),
        ({"overfit_batches": 2, "limit_val_batches": 1}, True),
        ({"fast_dev_run": "true"}, False),
        ({"fast_dev_run": 1, "limit_val_batches": 2}, False),
        ({"fast_dev_run": 2, "limit_val_batches": 1}, True),
        ({"fast_dev_run": 1, "overfit_batches": 2}, True),
    ],
)
def test_the_monitor_is_chosen_by_the_images_that_are_validated(tmp_path, capsys, monkeypatch, given, defined):
    """All images of the first validation batch are of one class, those of the second of the other."""
    render = EMBEDDED["synthetic"]

    def one_class_after_the_other(info, resolution, split):
        arrays = render(info, resolution, split)
        order = np.argsort(np.asarray(arrays.labels), kind="stable")
        return dataclasses.replace(arrays, images=arrays.images[order], labels=arrays.labels[order])

    monkeypatch.setitem(EMBEDDED, "synthetic", one_class_after_the_other)
    chosen = {f"trainer__{name}": value for name, value in given.items()}
    assert main(["fit", *flags(trainer__default_root_dir=tmp_path, data__synthetic__classes=2, **chosen)]) == 0
    assert ("epochs are compared by val/loss" in capsys.readouterr().err) != defined
    if "fast_dev_run" not in given:  # which writes no table
        (run,) = run_folders(tmp_path)
        assert all(value == value for value in column(run, "val/auc") if value is not None) == defined


@pytest.mark.parametrize("stage", ["test", "validate", "predict"])
def test_an_evaluation_of_nothing_is_refused(refuse, quick_run, stage):
    split = {"test": "test", "validate": "val", "predict": "predict"}[stage]
    (line,) = refuse(stage, "--run", str(quick_run), f"--trainer.limit_{split}_batches", "0")
    assert line == f"trainer.limit_{split}_batches: 0 leaves nothing to evaluate; raise it, or leave it out"


def test_callbacks_that_log_by_steps_and_hold_enumerations_work(tmp_path):
    path = tmp_path / "callbacks.yaml"
    path.write_text(
        "trainer: {callbacks: [{class_path: LearningRateMonitor, init_args: {logging_interval: step}}, "
        "{class_path: Timer, init_args: {duration: '00:00:10:00'}}]}\n"
    )
    run, _ = fitted(tmp_path / "outputs", "--config", str(path))
    assert column(run, "epoch") == [0, 1]
    assert (
        yaml.safe_load((run / "config.yaml").read_text())["trainer"]["callbacks"][1]["init_args"]["interval"] == "step"
    )


def test_a_flag_wins_over_a_file_wherever_it_stands(tmp_path, capsys):
    path = tmp_path / "base.yaml"
    path.write_text("data: {batch_size: 64}\n")
    for arguments in (["--data.batch_size", "16", "--config", str(path)], ["-c", str(path), "--data.batch_size", "16"]):
        assert main(["fit", *arguments, "--print_config"]) == 0
        assert yaml.safe_load(capsys.readouterr().out)["data"]["batch_size"] == 16
