"""A fit leaves a complete, self-describing run; later evaluations repeat its numbers."""

import csv
import datetime
import json
import logging
import os
import shutil
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
import torch
import torchvision
import yaml
from medmnist.evaluator import getACC, getAUC

from tests.conftest import REPOSITORY, flags, run_folders
from visionforge.cli.main import main
from visionforge.config.schema import Optimizer
from visionforge.data import dataset_info
from visionforge.evaluation.predictions import read_predictions
from visionforge.models import backbone_entry
from visionforge.runs.config_hash import digest
from visionforge.training.classifier import ImageClassifier


def fit(outputs: Path, *arguments: str, **changes: object) -> Path:
    """Fit with quick settings and return the new run folder."""
    before = set(run_folders(outputs))
    assert main(["fit", *flags(trainer__default_root_dir=outputs, **changes), *arguments]) == 0
    (run,) = set(run_folders(outputs)) - before
    return run


def weights(run: Path, name: str = "last") -> dict[str, torch.Tensor]:
    return torch.load(run / "checkpoints" / f"{name}.ckpt", weights_only=True)["state_dict"]


def same(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> bool:
    return one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)


def test_folder_is_complete(quick_run):
    files = {str(path.relative_to(quick_run)) for path in quick_run.rglob("*") if path.is_file()}
    assert files >= {
        "config.yaml",
        "metrics.json",
        "metrics.csv",
        "predictions.csv",
        "run.log",
        "checkpoints/best.ckpt",
        "checkpoints/last.ckpt",
        "figures/training_curves.png",
        "figures/confusion_matrix.png",
        "figures/sample_predictions.png",
    }
    for name in ("training_curves", "confusion_matrix", "sample_predictions"):
        assert matplotlib.image.imread(quick_run / "figures" / f"{name}.png").std() > 0.02


def test_name_is_date_dataset_model_and_digest(quick_run):
    config = yaml.safe_load((quick_run / "config.yaml").read_text())
    assert quick_run.name == f"{datetime.date.today():%Y%m%d}_synthetic_mini_cnn_{digest(config)}"


def test_log_begins_at_the_beginning(quick_run):
    lines = (quick_run / "run.log").read_text().splitlines()
    assert "Seed set to 42" in lines[0]
    assert any("run folder" in line for line in lines)
    assert sum("epoch 2, loss" in line for line in lines) == 1
    assert not any("WARNING" in line for line in lines), [line for line in lines if "WARNING" in line]


