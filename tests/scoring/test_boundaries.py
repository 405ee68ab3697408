"""Boundary F1 is what a loop over all pairs of boundary pixels counts."""

import itertools
import math

import numpy as np
import pytest

from visionforge.scoring.boundaries import boundary_f1


def slow(truth, predicted, k, tolerance, ignore):
    """Boundary F1 of one class in one picture, pixel by pixel."""

    def boundary(mask):
        found = []
        for place in itertools.product(*map(range, mask.shape)):
            if mask[place] != k or truth[place] == ignore:
                continue
            for axis, step in itertools.product(range(mask.ndim), (-1, 1)):
                beside = tuple(x + step * (axis == a) for a, x in enumerate(place))
                inside = all(0 <= x < size for x, size in zip(beside, mask.shape, strict=True))
                if inside and truth[beside] != ignore and mask[beside] != k:
                    found.append(place)
                    break
        return found

    true, said = boundary(truth), boundary(predicted)
    if not true and not said:
        return math.nan
    if not true or not said:
        return 0.0
    precision = np.mean([any(math.dist(one, other) <= tolerance for other in true) for one in said])
    recall = np.mean([any(math.dist(one, other) <= tolerance for other in said) for one in true])
    return 0.0 if precision + recall == 0 else 2 * precision * recall / (precision + recall)


def blobs(shape, seed):
    """Return masks of three classes with areas: the nearest of a few points says the class."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(shape[0]):
        points = rng.random((7, len(shape) - 1)) * shape[1:]
        grid = np.stack(np.meshgrid(*map(np.arange, shape[1:]), indexing="ij"), axis=-1)
        nearest = ((grid[..., None, :] - points) ** 2).sum(axis=-1).argmin(axis=-1)
        found.append(rng.integers(0, 3, 7)[nearest])
    return np.array(found)


@pytest.mark.parametrize("ignore", [None, 255])
@pytest.mark.parametrize("tolerance", [0, 1, 1.5, 3])
@pytest.mark.parametrize("shape", [(4, 12, 10), (2, 5, 6, 4)])
def test_it_is_that_of_a_loop(shape, tolerance, ignore):
    truth, predicted = blobs(shape, 1), blobs(shape, 2)
    predicted[0] = truth[0]
    if ignore is not None:
        truth[:, 2:4] = ignore
    found = boundary_f1(truth, predicted, 3, tolerance, ignore)
    expected = [
        [slow(true, said, k, tolerance, ignore) for k in range(3)] for true, said in zip(truth, predicted, strict=True)
    ]
    np.testing.assert_allclose(found, expected, atol=1e-12)
    assert ((found > 0) & (found < 1)).any()


def test_a_square_that_is_one_pixel_off_agrees_at_the_tolerance_1():
    truth, predicted = np.zeros((2, 1, 20, 20), dtype=np.uint8)
    truth[0, 5:12, 5:12] = predicted[0, 6:13, 5:12] = 1
    assert boundary_f1(truth, predicted, 2, 1)[0, 1] == 1
    assert boundary_f1(truth, predicted, 2, 0)[0, 1] < 0.8


def test_without_boundaries_it_is_undefined_and_of_one_mask_it_is_0():
    truth, predicted = np.zeros((2, 3, 6, 6), dtype=np.uint8)
    truth[0, 2, 2] = predicted[1, 2, 2] = 1
    found = boundary_f1(truth, predicted, 3, 2)
    np.testing.assert_array_equal(found, [[0, 0, np.nan], [0, 0, np.nan], [np.nan] * 3])
    filled = np.ones((1, 6, 6), dtype=np.uint8)  # the edge of the picture is no boundary
    assert np.isnan(boundary_f1(filled, filled, 2, 2)).all()
    assert np.isnan(boundary_f1(np.full((1, 3, 3), 9), filled[:, :3, :3], 2, 2, ignore=9)).all()


def test_pixels_that_are_ignored_need_no_class():
    truth, predicted = np.zeros((2, 1, 4, 4), dtype=np.uint64)
    truth[0, 0], predicted[0, 0], truth[0, 2] = 2**63, 77, 1
    np.testing.assert_array_equal(boundary_f1(truth, predicted, 2, 1, ignore=2**63), [[0, 0]])
