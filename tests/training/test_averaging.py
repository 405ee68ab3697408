"""Averaged weights are the average, are what is tested and saved, and have batch-norm statistics of their own."""

import lightning.pytorch as pl
import pytest
import torch

from tests.training.helpers import MINI, data, fit, trainer, weights
from visionforge.config.schema import Augmentation, Averaging, Backbone, Optimizer
from visionforge.training.checkpoints import BestCheckpoint
from visionforge.training.classifier import ImageClassifier
from visionforge.training.mixing.mixup import MixUp

STEPS = 5  # per epoch


class Trace(pl.Callback):
    """Keeps the current weights after every step."""

    def __init__(self):
        self.steps = []

    def on_train_batch_end(self, trainer, pl_module, *_):
        self.steps.append(weights(pl_module).clone())


def make(averaging: Averaging, **changes) -> ImageClassifier:
    return ImageClassifier(
        **{
            "backbone": MINI,
            "optimizer": Optimizer(learning_rate=0.05),
            "mixup": MixUp(alpha=0),
            "averaging": averaging,
            **changes,
        }
    )


def test_ema_is_the_moving_average_of_every_step():
    module, trace = make(Averaging(name="ema", decay=0.7)), Trace()
    fit(module, 2, callbacks=[trace])
    average = trace.steps[0]
    for step in trace.steps[1:]:
        average = 0.7 * average + 0.3 * step
    torch.testing.assert_close(weights(module), average, atol=1e-5, rtol=1e-5)


def test_swa_is_the_mean_of_the_last_steps_of_the_epochs():
    module, trace = make(Averaging(name="swa", start_epoch=1)), Trace()
    fit(module, 4, callbacks=[trace])
    chosen = [trace.steps[(epoch + 1) * STEPS - 1] for epoch in (1, 2, 3)]
    torch.testing.assert_close(weights(module), torch.stack(chosen).mean(dim=0), atol=1e-6, rtol=1e-5)


def test_averaging_does_not_change_the_training_itself():
    plain, averaged = Trace(), Trace()
    fit(make(Averaging()), 2, callbacks=[plain])
    fit(make(Averaging(name="ema", decay=0.7)), 2, callbacks=[averaged])
    assert torch.equal(plain.steps[-1], averaged.steps[-1])


@pytest.mark.parametrize("name", ["ema", "swa"])
def test_batch_norm_statistics_belong_to_the_averaged_network(name):
    """The first batch norm's mean and variance, computed here from the averaged weights and the same images."""
    source = data(augmentation=Augmentation())
    module = make(Averaging(name=name, **({"decay": 0.9} if name == "ema" else {})))
    fit(module, 3, source)
    network = module.network.eval()
    batches = [network.features[0](images) for images in source.calibration_batches(8192, torch.device("cpu"))]
    with torch.no_grad():
        means = torch.stack([b.mean(dim=(0, 2, 3)) for b in batches]).mean(dim=0)
        variances = torch.stack([b.transpose(0, 1).flatten(1).var(dim=1) for b in batches]).mean(dim=0)
    torch.testing.assert_close(network.features[1].running_mean, means, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(network.features[1].running_var, variances, atol=1e-4, rtol=1e-4)
    assert network.features[1].momentum == 0.1


def test_the_saved_best_checkpoint_is_the_average_that_was_validated(tmp_path):
    best = BestCheckpoint(tmp_path, filename="best", monitor="val/auc", mode="max", save_weights_only=True)
    source, module, trace = data(), make(Averaging(name="ema", decay=0.9)), Trace()
    one = fit(module, 3, source, callbacks=[best, trace], enable_checkpointing=True)
    saved = ImageClassifier.load_from_checkpoint(best.best_model_path, weights_only=True)
    other = trainer()
    other.validate(saved, datamodule=source, verbose=False)
    assert float(other.callback_metrics["val/auc"]) == pytest.approx(float(best.best_model_score), abs=1e-6)
    assert not any(torch.equal(weights(saved), step) for step in trace.steps)
    one.validate(saved, datamodule=source, verbose=False)  # the trainer that fitted does not put its average in
    assert float(one.callback_metrics["val/auc"]) == pytest.approx(float(best.best_model_score), abs=1e-6)


def test_before_the_first_average_the_current_weights_are_validated_and_saved(tmp_path):
    keep = pl.callbacks.ModelCheckpoint(tmp_path, filename="{epoch}", save_top_k=-1)
    trace = Trace()
    fit(make(Averaging(name="swa", start_epoch=2)), 3, callbacks=[keep, trace], enable_checkpointing=True)
    early = ImageClassifier.load_from_checkpoint(tmp_path / "epoch=0.ckpt", weights_only=True)
    torch.testing.assert_close(weights(early), trace.steps[STEPS - 1])


@pytest.mark.parametrize("name", ["ema", "swa"])
@pytest.mark.parametrize("step", [3, 5, 12])
def test_resumed_average_is_bit_identical(tmp_path, name, step):
    averaging = Averaging(name=name, start_epoch=1)
    keep = pl.callbacks.ModelCheckpoint(
        tmp_path, filename="{step}", every_n_train_steps=step, save_top_k=-1, save_on_train_epoch_end=False
    )
    whole, source = make(averaging), data(augmentation=Augmentation())
    fit(whole, 3, source, callbacks=[keep], enable_checkpointing=True)
    resumed = make(averaging)
    pl.seed_everything(42, verbose=False)
    again = trainer(3)
    again.fit(
        resumed,
        datamodule=data(augmentation=Augmentation()),
        ckpt_path=str(tmp_path / f"{step=}.ckpt"),
        weights_only=True,
    )
    assert torch.equal(weights(whole), weights(resumed))
    for one, two in zip(whole.buffers(), resumed.buffers(), strict=True):
        assert torch.equal(one, two)


def test_a_network_without_batch_norm_is_averaged_too():
    module = make(Averaging(name="ema", decay=0.5), backbone=Backbone(name="vit_tiny", pretrained=False))
    trace = Trace()
    fit(module, 1, data(resolution=8), callbacks=[trace], max_steps=2)
    torch.testing.assert_close(weights(module), (trace.steps[0] + trace.steps[1]) / 2, atol=1e-6, rtol=1e-5)


def test_lightnings_own_callback_is_saved_the_same_way(tmp_path):
    best = BestCheckpoint(tmp_path, filename="best", monitor="val/auc", mode="max", save_weights_only=True)
    ema = pl.callbacks.EMAWeightAveraging(decay=0.8)
    source, module = data(), make(Averaging())
    fit(module, 2, source, callbacks=[best, ema], enable_checkpointing=True)
    saved = ImageClassifier.load_from_checkpoint(best.best_model_path, weights_only=True)
    other = trainer()
    other.validate(saved, datamodule=source, verbose=False)
    assert float(other.callback_metrics["val/auc"]) == pytest.approx(float(best.best_model_score), abs=1e-6)
