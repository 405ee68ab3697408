"""A plain Trainer's fit ends with the best weights calibrated, as `visionforge.fit` does."""

import math
from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.utils.data import DataLoader, TensorDataset

from tests.training.helpers import data, fit, trainer, weights
from visionforge import ImageClassifier, RunFolder, TaskSpec, TemperatureScaling
from visionforge.config.schema import Synthetic
from visionforge.config.schema.tasks import task_named
from visionforge.errors import DataError, RunError, SettingsError
from visionforge.inference.loading import load_classifier
from visionforge.training.calibration import fit_temperature

TASKS = ["multi-class", "multi-label", "ordinal"]


def noisy(task: str = "multi-class"):
    return data(resolution=28, augmentation="strong", synthetic=Synthetic(task=task, train=80, val=64, test=32))


@pytest.mark.parametrize("task", TASKS)
def test_the_best_checkpoint_and_the_module_keep_what_the_validation_split_says(task, tmp_path):
    keep = ModelCheckpoint(tmp_path, monitor="val/loss", mode="max")  # the worst epoch, so that it is not the last
    module = ImageClassifier("mini_cnn", spec=None, loss="ordinal" if task == "ordinal" else "auto")
    fit(module, 4, noisy(task), callbacks=[TemperatureScaling(), keep], enable_checkpointing=True)

    expected = ImageClassifier.load_from_checkpoint(keep.best_model_path)
    trainer().validate(expected, datamodule=noisy(task), verbose=False)  # which calibrates, as a fit does
    assert torch.equal(weights(module), weights(expected)), "the module has the best weights"
    assert module.calibration == expected.calibration
    assert module.calibration.images == 64

    content = torch.load(keep.best_model_path, weights_only=True)
    alone = load_classifier(Path(keep.best_model_path))
    assert alone.calibration == module.calibration
    assert content["state_dict"].keys() == module.state_dict().keys()
    if task == "multi-label":
        assert content["thresholds"] == module.thresholds.tolist()
        assert len(module.calibration.thresholds_tta or module.thresholds) == 4
    images = torch.rand(4, 3, 28, 28)
    plain, averaged = module.predict_probabilities(images)
    assert not torch.equal(module.calibrated(plain, tta=False), plain) or module.calibration.temperature is None
    assert torch.equal(alone.calibrated(averaged, tta=True), module.calibrated(averaged, tta=True))


def test_last_weights_are_calibrated_where_they_are_wanted(tmp_path):
    keep = ModelCheckpoint(tmp_path, monitor="val/loss", mode="max")
    module, plain = ImageClassifier("mini_cnn"), ImageClassifier("mini_cnn")
    one = fit(module, 3, noisy(), callbacks=[TemperatureScaling(load_best=False), keep], enable_checkpointing=True)
    fit(plain, 3, noisy())
    assert torch.equal(weights(module), weights(plain))
    assert module.calibration is not None
    assert torch.load(keep.best_model_path, weights_only=True)["calibration"] is None
    one.save_checkpoint(tmp_path / "end.ckpt")
    assert ImageClassifier.load_from_checkpoint(tmp_path / "end.ckpt").calibration == module.calibration


def test_without_a_checkpoint_the_last_weights_are_calibrated():
    module = ImageClassifier("mini_cnn")
    fit(module, 1, noisy(), callbacks=[TemperatureScaling()])
    assert module.calibration is not None


def test_a_run_folder_gets_a_calibrated_best_checkpoint(tmp_path):
    folder = RunFolder(tmp_path, data="synthetic", monitor="val/auc", mode="max")
    module = ImageClassifier("mini_cnn")
    fit(module, 2, noisy(), callbacks=[TemperatureScaling(), folder], enable_checkpointing=True)
    assert load_classifier(folder.workspace.checkpoints / "best.ckpt").calibration == module.calibration


def test_batches_are_those_of_the_validation_and_no_more():
    module = ImageClassifier("mini_cnn")
    fit(module, 1, noisy(), callbacks=[TemperatureScaling()], limit_val_batches=2)
    assert module.calibration.images == 32
    module = ImageClassifier("mini_cnn")
    fit(module, 1, noisy(), callbacks=[TemperatureScaling()], limit_val_batches=0)
    assert module.calibration is None


def test_a_plain_loader_is_enough():
    spec = TaskSpec(classes=3, channels=1, resolution=16)
    images, labels = torch.rand(48, 1, 16, 16), torch.arange(48) % 3
    loader = DataLoader(TensorDataset(images, labels), batch_size=16)
    module = ImageClassifier("mini_cnn", tta=False, spec=spec)
    trainer(2, callbacks=[TemperatureScaling()]).fit(module, loader, loader)
    given, _ = module.predict_probabilities(images)
    assert module.calibration.temperature == fit_temperature(given, labels, "multi-class")


def test_calibrate_needs_no_trainer():
    spec = TaskSpec(classes=("a", "b"), task="multi-label", channels=1, resolution=16)
    module = ImageClassifier("mini_cnn", tta=False, spec=spec)
    module.configure_model()
    images, labels = torch.rand(32, 1, 16, 16), torch.randint(0, 2, (32, 2), generator=torch.Generator().manual_seed(0))
    module.train()
    found = module.calibrate([(images[:20], labels[:20]), (images[20:], labels[20:])])
    assert module.training
    assert found.images == 32
    given, _ = module.predict_probabilities(images)
    torch.testing.assert_close(
        module.thresholds, task_named("multi-label").thresholds(given, labels), atol=1e-6, rtol=0
    )
    assert math.isclose(found.temperature or 0, fit_temperature(given, labels, "multi-label") or 0, rel_tol=1e-4)
    with pytest.raises(DataError, match="no validation batch"):
        module.calibrate([])
    with pytest.raises(DataError, match=r"labels: 0\.5"):
        module.calibrate([(images, labels * 0.5)])


def test_another_module_is_refused_before_the_training():
    class Other(pl.LightningModule):
        pass

    with pytest.raises(SettingsError, match="calibrates an ImageClassifier, not Other"):
        TemperatureScaling().setup(trainer(), Other(), "fit")


def test_a_damaged_best_checkpoint_is_one_line(tmp_path):
    class Damage(pl.Callback):
        def on_train_end(self, trainer, pl_module):
            (path,) = tmp_path.glob("*.ckpt")
            path.write_bytes(b"no checkpoint")

    keep = ModelCheckpoint(tmp_path, monitor="val/loss")
    with pytest.raises(RunError, match="cannot be read as a checkpoint"):
        fit(
            ImageClassifier("mini_cnn"),
            1,
            noisy(),
            callbacks=[TemperatureScaling(), Damage(), keep],
            enable_checkpointing=True,
        )
