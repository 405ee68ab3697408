"""Kinds of fault that the public trackers of our dependencies tell of, and what happens here instead."""

import contextlib
import io
import json
import os
import signal
import warnings
from pathlib import Path

import numpy as np
import optuna
import pytest
import torch
import yaml
from optuna.trial import TrialState
from torch import nn

from tests.conftest import flags, run_folders
from visionforge.cli.main import main
from visionforge.models import BackboneEntry, register_backbone
from visionforge.models.mini_cnn import build_mini_cnn
from visionforge.models.registry import _ENTRIES
from visionforge.training.metrics import auc
from visionforge.tuning.figures import figures_of, for_figures, write_pictures
from visionforge.tuning.report import importances


def fitted(outputs: Path, *arguments: str, **changes: object) -> Path:
    """Return the folder of one quick fit."""
    assert main(["fit", *flags(**changes, trainer__default_root_dir=outputs), *arguments]) == 0
    (run,) = run_folders(outputs)
    return run


def printed(*arguments: str) -> dict:
    """Return the configuration that `--print_config` shows."""
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown):
        assert main(["fit", *flags(), *arguments, "--print_config"]) == 0
    return yaml.safe_load(shown.getvalue())


def epochs(run: Path) -> list[str]:
    """Return the rows of metrics.csv without their seconds."""
    return [line.rpartition(",")[0] for line in (run / "metrics.csv").read_text().splitlines()]


# --- Lightning


class StoppingCnn(nn.Module):
    """A network that asks its process to end at a batch of the training."""

    stop_at = 0
    seen = 0

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if self.training and len(images) > 1:
            StoppingCnn.seen += 1
            if StoppingCnn.seen == StoppingCnn.stop_at:
                os.kill(os.getpid(), signal.SIGTERM)
        return self.network(images)


@pytest.fixture
def stopping_cnn():
    def build(*, in_channels: int, num_classes: int, dropout: float, resolution: int, scale: int) -> nn.Module:
        sizes = {"in_channels": in_channels, "num_classes": num_classes, "dropout": dropout}
        return StoppingCnn(build_mini_cnn(**sizes, resolution=resolution, scale=scale))

    register_backbone(BackboneEntry("stopping_cnn", build, "asks to end", stride=4, head="network.head."))
    yield
    StoppingCnn.stop_at = 0
    del _ENTRIES["stopping_cnn"]


@pytest.mark.parametrize(
    ("changes", "batch"),
    [
        ({"trainer__val_check_interval": 0.5}, 2),  # the validation that follows this batch is not lost
        ({"trainer__val_check_interval": 3, "trainer__check_val_every_n_epoch": "null"}, 5),
        ({"trainer__reload_dataloaders_every_n_epochs": 1}, 3),
        ({"model__schedule__cosine_fraction": 0.3, "model__schedule__scheduler_patience": 0}, 6),
    ],
)
def test_resumed_within_an_epoch(tmp_path, stopping_cnn, changes, batch):
    """Lightning: a validation is repeated, left out or cut short after a resume within an epoch."""
    settings = {**changes, "model__backbone__name": "stopping_cnn"}
    whole = fitted(tmp_path / "whole", **settings)
    outputs = tmp_path / "stopped"
    StoppingCnn.seen, StoppingCnn.stop_at = 0, batch
    assert main(["fit", *flags(**settings, trainer__default_root_dir=outputs)]) == 128 + signal.SIGTERM
    StoppingCnn.stop_at = 0
    (run,) = run_folders(outputs)
    assert main(["fit", "--resume", str(run)]) == 0
    assert epochs(run) == epochs(whole)
    for name in ("best.ckpt", "last.ckpt"):
        one, other = (torch.load(each / "checkpoints" / name, weights_only=True) for each in (run, whole))
        assert one["global_step"] == other["global_step"]
        assert all(torch.equal(value, other["state_dict"][key]) for key, value in one["state_dict"].items())


def test_early_stopping_waits_for_the_epochs_that_are_validated(tmp_path):
    """Lightning: early stopping fails in the epochs that have no validation."""
    early = ["--trainer.callbacks+=EarlyStopping", "--trainer.callbacks.monitor=val/auc"]
    run = fitted(tmp_path, *early, trainer__check_val_every_n_epoch=2, trainer__max_epochs=3)
    assert [line.split(",")[4] != "" for line in epochs(run)[1:]] == [False, True, False]


