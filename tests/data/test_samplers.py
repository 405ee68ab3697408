"""Samplers: an epoch's order is a function of labels, seed and epoch; the old switch means the old orders."""

from typing import Literal

import numpy as np
import pytest
import torch

import visionforge as vf
from tests.training.helpers import data
from visionforge.config.seeding import derive_seed
from visionforge.data.batches import EpochSampler, balancing_weights
from visionforge.errors import DataError


def order(epoch: int = 0, **changes) -> torch.Tensor:
    module = data(**changes)
    sampler = module._train_sampler(module.dataset_for("train"))
    sampler.set_epoch(epoch)
    return sampler.positions()


@pytest.mark.parametrize("epoch", [0, 3])
def test_orders_are_those_of_before(epoch):
    seed = derive_seed(42, "sampler", epoch)
    labels = data().dataset_for("train").labels
    drawn = torch.multinomial(balancing_weights(labels), 80, True, generator=torch.Generator().manual_seed(seed))
    shuffled = torch.randperm(80, generator=torch.Generator().manual_seed(seed))
    assert torch.equal(order(epoch), drawn)
    assert torch.equal(order(epoch, sampler="balanced"), drawn)
    assert torch.equal(order(epoch, balanced_sampling=False), shuffled)
    assert torch.equal(order(epoch, sampler={"name": "uniform"}), shuffled)


def test_weights_of_ones_own_are_drawn_from(own_parts_forgotten):
    @vf.register_sampler
    class First(vf.Sampler):
        """The first ten images."""

        name: Literal["first_for_tests"] = "first_for_tests"

        def weights(self, labels):
            return (np.arange(len(labels)) < 10).astype(float)

    drawn = order(sampler="first_for_tests")
    assert len(drawn) == 80
    assert set(drawn.tolist()) <= set(range(10))


@pytest.mark.parametrize(
    ("drawn", "said"),
    [
        (np.arange(5), r"\(5,\) of int64 drawn; allowed: \(6,\) of integers"),
        (np.arange(6.0), r"\(6,\) of float64 drawn"),
        (np.arange(6) - 1, r"positions from -1 to 4 drawn; allowed: 0 to 5"),
        (np.arange(6) + 1, r"positions from 1 to 6 drawn"),
    ],
)
def test_positions_that_do_not_fit_are_one_line(drawn, said):
    sampler = EpochSampler(6, 0, draw=lambda rng, draws: drawn)
    with pytest.raises(DataError, match=said):
        sampler.positions()


def test_ranks_share_an_order_of_ones_own():
    def draw(rng, draws):
        return rng.permutation(draws)

    whole = EpochSampler(11, 3, draw=draw).positions()
    shares = [EpochSampler(11, 3, draw=draw, drop_uneven=True, rank=r, num_replicas=2) for r in range(2)]
    assert torch.equal(torch.stack([s.positions() for s in shares], dim=1).flatten(), whole[:10])
    shares[1].start = 2
    assert list(shares[1]) == whole[1:10:2].tolist()[2:]
    again = EpochSampler(11, 3, draw=draw)
    again.set_epoch(1)
    assert not torch.equal(again.positions(), whole)
