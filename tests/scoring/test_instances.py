"""Objects are told apart and counted as by hand, by SciPy, and by the best assignment."""

import numpy as np
import pytest
from scipy import ndimage
from scipy.optimize import linear_sum_assignment

from visionforge.scoring.instances import instance_precisions, instances


def discs(*places, shape=(48, 48)):
    """Return a mask with discs: (row, column, radius)."""
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    return np.any([(rows - y) ** 2 + (columns - x) ** 2 <= r**2 for y, x, r in places], axis=0)


@pytest.mark.parametrize("shape", [(5, 16, 12), (3, 6, 7, 8)])
def test_objects_are_scipys_components_and_numbered_from_1_in_each_picture(shape):
    masks = np.random.default_rng(0).random(shape) < 0.15
    found = instances(masks)
    assert found.dtype == np.int32
    for number, mask in enumerate(masks):
        np.testing.assert_array_equal(found[number], ndimage.label(mask, np.ones((3,) * mask.ndim))[0])
    np.testing.assert_array_equal(found, instances(masks.astype(np.uint8)))


def test_touching_discs_are_divided_at_their_neck():
    masks = np.stack([discs((15, 14, 9), (15, 29, 9), (38, 38, 4)), discs((20, 20, 10)), np.zeros((48, 48), bool)])
    whole, parts = instances(masks), instances(masks, min_distance=6)
    assert [each.max() for each in whole] == [2, 1, 0]
    assert [each.max() for each in parts] == [3, 1, 0]
    np.testing.assert_array_equal(parts > 0, masks)  # no pixel is lost, none is added
    np.testing.assert_array_equal(parts[1], whole[1])
    left, right = parts[0, 15, 14], parts[0, 15, 29]
    assert len({0, left, right, parts[0, 38, 38]}) == 4
    for label, (y, x) in ((left, (15, 14)), (right, (15, 29))):
        disc = discs((y, x, 9))
        overlap = (parts[0] == label) & disc
        assert overlap.sum() / ((parts[0] == label) | disc).sum() > 0.9
    assert instances(masks[:1], min_distance=20).max() == 2  # the cores are nearer than that


@pytest.mark.parametrize("seed", range(8))
def test_every_pixel_goes_to_a_core_that_it_reaches_by_the_deepest_way(seed):
    """The definition of a watershed: no other core is reached without going through a shallower pixel."""
    rng = np.random.default_rng(seed)
    mask = rng.random((46, 46)) > 0.04  # holes, between which there are many ways
    mask = np.pad(mask, 1)
    parts = instances(mask[None], min_distance=8)[0]
    depth = ndimage.distance_transform_edt(mask)
    count = parts.max()
    cores = [np.unravel_index(np.where(parts == k, depth, 0).argmax(), mask.shape) for k in range(1, count + 1)]
    narrowest = np.zeros((count, *mask.shape))  # depth of the shallowest pixel on the deepest way to each core
    for level in np.unique(depth[mask]):
        reached = ndimage.label(depth >= level, np.ones((3, 3)))[0]
        for k, core in enumerate(cores):
            narrowest[k][(reached == reached[core]) & (reached > 0)] = level
    own = np.take_along_axis(narrowest, np.maximum(parts - 1, 0)[None], axis=0)[0]
    assert count > ndimage.label(mask, np.ones((3, 3)))[1]
    np.testing.assert_array_equal(own[mask], narrowest.max(axis=0)[mask])


def test_a_large_neighbour_takes_no_small_object_and_balls_are_divided_too():
    masks = discs((20, 20, 15), (20, 38, 2))[None]
    assert instances(masks, min_distance=10).max() == 2
    grid = np.stack(np.meshgrid(*[np.arange(24)] * 3, indexing="ij"))
    balls = [(((grid - np.reshape(middle, (3, 1, 1, 1))) ** 2).sum(axis=0) <= 36) for middle in ((8, 8, 7), (8, 8, 17))]
    found = instances((balls[0] | balls[1])[None], min_distance=5)
    assert found.max() == 2
    assert found[0, 8, 8, 7] != found[0, 8, 8, 17]


def assigned(true, said, threshold):
    """Average precision of one picture with the assignment of the largest sum of IoU."""
    names = [[name for name in np.unique(mask) if name] for mask in (true, said)]
    iou = np.array(
        [[((true == a) & (said == b)).sum() / ((true == a) | (said == b)).sum() for b in names[1]] for a in names[0]]
    ).reshape(len(names[0]), len(names[1]))
    hits = (iou[linear_sum_assignment(-iou)] > threshold).sum()
    total = len(names[0]) + len(names[1]) - hits
    return hits / total if total else np.nan


def test_average_precision_is_that_of_the_best_assignment():
    rng = np.random.default_rng(3)
    truth = instances(rng.random((8, 24, 24)) < 0.3)
    moved = np.where(rng.random(truth.shape) < 0.15, 0, truth)  # objects lose pixels, some so many that they break
    predicted = instances(moved > 0) * 3 + (moved > 0)  # numbers with gaps
    truth[6] = 0
    truth[7] = predicted[7] = 0
    thresholds = [0.5, 0.65, 0.8]
    found = instance_precisions(truth, predicted, thresholds)
    expected = [[assigned(*pair, t) for t in thresholds] for pair in zip(truth, predicted, strict=True)]
    np.testing.assert_allclose(found, expected)
    assert (found[6] == 0).all()
    assert np.isnan(found[7]).all()
    assert len(np.unique(found[:6])) > 6


def test_an_iou_of_exactly_one_half_is_no_hit():
    truth, predicted = np.array([[[1, 1, 0]]]), np.array([[[4, 0, 0]]])
    assert instance_precisions(truth, predicted)[0, 0] == 0
    halves = np.array([[[1, 2, 0]]])  # both have half of it
    assert instance_precisions(truth, halves)[0, 0] == 0


BAD = {
    "masks: allowed: 0 and 1": lambda: instances(np.full((1, 2, 2), 2)),
    r"masks: \(2, 2\); allowed": lambda: instances(np.ones((2, 2), dtype=int)),
    "masks: float64; allowed": lambda: instances(np.full((1, 2, 2), np.nan)),
    "min_distance: 0 is not": lambda: instances(np.ones((1, 2, 2), dtype=int), 0),
    "min_distance: nan is not": lambda: instances(np.ones((1, 2, 2), dtype=int), float("nan")),
    r"thresholds: \[0.4\]": lambda: instance_precisions(*np.ones((2, 1, 2, 2), dtype=int), thresholds=[0.4]),
    r"thresholds: \[\]": lambda: instance_precisions(*np.ones((2, 1, 2, 2), dtype=int), thresholds=[]),
    "truth: has the value -1": lambda: instance_precisions(*np.full((2, 1, 2, 2), -1)),
    r"predicted: \(1, 3, 2\)": lambda: instance_precisions(np.ones((1, 2, 2), int), np.ones((1, 3, 2), int)),
    "predicted: float64": lambda: instance_precisions(np.ones((1, 2, 2), int), np.ones((1, 2, 2))),
}


@pytest.mark.parametrize("complaint", BAD)
def test_wrong_arguments(complaint):
    with pytest.raises(ValueError, match=complaint) as raised:
        BAD[complaint]()
    assert "\n" not in str(raised.value)
