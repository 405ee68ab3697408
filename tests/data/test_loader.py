"""A loader continues in the middle of an epoch with exactly the batches that were left."""

import random

import numpy as np
import pytest
import torch

from visionforge.data import MedMNISTDataModule
from visionforge.data.loader import seed_worker


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
    def draw(worker):
        seed_worker(worker)
        return random.random(), np.random.rand(), float(torch.rand(1))

    assert draw(0) == draw(0)
    assert all(a != b for a, b in zip(draw(0), draw(1), strict=True))
