"""A loader continues in the middle of an epoch with exactly the batches that were left."""

import random

import lightning.pytorch as pl
import numpy as np
import pytest
import torch

from visionforge.data import MedMNISTDataModule
from visionforge.data.loader import seed_worker
from visionforge.errors import DataError


def loader(workers=0, epoch=3):
    data = MedMNISTDataModule("synthetic", resolution=8, batch_size=16, num_workers=workers)
    data.setup("fit")
    one = data.train_dataloader()
    one.sampler.set_epoch(epoch)
    return one


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("done", [0, 1, 7, 15])
def test_rest_of_an_interrupted_epoch(workers, done):
    whole = [images for images, _ in loader()]
    interrupted = loader(workers)
    iterator = iter(interrupted)
    for _ in range(done):
        next(iterator)
    state = interrupted.state_dict()
    assert state == {"batches": done}
    resumed = loader(workers)
    resumed.load_state_dict(state)
    rest = [images for images, _ in resumed]
    assert len(rest) == 16 - done
    assert all(torch.equal(a, b) for a, b in zip(rest, whole[done:], strict=True))
    resumed.sampler.set_epoch(4)
    assert len(list(resumed)) == 16


def test_workers_have_seeds_of_their_own():
    def draw(worker, seed=42):
        seed_worker(seed, worker)
        return random.random(), np.random.rand(), float(torch.rand(1))

    assert draw(0) == draw(0) != draw(0, seed=43)
    assert all(a != b for a, b in zip(draw(0), draw(1), strict=True))


def test_every_pass_is_a_whole_epoch_unless_its_trainer_is_in_the_middle_of_one():
    """After a fit, twice, beside a fit, in another Trainer, and by next(iter())."""
    data = MedMNISTDataModule("synthetic", resolution=8, batch_size=32)
    beside = []

    class Module(pl.LightningModule):
        def training_step(self, batch, index):
            if index == 2:
                beside.append(len(list(self.trainer.datamodule.train_dataloader())))
            return (self.weight * batch[0].mean()).sum()

        def configure_optimizers(self):
            return torch.optim.SGD([self.weight], lr=0.1)

        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(1))

    for _ in range(2):
        fit(Module(), data)
        assert beside.pop() == 8
        one = data.train_dataloader()
        assert [len(list(one)), len(list(one)), len(list(data.train_dataloader()))] == [8, 8, 8]
        assert len(next(iter(one))[0]) == 32
        assert len(list(one)) == 8


def fit(module, data):
    one = pl.Trainer(
        max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False
    )
    one.fit(module, data)


def test_without_setup_the_message_says_what_to_call():
    data = MedMNISTDataModule("synthetic", resolution=8)
    for call, stage in ((data.train_dataloader, "fit"), (data.val_dataloader, "fit"), (data.test_dataloader, "test")):
        with pytest.raises(DataError, match=rf"call prepare_data\(\) and setup\('{stage}'\)"):
            call()
