"""A subclass may train in its own way: values are logged, and a training can be continued."""

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from tests.training.helpers import data, fit, trainer, weights
from visionforge import ImageClassifier, TaskSpec
from visionforge.training.mixing.mixup import MixUp


class Own(ImageClassifier):
    """Minimises the square of the logits, which no loss of ours does."""

    def training_step(self, batch, batch_idx):
        loss = self(batch[0]).square().mean()
        self.log("train/own", loss, on_step=False, on_epoch=True)
        return loss


class Extended(ImageClassifier):
    """Adds to the loss of the module."""

    def training_step(self, batch, batch_idx):
        return super().training_step(batch, batch_idx) + 0 * sum(p.square().sum() for p in self.parameters())


class AsDictionary(Own):
    """Returns what Lightning takes as well."""

    def training_step(self, batch, batch_idx):
        return {"loss": super().training_step(batch, batch_idx), "note": "mine"}


class Manual(ImageClassifier):
    """Optimises by itself and returns nothing."""

    def __init__(self, *arguments, **settings):
        super().__init__(*arguments, **settings)
        self.automatic_optimization = False

    def training_step(self, batch, batch_idx):
        optimizer = self.optimizers()
        optimizer.zero_grad()
        self.manual_backward(self(batch[0]).square().mean())
        optimizer.step()


MIXES = [MixUp(alpha=0.0), MixUp(alpha=0.4)]


@pytest.mark.parametrize("mixup", MIXES, ids=["plain", "mixup"])
@pytest.mark.parametrize("kind", [Own, AsDictionary])
def test_own_step_trains_and_its_loss_is_logged(kind, mixup):
    found = fit(kind("mini_cnn", mixup=mixup)).callback_metrics
    torch.testing.assert_close(found["train/loss"], found["train/own"])
    assert {"lr", "val/loss", "val/auc", "val/accuracy"} <= found.keys()
    assert not any("accuracy" in name for name in found if name.startswith("train/"))
    assert float(found["train/loss"]) < 1, "it has minimised its own loss"


@pytest.mark.parametrize("mixup", MIXES, ids=["plain", "mixup"])
def test_a_step_that_calls_ours_trains_and_logs_as_ours(mixup):
    ours, extended = ImageClassifier("mini_cnn", mixup=mixup), Extended("mini_cnn", mixup=mixup)
    one, other = fit(ours).callback_metrics, fit(extended).callback_metrics
    assert one.keys() == other.keys()
    assert ("train/accuracy_mixed" if mixup.alpha else "train/accuracy") in other
    torch.testing.assert_close(weights(extended), weights(ours))
    torch.testing.assert_close(other["train/loss"], one["train/loss"])


def test_manual_optimisation_logs_what_there_is():
    found = fit(Manual("mini_cnn")).callback_metrics
    assert {"lr", "val/auc"} <= found.keys()
    assert "train/loss" not in found


class Triples(ImageClassifier):
    """Takes batches of another form, with labels of another meaning."""

    def training_step(self, batch, batch_idx):
        images, _, ages = batch
        return (self(images).mean(dim=1) - ages).square().mean()


def test_own_step_takes_batches_of_any_form():
    triples = TensorDataset(torch.rand(12, 3, 16, 16), torch.zeros(12), torch.full((12,), 70.0))
    module = Triples("mini_cnn", spec=TaskSpec(classes=2, resolution=16))
    one = trainer(1, limit_val_batches=0)
    one.fit(module, DataLoader(triples, batch_size=5))
    assert float(one.callback_metrics["train/loss"]) > 100


def test_own_step_with_data_module_and_checkpoint(tmp_path):
    one = fit(Own("mini_cnn"))
    one.save_checkpoint(tmp_path / "own.ckpt")
    again = Own.load_from_checkpoint(tmp_path / "own.ckpt")
    assert isinstance(again, Own)
    trainer(1).validate(again, datamodule=data(), verbose=False)
