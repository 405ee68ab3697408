"""Metrics of masks as functions: intervals hold the truth, arrays and tensors are alike, wrong arguments are told."""

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, f1_score, jaccard_score

from visionforge import metrics
from visionforge.scoring.boundaries import boundary_f1

NAMES = ("pixel_accuracy", "mean_dice", "mean_iou")


def pictures(count: int, seed: int = 0):
    """Return masks of 3 classes, (count, 8, 8); pictures differ in what is on them, and in how much is wrong."""
    rng = np.random.default_rng(seed)
    shares = rng.dirichlet([6, 3, 2], count)
    truth = (rng.random((count, 8, 8, 1)) > shares.cumsum(axis=1)[:, None, None, :2]).sum(axis=-1)
    wrong = rng.random((count, 8, 8)) < rng.beta(2, 6, (count, 1, 1))
    return truth, np.where(wrong, rng.integers(0, 3, truth.shape), truth)


TRUTH, PREDICTED = pictures(12)


def test_metrics_are_those_of_scikit_learn_for_arrays_tensors_and_lists():
    found = metrics.segmentation_metrics(TRUTH, PREDICTED, 3)
    pair = TRUTH.ravel(), PREDICTED.ravel()
    assert found["pixel_accuracy"] == pytest.approx(accuracy_score(*pair))
    assert found["mean_dice"] == pytest.approx(f1_score(*pair, average="macro"))
    assert found["mean_iou"] == pytest.approx(jaccard_score(*pair, average="macro"))
    assert set(found) == {f"{name}{how}" for name in NAMES for how in ("", "_by_picture")}
    assert found == metrics.segmentation_metrics(torch.from_numpy(TRUTH), torch.from_numpy(PREDICTED).byte(), 3)
    assert found == metrics.segmentation_metrics(TRUTH.tolist(), PREDICTED.tolist(), 3)


def test_every_argument_changes_what_it_is_for():
    plain = metrics.segmentation_intervals(TRUTH, PREDICTED, 3, resamples=0)
    objects = metrics.segmentation_intervals(TRUTH, PREDICTED, 3, background=0, resamples=0)
    assert objects.per_class == plain.per_class
    assert objects.overall["pixel_accuracy"] == plain.overall["pixel_accuracy"]
    assert objects.overall["mean_iou"] == pytest.approx(np.mean(plain.per_class["iou"][1:]))
    assert objects.overall["mean_dice_by_picture"] == pytest.approx(np.mean(plain.per_class["dice_by_picture"][1:]))
    some = TRUTH.copy()
    some[PREDICTED != TRUTH] = 255
    assert metrics.segmentation_metrics(some, PREDICTED, 3, ignore=255)["mean_iou_by_picture"] == 1
    edges = metrics.segmentation_intervals(some, PREDICTED, 3, ignore=255, tolerance=1, resamples=20)
    assert edges.overall["mean_boundary_f1"] == 1
    near = metrics.segmentation_intervals(TRUTH, PREDICTED, 3, tolerance=1, resamples=20)
    expected = np.nanmean(boundary_f1(TRUTH, PREDICTED, 3, 1), axis=0)
    np.testing.assert_allclose(near.per_class["boundary_f1"], expected)
    assert near.overall["mean_boundary_f1"] == pytest.approx(expected.mean())
    assert metrics.segmentation_metrics(TRUTH, PREDICTED, 3, tolerance=0)["mean_boundary_f1"] < expected.mean()


def test_intervals_follow_seed_and_confidence_and_hold_the_value():
    found = metrics.segmentation_intervals(TRUTH, PREDICTED, 3, tolerance=1, resamples=300, seed=3)
    assert set(found.intervals) == set(found.overall)
    for name, (low, high) in found.intervals.items():
        assert low < found.overall[name] < high
    assert found == metrics.segmentation_intervals(TRUTH, PREDICTED, 3, tolerance=1, resamples=300, seed=3)
    other = metrics.segmentation_intervals(TRUTH, PREDICTED, 3, tolerance=1, resamples=300, seed=4)
    assert other.intervals != found.intervals
    narrow = metrics.segmentation_intervals(TRUTH, PREDICTED, 3, resamples=300, seed=3, confidence=0.5)
    assert narrow.intervals["mean_iou"][0] > found.intervals["mean_iou"][0]
    for name, values in found.class_intervals.items():
        assert all(low < value < high for value, (low, high) in zip(found.per_class[name], values, strict=True))


def test_pictures_are_drawn_and_not_their_pixels():
    """Every picture twice as large, of the same pixels, says nothing new: the intervals stay."""
    large = [np.kron(mask, np.ones((1, 2, 2), dtype=int)) for mask in (TRUTH, PREDICTED)]
    once, again = (metrics.segmentation_intervals(*pair, 3, resamples=200) for pair in ((TRUTH, PREDICTED), large))
    for name, interval in once.intervals.items():
        np.testing.assert_allclose(again.intervals[name], interval, atol=1e-12)


