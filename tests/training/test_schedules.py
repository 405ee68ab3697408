"""Learning rates that a real fit logged, against closed forms written here."""

import math

import lightning.pytorch as pl
import pytest
import torch

from tests.training.helpers import trainer
from visionforge import ImageClassifier, ImageDataModule
from visionforge.config.schema import Augmentation, Backbone, Optimizer, Schedule, Synthetic
from visionforge.data import MedMNISTDataModule
from visionforge.errors import SettingsError
from visionforge.training.mixing.mixup import MixUp
from visionforge.training.rate_curve import RateCurve

HIGH, LOW = 0.04, 0.002
EPOCHS, STEPS = 6, 4  # steps per epoch
TOTAL = EPOCHS * STEPS


class Rates(pl.Callback):
    """Keeps the learning rate of every step, and the validation AUC of every epoch."""

    def __init__(self):
        self.rates, self.aucs = [], []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.rates.append(trainer.optimizers[0].param_groups[0]["lr"])

    def on_validation_end(self, trainer, pl_module):
        self.aucs.append(float(trainer.callback_metrics["val/auc"]))


def fit(schedule: Schedule, rate: float = HIGH, resume: str | None = None, **flags) -> Rates:
    pl.seed_everything(42, verbose=False)
    kept = Rates()
    module = ImageClassifier(
        Backbone(name="mini_cnn", pretrained=False),
        optimizer=Optimizer(learning_rate=rate),
        schedule=schedule,
        mixup=MixUp(alpha=0),
    )
    data = MedMNISTDataModule(
        "synthetic",
        resolution=8,
        batch_size=8,
        augmentation=Augmentation(preset="none"),
        synthetic=Synthetic(train=STEPS * 8, val=24, test=8),
    )
    one = trainer(flags.pop("max_epochs", EPOCHS), **{"callbacks": [kept], **flags})
    one.fit(module, datamodule=data, ckpt_path=resume, weights_only=True)
    return kept


def cosine(share, high=HIGH, low=LOW):
    return low + (high - low) * (1 + math.cos(math.pi * share)) / 2


def test_cosine():
    reference = [cosine(s / TOTAL) for s in range(TOTAL)]
    assert fit(Schedule(min_lr=LOW)).rates == pytest.approx(reference, rel=1e-9)


def test_constant():
    assert fit(Schedule(name="constant")).rates == pytest.approx([HIGH] * TOTAL)


def test_warm_up_then_cosine():
    warm = 2 * STEPS
    reference = [HIGH * (s + 1) / (warm + 1) for s in range(warm)]
    reference += [cosine(s / (TOTAL - warm)) for s in range(TOTAL - warm)]
    assert fit(Schedule(min_lr=LOW, warmup_epochs=2)).rates == pytest.approx(reference, rel=1e-9)


def test_steps_fall_to_the_lowest_rate_at_most():
    reference = [max(LOW, HIGH * 0.2 ** (s // STEPS // 2)) for s in range(TOTAL)]
    assert reference[-1] == LOW < HIGH * 0.2
    found = fit(Schedule(name="step", gamma=0.2, step_epochs=2, min_lr=LOW))
    assert found.rates == pytest.approx(reference, rel=1e-9)


def test_steps_equal_torchs():
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=HIGH)
    theirs = torch.optim.lr_scheduler.StepLR(optimizer, step_size=2, gamma=0.5)
    reference = []
    for _ in range(EPOCHS):
        reference += [optimizer.param_groups[0]["lr"]] * STEPS
        optimizer.step()
        theirs.step()
    found = fit(Schedule(name="step", gamma=0.5, step_epochs=2))
    assert found.rates == pytest.approx(reference, rel=1e-9)


@pytest.mark.parametrize("rise", [0.25, 0.5])
def test_one_cycle(rise):
    top = rise * TOTAL
    reference = [
        cosine(s / top, HIGH / 25, HIGH) if s < top else cosine((s - top) / (TOTAL - top)) for s in range(TOTAL)
    ]
    found = fit(Schedule(name="one_cycle", rise_fraction=rise, min_lr=LOW)).rates
    assert found == pytest.approx(reference, rel=1e-9)
    assert max(found) == pytest.approx(HIGH)


@pytest.mark.parametrize(("patience", "gamma"), [(0, 0.5), (1, 0.5), (0, 0.1)])
def test_cosine_then_plateau(patience, gamma):
    """The plateau part against torch's ReduceLROnPlateau, fed with the AUCs that the fit gave."""
    kept = fit(Schedule(min_lr=LOW, cosine_fraction=0.5, scheduler_patience=patience, gamma=gamma), 0.04)
    half = TOTAL // 2
    reference = [cosine(s / TOTAL) for s in range(half)]
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=cosine(0.5))
    theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, mode="max", factor=gamma, patience=patience, threshold=0, threshold_mode="abs", min_lr=LOW
    )
    for epoch in range(EPOCHS):
        if epoch >= EPOCHS // 2:
            reference += [optimizer.param_groups[0]["lr"]] * STEPS
        if epoch >= EPOCHS // 2 - 1:  # the validation after the last epoch of the cosine is the first that counts
            theirs.step(kept.aucs[epoch])
    assert kept.rates == pytest.approx(reference, rel=1e-9)


