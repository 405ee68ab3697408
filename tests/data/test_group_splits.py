"""Splits of whole groups: as near to the shares as any division can be, found by trying all of them."""

import itertools

import numpy as np
import pytest

from visionforge.data.group_splits import divide_groups

SHARES = (0.7, 0.1, 0.2)


def cohort(groups, classes, seed, several=False):
    """Return labels and groups of some patients with one to eight images each; a patient is of one class."""
    draw = np.random.default_rng(seed)
    images = draw.integers(1, 9, groups)
    labels = draw.integers(0, 2, (groups, classes)) if several else draw.integers(0, classes, groups)
    return np.repeat(labels, images, axis=0), np.repeat(np.char.mod("p%d", np.arange(groups)), images)


def chi_square(labels, split, shares=SHARES):
    """Return how far splits are from their shares of all images and of every class."""
    columns = labels if labels.ndim == 2 else labels[:, None] == np.unique(labels)
    total = 0.0
    for column in [np.ones(len(labels)), *columns.T]:
        for place, share in enumerate(shares):
            wanted = share * column.sum()
            total += (column[split == place].sum() - wanted) ** 2 / wanted
    return total


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("seed", range(6))
def test_no_division_is_much_nearer(seed, several):
    labels, groups = cohort(8, 2, seed, several)
    names, member = np.unique(groups, return_inverse=True)
    best = min(
        chi_square(labels, np.array(split)[member])
        for split in itertools.product(range(3), repeat=len(names))
        if len(set(split)) == 3
    )
    found = divide_groups(labels, groups, SHARES, seed)
    assert all(len(set(found[groups == name])) == 1 for name in names)
    assert chi_square(labels, found) <= 1.3 * best + 0.5


@pytest.mark.parametrize("shares", [SHARES, (0.75, 0.15, 0.1), (0.97, 0.015, 0.015), (0.9, 0.1)])
def test_many_groups_have_their_shares_of_every_class(shares):
    labels, groups = cohort(1_000, 5, 0)
    found = divide_groups(labels, groups, shares, 3)
    for label in range(5):
        there = np.bincount(found[labels == label]) / (labels == label).sum()
        np.testing.assert_allclose(there, shares, atol=0.004)


def test_every_split_has_a_group_and_the_seed_decides_which():
    labels, groups = cohort(3, 2, 0)
    assert sorted(set(divide_groups(labels, groups, (0.98, 0.01, 0.01), 0))) == [0, 1, 2]
    labels, groups = cohort(50, 2, 0)
    one, two, again = (divide_groups(labels, groups, SHARES, seed) for seed in (0, 1, 0))
    np.testing.assert_array_equal(one, again)
    assert not np.array_equal(one, two)


def test_all_groups_are_as_likely_to_be_tested():
    """Of 20 patients with as many images each, each is in the test split in one of five divisions."""
    groups = np.repeat(np.char.mod("%d", np.arange(20)), 4)
    labels = np.repeat(np.arange(20) % 2, 4)
    tested = sum((divide_groups(labels, groups, SHARES, seed) == 2).astype(int) for seed in range(400))
    assert abs(tested / 400 - 0.2).max() < 0.08  # four standard errors


def test_too_few_groups():
    with pytest.raises(ValueError, match="2 groups cannot be spread over 3 splits"):
        divide_groups(np.zeros(4, dtype=int), np.array(["a", "a", "b", "b"]), SHARES, 0)