@pytest.mark.parametrize(
    ("changes", "steps"),
    [({"trainer__accumulate_grad_batches": 3}, 4), ({"trainer__overfit_batches": 2}, 4), ({}, 8)],
)
def test_steps_of_a_training(tmp_path, changes, steps):
    """Lightning: with a last, smaller group of batches the number of steps is another than the schedule's."""
    run = fitted(tmp_path, **changes)
    assert json.loads((run / "run.json").read_text())["progress"]["steps"] == steps
    scheduler = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["lr_schedulers"][0]
    assert scheduler["last_epoch"] == steps
    assert scheduler["_last_lr"] == [pytest.approx(1e-6)]


def test_overfitting_on_some_batches_tests_the_whole_split(tmp_path):
    """Lightning: `overfit_batches` also limits, or replaces, what is evaluated."""
    run = fitted(tmp_path, trainer__overfit_batches=1)
    assert len((run / "predictions.csv").read_text().splitlines()) == 1 + 32


@pytest.mark.parametrize(
    "variables", [{"PL_TRAINER_MAX_EPOCHS": "1"}, {"PL_TRAINER_FAST_DEV_RUN": "true"}, {"PL_GLOBAL_SEED": "7"}]
)
def test_environment_does_not_change_a_run_behind_its_configuration(tmp_path, monkeypatch, quick_run, variables):
    """Lightning: variables of the environment set Trainer flags that no file shows."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    run = fitted(tmp_path, trainer__deterministic="true")
    assert epochs(run) == epochs(quick_run)


def test_sixteen_bits_with_every_special_part(tmp_path):
    """Lightning: mixed precision meets an optimiser or an average that expects float32."""
    muon = {"model__optimizer__name": "muon", "model__averaging__name": "ema", "model__optimizer__learning_rate": 0.02}
    run = fitted(tmp_path, trainer__precision="bf16-mixed", **muon)
    assert all(torch.isfinite(torch.tensor(float(line.split(",")[4]))) for line in epochs(run)[1:])


# --- jsonargparse


def test_printed_configuration_prints_itself(tmp_path):
    """jsonargparse: what `--print_config` shows cannot be read again."""
    first = printed("--model.optimizer.learning_rate", "1e-3", "--trainer.gradient_clip_val", "1e-1")
    (tmp_path / "printed.yaml").write_text(yaml.safe_dump(first))
    assert printed("--config", str(tmp_path / "printed.yaml")) == first
    assert first["model"]["optimizer"]["learning_rate"] == 0.001
    assert first["trainer"]["gradient_clip_val"] == 0.1


@pytest.mark.parametrize("section", ["data", "model", "trainer", "tune", "data.augmentation"])
def test_empty_section_is_a_mistake(tmp_path, refuse, section):
    """jsonargparse: a section without anything in it is null, and the error names something else."""
    outer, _, inner = section.partition(".")
    (tmp_path / "empty.yaml").write_text(f"{outer}:\n  {inner}:\n" if inner else f"{outer}:\n")
    (line,) = refuse("fit", "--config", str(tmp_path / "empty.yaml"))
    assert line.startswith(f"{section}: null is not allowed")


def test_callbacks_are_appended_to_those_of_a_file(tmp_path):
    """LightningCLI: appending on the command line drops the callbacks of the file."""
    early = {"class_path": "EarlyStopping", "init_args": {"monitor": "val/auc", "patience": 7}}
    (tmp_path / "callbacks.yaml").write_text(yaml.safe_dump({"trainer": {"callbacks": [early]}}))
    appended = ["--trainer.callbacks+=RichModelSummary", "--trainer.callbacks.max_depth=2"]
    found = printed("--config", str(tmp_path / "callbacks.yaml"), *appended)["trainer"]["callbacks"]
    assert [each["class_path"].rpartition(".")[2] for each in found] == ["EarlyStopping", "RichModelSummary"]
    assert (found[0]["init_args"]["patience"], found[1]["init_args"]["max_depth"]) == (7, 2)


def test_another_logger_does_not_inherit_arguments():
    """jsonargparse: the arguments of a class stay when another one is chosen."""
    first = ["--trainer.logger=CSVLogger", "--trainer.logger.save_dir=a", "--trainer.logger.flush_logs_every_n_steps=5"]
    chosen = printed(*first, "--trainer.logger=TensorBoardLogger", "--trainer.logger.save_dir=b")["trainer"]["logger"]
    assert chosen["class_path"].endswith("TensorBoardLogger")
    assert chosen["init_args"]["save_dir"] == "b"
    assert "flush_logs_every_n_steps" not in chosen["init_args"]


def test_one_key_of_a_mapping_on_the_command_line():
    """LightningCLI: a dotted key of a mapping lands beside it instead of in it."""
    weights = ["--data.balanced_sampling", "false", "--model.loss.class_weights.class 0", "2.0"]
    assert printed(*weights)["model"]["loss"]["class_weights"] == {"class 0": 2.0}


# --- Optuna, plotly


def searched(suggest, count: int = 8, value=None) -> optuna.Study:
    """Return a study whose trials have what `suggest` proposes."""
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=0))
    rng = np.random.default_rng(0)
    for number in range(count):
        trial = study.ask()
        suggest(trial, number)
        trial.report(float(rng.random()), 0)
        ended = number == 1
        study.tell(trial, None if ended else value or float(rng.random()), TrialState.PRUNED if ended else None)
    return study


def _either(trial: optuna.Trial, number: int) -> None:
    trial.suggest_float("b" if number % 2 else "c", 0, 1)


@pytest.mark.parametrize(
    ("suggest", "value"),
    [
        (lambda trial, _: (trial.suggest_categorical("a", [None, 1, 2]), trial.suggest_float("b", 0, 1)), None),
        (lambda trial, _: (trial.suggest_categorical("a", [None, 1, "x", True]), trial.suggest_int("b", 0, 1)), None),
        (lambda trial, _: (trial.suggest_float("a", 1, 1), trial.suggest_float("b", 0, 1)), None),
        (lambda trial, _: (trial.suggest_categorical("a", ["x"]), trial.suggest_int("b", 1, 1)), None),
        (lambda trial, _: (trial.suggest_float("a", 0, 1), trial.suggest_float("b", 0, 1)), 1.0),
        (_either, None),
        (lambda trial, _: None, None),
    ],
    ids=["none", "mixed", "constant", "one choice", "equal values", "conditional", "no parameters"],
)
def test_figures_of_odd_parameters(tmp_path, suggest, value):
    """Optuna, plotly: figures fail on mixed choices, on constants, and on values that do not vary."""
    searched_for = searched(suggest, value=value)
    study = for_figures(searched_for, searched_for.trials, {name: name for name in ("a", "b", "c")})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of pairs that no trial has together
        for figure in figures_of(study, importances(study), ["val/auc"]):
            with contextlib.suppress(ValueError):  # which the page tells as a sentence
                json.dumps(figure.draw(), allow_nan=False)
    write_pictures(study, tmp_path, importances(study), "val/auc", minimise=False)
    assert (tmp_path / "optimization_history.png").is_file()


# --- MedMNIST, torchmetrics, openpyxl


@pytest.mark.parametrize(
    ("task", "name", "classes"),
    [("binary", "binary-class", 2), ("multi-class", "multi-class", 4), ("ordinal", "ordinal-regression", 5)],
)
def test_watched_area_is_that_of_the_evaluator(task, name, classes):
    """MedMNIST, torchmetrics: labels have the shape (N, 1), and probabilities are rounded to 0 and 1."""
    evaluator = pytest.importorskip("medmnist.evaluator")
    generator = torch.Generator().manual_seed(3)
    shown = torch.softmax(torch.randn((400, classes), generator=generator) * 20, dim=1)
    labels = torch.randint(0, classes, (400, 1), generator=generator)
    expected = evaluator.getAUC(labels.numpy(), shown.numpy(), name)
    assert float(auc(shown, labels[:, 0], task)) == pytest.approx(expected, abs=1e-6)


def test_one_test_image_has_no_area_and_valid_files(tmp_path):
    """torchmetrics, openpyxl: a metric without a value is written as NaN, which JSON and Excel do not know."""
    run = fitted(tmp_path, data__synthetic__test=1, evaluation__report="true")
    json.loads((run / "metrics.json").read_text(), parse_constant=lambda name: pytest.fail(name))
    assert (run / "reports" / "training_summary.xlsx").stat().st_size > 0