def test_plateau_waits_and_falls_as_torchs():
    values = [0.5, 0.6, 0.6, 0.55, 0.7, 0.6, 0.6, 0.6, 0.69, 0.71, 0.1, 0.1, 0.1, 0.1]
    for patience in (0, 1, 2):
        curve = RateCurve(Schedule(cosine_fraction=0.1, scheduler_patience=patience, gamma=0.5), HIGH, 100, 1)
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
        theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(
            optimizer, mode="max", factor=0.5, patience=patience, threshold=0, threshold_mode="abs"
        )
        for index, value in enumerate(values):
            curve.observe(value, 20 + index)
            theirs.step(value)
            assert curve.plateau_factor == pytest.approx(optimizer.param_groups[0]["lr"]), (patience, index)


def test_accumulated_gradients_count_as_one_step():
    rates = fit(Schedule(min_lr=LOW), accumulate_grad_batches=2).rates
    reference = [cosine((s // 2) / (TOTAL // 2)) for s in range(TOTAL)]
    assert rates == pytest.approx(reference, rel=1e-9)


def test_plateau_is_remembered_by_a_resumed_fit(tmp_path):
    schedule = Schedule(min_lr=LOW, cosine_fraction=0.34, scheduler_patience=0, gamma=0.5)
    keep = pl.callbacks.ModelCheckpoint(tmp_path, filename="{epoch}", save_top_k=-1, every_n_epochs=1)
    whole = Rates()
    fit(schedule, callbacks=[whole, keep], enable_checkpointing=True)
    assert len(set(whole.rates[3 * STEPS :])) > 1, "the rate should fall in this test"
    resumed = fit(schedule, resume=str(tmp_path / "epoch=3.ckpt"))
    assert resumed.rates == pytest.approx(whole.rates[4 * STEPS :], rel=1e-12)


def test_a_training_that_begins_from_a_checkpoint_follows_its_own_settings(tmp_path):
    """Another length, learning rate and momentum than the checkpoint was trained with."""
    keep = pl.callbacks.ModelCheckpoint(tmp_path, filename="{epoch}", save_top_k=-1, every_n_epochs=1)
    fit(Schedule(min_lr=LOW), callbacks=[keep], enable_checkpointing=True, max_epochs=2)
    resumed = fit(Schedule(min_lr=LOW), HIGH / 2, resume=str(tmp_path / "epoch=1.ckpt"), max_epochs=4)
    reference = [cosine(s / (4 * STEPS), HIGH / 2) for s in range(2 * STEPS, 4 * STEPS)]
    assert resumed.rates == pytest.approx(reference, rel=1e-9)


def test_patience_counts_epochs_however_often_is_validated():
    schedule = Schedule(cosine_fraction=0.1, scheduler_patience=2, gamma=0.5)
    once, four_times = (RateCurve(schedule, HIGH, 100, 4) for _ in range(2))
    for epoch in range(3, 15):
        once.observe(0.5, 4 * epoch + 4)
        for part in range(1, 5):
            four_times.observe(0.5, 4 * epoch + part)
    assert once.plateau_factor == pytest.approx(0.5**3)  # one fall in 3 epochs
    assert four_times.plateau_factor == pytest.approx(0.5**5)  # one in 2.25 epochs, and not one in 3 validations


@pytest.mark.parametrize("higher", [True, False])
def test_an_undefined_value_is_no_improvement(higher):
    curve = RateCurve(Schedule(cosine_fraction=0.1, scheduler_patience=0, gamma=0.5), HIGH, 100, 1, higher)
    for step, value in enumerate([math.nan, 0.5, math.nan, 0.6 if higher else 0.4]):
        curve.observe(value, 20 + step)
    assert (curve.best, curve.plateau_factor) == (0.6 if higher else 0.4, 0.5)


def test_a_trainer_that_counts_steps_alone(tmp_path):
    """Its loaders are not set up when the optimiser is."""
    quiet = {
        "accelerator": "cpu", "logger": False, "enable_checkpointing": False, "enable_progress_bar": False,
        "enable_model_summary": False,
    }  # fmt: skip
    data = ImageDataModule("synthetic", synthetic={"train": 64, "val": 8, "test": 8}, batch_size=16, resolution=8)
    model = ImageClassifier(backbone="mini_cnn", schedule={"name": "cosine", "warmup_epochs": 1})
    steps = pl.Trainer(max_steps=12, **quiet)
    steps.fit(model, datamodule=data)
    assert (steps.global_step, steps.current_epoch) == (12, 3)
    assert model._curve.warmup_steps == 4
    with pytest.raises(SettingsError, match="set max_epochs or max_steps"):
        pl.Trainer(max_epochs=-1, **quiet).fit(ImageClassifier(backbone="mini_cnn"), datamodule=data)
