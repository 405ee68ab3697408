"""Orders are functions of (seed, epoch); batches are whole; ranks share an epoch without loss."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from visionforge.data.archive import SplitArrays
from visionforge.data.batches import ArrayDataset, EpochSampler, balancing_weights


@pytest.mark.parametrize("shape", [(6, 4, 4), (6, 4, 4, 3)])
def test_batch_is_the_stack_of_its_items(shape):
    images = np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)
    dataset = ArrayDataset(SplitArrays(images, np.arange(6)))
    batch, labels = dataset.__getitems__([4, 0, 4])
    assert batch.shape == (3, 3 if len(shape) == 4 else 1, 4, 4)
    assert labels.tolist() == [4, 0, 4]
    for got, index in zip(batch, [4, 0, 4], strict=True):
        assert torch.equal(got, dataset[index][0])
        reference = images[index].transpose(2, 0, 1) if len(shape) == 4 else images[index][None]
        np.testing.assert_array_equal(got.numpy(), reference)


def test_subset_keeps_the_given_order():
    arrays = SplitArrays(np.arange(6, dtype=np.uint8)[:, None, None], np.arange(6))
    assert ArrayDataset(arrays, [5, 2]).labels.tolist() == [5, 2]


def test_order_is_a_function_of_seed_and_epoch():
    def order(seed, epoch):
        sampler = EpochSampler(50, seed)
        sampler.set_epoch(epoch)
        return list(sampler)

    assert order(1, 3) == order(1, 3)
    assert order(1, 3) != order(1, 4)
    assert order(1, 3) != order(2, 3)
    assert sorted(order(1, 3)) == list(range(50))
    assert list(EpochSampler(5, 1, shuffle=False)) == [0, 1, 2, 3, 4]


@given(size=st.integers(1, 60), replicas=st.integers(1, 5), epoch=st.integers(0, 3), drop=st.booleans())
@settings(max_examples=60, deadline=None)
def test_ranks_share_an_epoch(size, replicas, epoch, drop):
    parts = []
    for rank in range(replicas):
        sampler = EpochSampler(size, 7, drop_uneven=drop, rank=rank, num_replicas=replicas)
        sampler.set_epoch(epoch)
        part = list(sampler)
        assert len(part) == len(sampler)
        parts.append(part)
    union = sorted(index for part in parts for index in part)
    assert len(union) == len(set(union))
    if drop:
        assert len({len(part) for part in parts}) == 1
        assert len(union) == size - size % replicas
    else:
        assert union == list(range(size))


def test_balanced_sampling_draws_classes_equally():
    labels = torch.tensor([0] * 900 + [1] * 90 + [2] * 10)
    sampler = EpochSampler(1000, 0, weights=balancing_weights(labels))
    counts = torch.zeros(3)
    for epoch in range(20):
        sampler.set_epoch(epoch)
        counts += torch.bincount(labels[list(sampler)], minlength=3)
    np.testing.assert_allclose(counts / counts.sum(), 1 / 3, atol=0.02)


def test_weights_are_one_over_class_count():
    labels = torch.tensor([0, 0, 0, 2])
    assert balancing_weights(labels).tolist() == pytest.approx([1 / 3, 1 / 3, 1 / 3, 1.0])


def test_multi_label_weights_follow_the_label_counts():
    labels = torch.tensor([[1, 0], [1, 0], [1, 1], [0, 0]])
    weights = balancing_weights(labels)
    assert weights.tolist() == pytest.approx([1 / 3, 1 / 3, (1 / 3 + 1) / 2, 1.0])
