"""A training that begins with a linear probe: its first validation is the probe's, and a resumed one goes on."""

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from tests.training.helpers import data, fit, trainer, weights
from visionforge.config.schema import Backbone, Loss, Optimizer
from visionforge.errors import SettingsError
from visionforge.models.build import build_network
from visionforge.training.classifier import ImageClassifier
from visionforge.training.mixing.mixup import MixUp
from visionforge.training.probes.choice import CLASSIFIERS
from visionforge.training.warm_start import fit_last_layer


@pytest.fixture
def weight_file(tmp_path):
    torch.manual_seed(0)
    path = tmp_path / "weights.pth"
    torch.save(build_network(Backbone(name="mini_cnn", pretrained=False), 3, 4, 16)[0].state_dict(), path)
    return path


def make(weight_file, warm_start="linear_probe", **changes) -> ImageClassifier:
    settings = {"optimizer": Optimizer(learning_rate=0.02), "mixup": MixUp(alpha=0.0), **changes}
    backbone = Backbone(name="mini_cnn", pretrained=True, weights=str(weight_file))
    return ImageClassifier(backbone, warm_start=warm_start, **settings)


class FirstValidation(pl.Callback):
    """Keeps the probabilities of the validation before the first step."""

    probabilities = None

    def on_validation_end(self, trainer, pl_module):
        if self.probabilities is None:
            self.probabilities = pl_module.predictions.probabilities


def probabilities(datamodule, module) -> np.ndarray:
    """Return what a logistic regression of the features of untrained weights says of the validation split."""
    datamodule.prepare_data()
    module.bind(datamodule.spec)
    module.configure_model()
    values = {split: module.features(datamodule.dataset_for(split).images).numpy() for split in ("train", "val")}
    scale = StandardScaler().fit(values["train"])
    scale.scale_ = np.maximum(scale.scale_, 0.01 * np.sqrt(np.mean(scale.var_)))  # of features that hardly vary
    choice = fit_last_layer(module, datamodule)
    model = LogisticRegression(C=choice.values["c"], class_weight="balanced", max_iter=5000, tol=1e-5)
    model.fit(scale.transform(values["train"]), datamodule.dataset_for("train").labels.numpy())
    return model.predict_proba(scale.transform(values["val"]))


def test_the_first_validation_is_that_of_the_probe(weight_file):
    first = FirstValidation()
    fit(make(weight_file), epochs=1, datamodule=data(), num_sanity_val_steps=-1, callbacks=[first])
    expected = probabilities(data(), make(weight_file))
    np.testing.assert_allclose(first.probabilities.numpy(), expected, atol=2e-3)  # a solver's last steps, twice


def test_without_it_the_training_begins_with_another_classifier(weight_file):
    begun = []
    for warm_start in ("none", "linear_probe"):
        first = FirstValidation()
        module = make(weight_file, warm_start)
        fit(module, epochs=1, datamodule=data(), num_sanity_val_steps=-1, callbacks=[first])
        begun.append(first.probabilities)
    assert not torch.allclose(*begun, atol=0.01)


@pytest.mark.parametrize("averaging", ["none", "ema"])
@pytest.mark.parametrize(
    ("warm_start", "batch_norm", "kept"),
    [
        ("linear_probe", "auto", True),
        ("linear_probe", "update", False),
        ("none", "auto", False),
        ("none", "keep", True),
    ],
)
def test_batch_norm_keeps_its_statistics_where_the_features_depend_on_them(
    weight_file, warm_start, batch_norm, kept, averaging
):
    finetuning = {"batch_norm": batch_norm, "freeze_epochs": 1}  # what is frozen wakes, and keeps them still
    module = make(weight_file, warm_start, finetuning=finetuning, averaging=averaging)
    fit(module, epochs=2, datamodule=data())
    begun = torch.load(weight_file, weights_only=True)
    now = module.network.state_dict()
    statistics = [name for name in begun if name.endswith(("running_mean", "running_var"))]
    assert statistics
    assert all(torch.equal(begun[name], now[name]) == kept for name in statistics)
    assert not torch.equal(begun["features.0.weight"], now["features.0.weight"])


def test_a_resumed_training_goes_on_as_if_it_had_not_ended(weight_file, tmp_path):
    keep = pl.callbacks.ModelCheckpoint(
        tmp_path, filename="{step}", every_n_train_steps=7, save_top_k=-1, save_on_train_epoch_end=False
    )
    whole, again = make(weight_file), make(weight_file)
    fit(whole, 2, data(), callbacks=[keep], enable_checkpointing=True)
    pl.seed_everything(42, verbose=False)
    trainer(2).fit(again, datamodule=data(), ckpt_path=str(tmp_path / "step=7.ckpt"), weights_only=True)
    assert torch.equal(weights(whole), weights(again))


def test_weights_of_a_checkpoint_keep_their_classifier(weight_file, tmp_path, monkeypatch):
    trained = make(weight_file, optimizer=Optimizer(learning_rate=2e-8))
    one = fit(trained, epochs=1, datamodule=data())
    one.save_checkpoint(tmp_path / "one.ckpt")
    loaded = ImageClassifier.load_from_checkpoint(tmp_path / "one.ckpt")
    monkeypatch.setattr("visionforge.training.classifier.fit_last_layer", lambda *_: pytest.fail("fitted anew"))
    fit(loaded, epochs=1, datamodule=data())


def test_labels_that_do_not_exclude_each_other_get_one_regression_each(weight_file):
    module, datamodule = make(weight_file), data(synthetic={"train": 80, "val": 32, "test": 32, "task": "multi-label"})
    datamodule.prepare_data()
    module.bind(datamodule.spec)
    module.configure_model()
    choice = fit_last_layer(module, datamodule)
    assert choice.rows[0].keys() >= {"c", "val/auc"}
    assert module.last_layer.weight.shape[0] == len(datamodule.spec.classes)


def test_a_loss_with_one_score_for_all_grades_is_refused(weight_file):
    grades = {"train": 80, "val": 32, "test": 32, "task": "ordinal"}
    with pytest.raises(SettingsError, match="warm_start: linear_probe needs a logit for every class"):
        fit(make(weight_file, loss=Loss(name="ordinal")), epochs=1, datamodule=data(synthetic=grades))


def test_another_loader_than_a_data_module_of_ours_is_refused(weight_file):
    datamodule = data()
    datamodule.prepare_data()
    datamodule.setup("fit")
    module = make(weight_file)
    module.bind(datamodule.spec)
    with pytest.raises(SettingsError, match="needs an ImageDataModule"):
        trainer(1).fit(module, datamodule.train_dataloader(), datamodule.val_dataloader())


def test_the_table_of_classifiers_is_whole():
    assert set(CLASSIFIERS) == {"logistic_regression", "knn", "lda", "gradient_boosting"}