def test_table_of_epochs(quick_run):
    with (quick_run / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["0", "1"]
    assert all(float(row[key]) > 0 for row in rows for key in ("train/loss", "val/loss", "val/auc", "lr", "seconds"))


def test_metrics_are_those_of_the_predictions(quick_run):
    reported = json.loads((quick_run / "metrics.json").read_text())
    assert reported["images"] == 32
    assert reported["split"] == "test"
    for key, tta in (("without_tta", False), ("with_tta", True)):
        shown, labels = read_predictions(quick_run / "predictions.csv", tta)
        assert reported[key]["accuracy"] == pytest.approx(getACC(labels[:, None], shown, "multi-class"), abs=1e-6)
        assert reported[key]["auc"] == pytest.approx(getAUC(labels[:, None], shown, "multi-class"), abs=1e-6)
        assert 0 <= reported[key]["f1_macro"] <= 1
        assert 0 <= reported[key]["balanced_accuracy"] <= 1


def test_best_checkpoint_is_the_epoch_with_the_best_auc(quick_run):
    with (quick_run / "metrics.csv").open(newline="") as file:
        best = max((float(row["val/auc"]), int(row["epoch"])) for row in csv.DictReader(file))
    content = torch.load(quick_run / "checkpoints" / "best.ckpt", weights_only=True)
    assert content["epoch"] == best[1]


def test_checkpoint_predicts_what_the_table_says(quick_run):
    from visionforge.data import MedMNISTDataModule

    config = yaml.safe_load((quick_run / "config.yaml").read_text())
    images = MedMNISTDataModule(**config["data"]).dataset_for("test").images
    file = quick_run / "checkpoints" / "best.ckpt"
    model = ImageClassifier.load_from_checkpoint(file, map_location="cpu", weights_only=True).eval()
    with torch.no_grad():
        shown, averaged = model.predict_probabilities(images)
    for tta, ours in ((False, shown), (True, averaged)):
        np.testing.assert_allclose(ours.numpy(), read_predictions(quick_run / "predictions.csv", tta)[0], atol=1e-5)


def test_config_of_a_run_repeats_it(plain_run, tmp_path):
    arguments = ["--config", str(plain_run / "config.yaml"), "--trainer.default_root_dir", str(tmp_path / "again")]
    assert main(["fit", *arguments]) == 0
    (again,) = run_folders(tmp_path / "again")
    assert again.name == plain_run.name
    assert same(weights(plain_run), weights(again))
    assert json.loads((again / "metrics.json").read_text()) == json.loads((plain_run / "metrics.json").read_text())


@pytest.mark.parametrize("workers", [1, 2])
def test_strict_mode_is_bit_identical_with_any_workers(quick_run, tmp_path, workers):
    run = fit(tmp_path / "outputs", trainer__deterministic="true", data__num_workers=workers)
    assert run.name == quick_run.name
    assert same(weights(quick_run), weights(run))
    torch.use_deterministic_algorithms(False)


def test_another_seed_gives_another_run(quick_run, tmp_path):
    run = fit(tmp_path / "outputs", seed_everything=43)
    assert run.name != quick_run.name
    assert not same(weights(quick_run), weights(run))


def test_same_settings_again_keep_the_first_run(tmp_path):
    outputs = tmp_path / "outputs"
    first = fit(outputs, trainer__max_epochs=1)
    content = {path: path.read_bytes() for path in first.rglob("*") if path.is_file()}
    second = fit(outputs, trainer__max_epochs=1)
    assert second.name == f"{first.name}-2"
    assert {path: path.read_bytes() for path in first.rglob("*") if path.is_file()} == content


def evaluate(stage: str, run: Path, *arguments: str) -> Path:
    before = set((run / "evaluations").glob("*"))
    assert main([stage, "--run", str(run), *arguments]) == 0
    after = set((run / "evaluations").glob("*"))
    return max(after - before or after, key=lambda path: path.stat().st_mtime)


@pytest.fixture
def run(plain_run, tmp_path) -> Path:
    """A copy of the plain run, to be evaluated."""
    shutil.copytree(plain_run, tmp_path / "run")
    return tmp_path / "run"


def test_later_test_repeats_the_numbers_of_the_fit(run):
    folder = evaluate("test", run)
    assert folder.name == "test_best"
    assert (folder / "metrics.json").read_text() == (run / "metrics.json").read_text()
    assert (folder / "predictions.csv").read_text() == (run / "predictions.csv").read_text()


@pytest.mark.slow
def test_evaluation_does_not_touch_the_results_of_the_fit(quick_run, tmp_path):
    run = shutil.copytree(quick_run, tmp_path / "run")
    for stage in ("validate", "test", "predict"):
        evaluate(stage, run)
    for path in quick_run.rglob("*"):
        if path.is_file():
            assert (run / path.relative_to(quick_run)).read_bytes() == path.read_bytes(), path
    assert {path.name for path in (run / "evaluations").iterdir()} == {"validate_best", "test_best", "predict_best"}


def test_validate_repeats_the_best_epoch(run):
    reported = json.loads((evaluate("validate", run) / "metrics.json").read_text())
    with (run / "metrics.csv").open(newline="") as file:
        best = max(csv.DictReader(file), key=lambda row: (float(row["val/auc"]), int(row["epoch"])))
    assert reported["split"] == "val"
    assert reported["with_tta"]["auc"] is not None
    assert reported["without_tta"]["auc"] == pytest.approx(float(best["val/auc"]), abs=1e-5)
    assert reported["without_tta"]["loss"] == pytest.approx(float(best["val/loss"]), abs=1e-5)


def test_predict_writes_the_tested_probabilities(run):
    folder = evaluate("predict", run)
    for tta in (False, True):
        ours, tested = (read_predictions(each / "predictions.csv", tta) for each in (folder, run))
        np.testing.assert_allclose(ours[0], tested[0], atol=1e-6)
        np.testing.assert_array_equal(ours[1], tested[1])
    assert not (folder / "metrics.json").exists()


def test_last_and_files_can_be_chosen(run):
    assert evaluate("test", run, "--ckpt_path", "last").name == "test_last"
    shutil.copyfile(run / "checkpoints" / "best.ckpt", run / "checkpoints" / "mine.ckpt")
    assert evaluate("test", run, f"--ckpt_path={run / 'checkpoints' / 'mine.ckpt'}").name == "test_mine"
    assert main(["test", "--ckpt_path", str(run / "checkpoints" / "last.ckpt")]) == 0
    assert (run / "evaluations" / "test_last" / "metrics.json").is_file()


def test_lone_checkpoint_needs_no_configuration(run, tmp_path, monkeypatch):
    shutil.move(run / "checkpoints" / "best.ckpt", tmp_path / "lone.ckpt")
    arguments = ["--data.synthetic.train", "64", "--data.synthetic.val", "32", "--data.synthetic.test", "32"]
    arguments += ["--evaluation.figures", "false", "--evaluation.report", "false"]
    assert main(["test", "--ckpt_path", "lone.ckpt", *arguments]) == 0
    (folder,) = run_folders(tmp_path / "outputs")
    again = json.loads((folder / "metrics.json").read_text())["without_tta"]
    reported = json.loads((run / "metrics.json").read_text())["without_tta"]
    assert again == pytest.approx(reported, abs=1e-6)


def test_override_of_an_evaluation_gets_its_own_folder(run):
    folder = evaluate("test", run, "--model.tta", "false")
    assert folder.name.startswith("test_best_")
    assert json.loads((folder / "metrics.json").read_text())["with_tta"] is None


def test_precedence_later_file_then_flag(tmp_path):
    (tmp_path / "a.yaml").write_text("model: {optimizer: {learning_rate: 0.1, momentum: 0.1}}\n")
    (tmp_path / "b.yaml").write_text("model: {optimizer: {learning_rate: 0.2, weight_decay: 0.01}}\n")
    run = fit(
        tmp_path / "outputs", "--config", "a.yaml", "--config", "b.yaml", "--model.optimizer.weight_decay", "0.02"
    )
    settings = yaml.safe_load((run / "config.yaml").read_text())["model"]["optimizer"]
    assert settings == {**Optimizer().model_dump(), "learning_rate": 0.2, "momentum": 0.1, "weight_decay": 0.02}
    checkpoint = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    assert checkpoint["hyper_parameters"]["optimizer"] == settings


def test_settings_on_the_command_line_beat_those_of_a_checkpoint(run, tmp_path):
    again = fit(
        tmp_path / "outputs",
        "--ckpt_path",
        str(run / "checkpoints" / "last.ckpt"),
        trainer__max_epochs=3,
        model__mixup__alpha=0.7,
    )
    stored = torch.load(again / "checkpoints" / "last.ckpt", weights_only=True)
    assert stored["hyper_parameters"]["mixup"]["alpha"] == 0.7
    assert stored["epoch"] == 2


def place_published_weights(settings: dict) -> None:
    """Put a weight file of random values where torchvision would download the published one to."""
    name = settings["model"]["backbone"]["name"]
    published = getattr(torchvision.models, backbone_entry(name).weights).DEFAULT
    folder = Path(os.environ["TORCH_HOME"]) / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    torch.save(torchvision.models.get_model(name, weights=None).state_dict(), folder / Path(published.url).name)


CONFIGS = sorted((REPOSITORY / "configs").rglob("*.yaml"))


@pytest.mark.parametrize(
    "config",
    [
        pytest.param(path, id=path.stem, marks=[pytest.mark.slow] if path.stem != "quickstart" else [])
        for path in CONFIGS
    ],
)
def test_every_configuration_runs(config, tmp_path):
    """Exactly as a user would, but for two steps of rendered images of the same kind and size; large ones undrawn."""
    content = yaml.safe_load(config.read_text())
    info = dataset_info(content["data"]["dataset"])
    kind = {"task": info.task, "classes": len(info.classes), "channels": info.channels, "train": 4, "val": 2, "test": 2}
    arguments = [text for key, value in kind.items() for text in (f"--data.synthetic.{key}", str(value))]
    arguments += ["--data.dataset", "synthetic", "--data.batch_size", "2", "--trainer.accelerator", "cpu"]
    if content["data"]["resolution"] > 28:
        arguments += ["--evaluation.figures", "false", "--evaluation.report", "false"]
    if content["model"]["backbone"].get("pretrained", True):
        place_published_weights(content)
    # all epochs keep their place, because warm-up and freezing are counted in them; two steps are taken
    assert main(["fit", "--config", str(config), *arguments, "--trainer.max_steps", "2"]) == 0
    (run,) = run_folders(tmp_path / "outputs")
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["task"] == info.task
    assert 0 <= metrics["without_tta"]["accuracy"] <= 1
    assert metrics["resolution"] == content["data"]["resolution"]
    assert (run / "reports" / "weight_transfer.json").is_file() == content["model"]["backbone"].get("pretrained", True)


def test_thresholds_are_chosen_on_validation_and_kept(tmp_path):
    run = fit(tmp_path / "outputs", data__synthetic__task="multi-label")
    reported = json.loads((run / "metrics.json").read_text())
    assert list(reported["thresholds"]) == [f"pattern {k}" for k in range(4)]
    assert reported["without_tta"]["f1_macro_tuned"] > reported["without_tta"]["f1_macro"]
    folder = evaluate("test", run)
    assert (folder / "metrics.json").read_text() == (run / "metrics.json").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("task", ["binary", "multi-label", "ordinal"])
def test_every_task_from_the_command_line(tmp_path, task):
    grey = {"data__synthetic__channels": 1, "data__force_rgb": "false"}
    run = fit(tmp_path / "outputs", data__synthetic__task=task, evaluation__figures="true", **grey)
    assert json.loads((run / "metrics.json").read_text())["task"] == task
    assert matplotlib.image.imread(run / "figures" / "confusion_matrix.png").std() > 0.02


def test_loggers_of_the_run_are_gone_afterwards(tmp_path):
    fit(tmp_path / "outputs", trainer__max_epochs=1)
    for name in ("visionforge", "lightning.pytorch"):
        assert not any(isinstance(h, logging.FileHandler) for h in logging.getLogger(name).handlers)