@pytest.mark.slow
def test_intervals_hold_the_truth():
    truth, predicted = pictures(60_000, seed=1)
    big = metrics.segmentation_metrics(truth, predicted, 3, background=0)
    held = dict.fromkeys(big, 0)
    for number in range(500):
        pair = pictures(60, seed=100 + number)
        found = metrics.segmentation_intervals(*pair, 3, background=0, resamples=600, seed=number).intervals
        for name, (low, high) in found.items():
            held[name] += low <= big[name] <= high
    assert all(0.92 <= count / 500 <= 0.98 for count in held.values()), held


def test_what_is_undefined_is_none():
    nothing = np.full((2, 4, 4), 255)
    found = metrics.segmentation_intervals(nothing, np.zeros_like(nothing), 2, ignore=255, tolerance=1, resamples=20)
    assert set(found.overall.values()) == {None}
    assert set(found.intervals.values()) == {None}
    assert found.per_class["dice"] == [None, None]
    empty = np.zeros((2, 4, 4), dtype=int)
    found = metrics.segmentation_intervals(empty, empty, 2, tolerance=1, resamples=20)
    assert found.per_class["iou"] == [1, None]
    assert found.overall["mean_iou"] == 1
    assert found.overall["mean_boundary_f1"] is None
    assert metrics.segmentation_metrics(empty, empty, 2, background=0)["mean_iou"] is None
    assert metrics.instance_average_precision(empty, empty) is None


def test_average_precision_leaves_pictures_without_objects_out():
    truth = np.zeros((3, 4, 9), dtype=int)
    truth[0, :, :3], truth[0, :, 5:], truth[1, :2] = 1, 2, 7
    predicted = truth.copy()
    predicted[0, :, 5:7] = 0  # half of an object is found
    assert metrics.instance_average_precision(truth, predicted) == pytest.approx((1 / 3 + 1) / 2)
    predicted[0, :, 6] = 2  # three quarters
    assert metrics.instance_average_precision(torch.from_numpy(truth), predicted) == 1
    both = metrics.instance_average_precision(truth, predicted, thresholds=(0.5, 0.8))
    assert both == pytest.approx((1 + (1 / 3 + 1) / 2) / 2)
    assert metrics.instances(torch.from_numpy(truth) > 0)[0].max() == 2


FLOATS = np.where(TRUTH == 1, np.nan, TRUTH)
BAD = {
    r"truth: \(8, 8\); allowed: \(N, H, W\) or": lambda: metrics.segmentation_metrics(TRUTH[0], PREDICTED[0], 3),
    r"truth: \(0, 8, 8\); .* at least one pixel": lambda: metrics.segmentation_metrics(TRUTH[:0], PREDICTED[:0], 3),
    r"predicted: \(11, 8, 8\); allowed: \(12, 8, 8\)": lambda: metrics.segmentation_metrics(TRUTH, PREDICTED[1:], 3),
    "truth: float64; allowed: integers": lambda: metrics.segmentation_metrics(FLOATS, PREDICTED, 3),
    "predicted: float32; allowed: integers": lambda: metrics.segmentation_metrics(TRUTH, PREDICTED.astype("f4"), 3),
    "predicted: object; allowed": lambda: metrics.segmentation_metrics(TRUTH, PREDICTED.astype(object), 3),
    "truth: has the value 3; allowed: 0 to 2$": lambda: metrics.segmentation_metrics(TRUTH + 1, PREDICTED, 3),
    "truth: has the value -1; allowed: 0 to 2, or 9": lambda: metrics.segmentation_metrics(
        TRUTH - 1, PREDICTED, 3, ignore=9
    ),
    "predicted: has the value 2; allowed: 0 to 1$": lambda: metrics.segmentation_metrics(TRUTH % 2, PREDICTED, 2),
    "predicted: has the value 255": lambda: metrics.segmentation_metrics(TRUTH, PREDICTED * 0 + 255, 3, ignore=255),
    "classes: 1 is not allowed; allowed: at least 2": lambda: metrics.segmentation_metrics(TRUTH, PREDICTED, 1),
    "classes: 9000000 for 12 pictures; allowed": lambda: metrics.segmentation_metrics(TRUTH, PREDICTED, 9_000_000),
    "background: 3 is no class; allowed: 0 to 2": lambda: metrics.segmentation_metrics(
        TRUTH, PREDICTED, 3, background=3
    ),
    "tolerance: -1 is not allowed": lambda: metrics.segmentation_metrics(TRUTH, PREDICTED, 3, tolerance=-1),
    "tolerance: nan is not allowed": lambda: metrics.segmentation_metrics(TRUTH, PREDICTED, 3, tolerance=np.nan),
    "resamples: -1": lambda: metrics.segmentation_intervals(TRUTH, PREDICTED, 3, resamples=-1),
    "confidence: 95": lambda: metrics.segmentation_intervals(TRUTH, PREDICTED, 3, confidence=95),
    "masks: allowed: 0 and 1": lambda: metrics.instances(TRUTH),
    "thresholds: ": lambda: metrics.instance_average_precision(TRUTH, PREDICTED, thresholds=(0.3,)),
}


@pytest.mark.parametrize("complaint", BAD)
def test_wrong_arguments(complaint):
    with pytest.raises(ValueError, match=complaint) as raised:
        BAD[complaint]()
    assert "\n" not in str(raised.value)
