"""How many images a step has, and the learning rate that is meant for so many."""

import math

import pytest
import torch

from tests.training.helpers import MINI, data, fit, trainer
from visionforge import ImageClassifier, ImageDataModule
from visionforge.config.schema import Schedule
from visionforge.errors import SettingsError


def rate(scaling: str, reference: int, accumulated: int = 1, **sizes) -> float:
    """Return the rate of the optimiser of a fit of one epoch, before anything makes it fall."""
    module = ImageClassifier(
        MINI,
        optimizer={"learning_rate": 0.01, "rate_scaling": scaling, "reference_batch_size": reference},
        schedule={"name": "constant"},
    )
    done = fit(module, 1, data(**sizes), accumulate_grad_batches=accumulated)
    return done.optimizers[0].param_groups[0]["initial_lr"]


@pytest.mark.parametrize(
    ("scaling", "reference", "accumulated", "factor"),
    [("none", 128, 1, 1), ("linear", 8, 1, 2), ("linear", 8, 2, 4), ("sqrt", 64, 1, 0.5), ("linear", 16, 1, 1)],
)
def test_the_rate_is_that_of_the_images_of_a_step(scaling, reference, accumulated, factor):
    assert rate(scaling, reference, accumulated) == pytest.approx(0.01 * factor)


def test_the_images_of_all_devices_count():
    assert rate("linear", 8, batch_size=128, global_batch_size=32) == pytest.approx(0.04)


@pytest.mark.parametrize(("reference", "images"), [(1, "32"), (1 << 20, "32")])
def test_a_rate_out_of_its_bounds_is_one_line(reference, images):
    model = ImageClassifier(
        MINI,
        optimizer={"learning_rate": 0.5, "rate_scaling": "linear", "reference_batch_size": reference},
        schedule=Schedule(name="cosine", min_lr=1e-4),
    )
    with pytest.raises(SettingsError, match=rf"rate_scaling: linear makes a learning rate of .* for {images} images"):
        fit(model, 1, data(batch_size=32))


def test_a_loader_of_ones_own_does_not_tell():
    module = ImageClassifier(MINI, spec=data().spec, optimizer={"rate_scaling": "sqrt"})
    loader = torch.utils.data.DataLoader([(torch.zeros(3, 16, 16), 1)] * 8, batch_size=4)
    with pytest.raises(SettingsError, match=r"model\.optimizer\.rate_scaling: sqrt needs an ImageDataModule"):
        trainer(1, limit_val_batches=0).fit(module, loader)


@pytest.mark.parametrize("devices", [1, 2, 3, 5])
def test_devices_have_parts_of_the_images_of_all(devices, monkeypatch):
    module = data(batch_size=128, global_batch_size=30, synthetic={"train": 90, "val": 32, "test": 32})
    monkeypatch.setattr(ImageDataModule, "_rank", lambda self: (0, devices))
    module.prepare_data()
    module.setup("fit")
    assert module.batch_size == math.ceil(30 / devices)
    assert len(next(iter(module.train_dataloader()))[1]) == 30 / devices
    assert module.state_dict() == {"images_of_step": 30, "processes": devices}


def test_unequal_parts_and_two_sizes_are_refused(monkeypatch):
    module = data(batch_size=128, global_batch_size=32)
    monkeypatch.setattr(ImageDataModule, "_rank", lambda self: (0, 3))
    module.prepare_data()
    module.setup("fit")
    with pytest.raises(SettingsError, match=r"data\.global_batch_size: 32 cannot be divided among 3 devices; set a"):
        module.train_dataloader()
    module.val_dataloader()
    with pytest.raises(SettingsError, match="batch_size 16 would be ignored; leave one of them out"):
        data(global_batch_size=32)
