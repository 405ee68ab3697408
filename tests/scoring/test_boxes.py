"""Metrics of boxes are those of pycocotools, torchmetrics and plain loops, and a weight is a number of repetitions."""

import warnings

import numpy as np
import pytest
import torch
from torchmetrics.detection import MeanAveragePrecision

from tests.scoring.boxes import CLASSES, KINDS, coco, found_by_loops, pictures
from visionforge.scoring import assignment
from visionforge.scoring import boxes as module
from visionforge.scoring.assignment import matched
from visionforge.scoring.boxes import IOUS, RECALLS, WeightedBoxes, detections

CURVES = ("average_precision", "average_precision_50", "average_precision_75", "average_recall")
NAMES = (*CURVES, "precision", "recall", "f1")


def weighted(pair, weights=None, **arguments):
    return WeightedBoxes(
        detections(*pair, CLASSES), np.ones((len(pair[0]), 1)) if weights is None else weights, **arguments
    )


@pytest.mark.parametrize("kind", KINDS)
def test_curves_are_those_of_pycocotools(kind):
    for seed in range(3):
        pair = pictures(kind, seed)
        found = weighted(pair)
        areas, recalls = coco(*pair)
        expected = areas.mean(axis=0), areas[0], areas[5], recalls.mean(axis=0)
        for name, values in zip(CURVES, expected, strict=True):
            np.testing.assert_allclose(getattr(found, name)[:, 0], values, atol=1e-12, err_msg=f"{name}, {seed}")


@pytest.mark.parametrize("most", [1, 3, 100, 400])
def test_the_highest_scores_of_each_picture_and_class_count(most):
    pair = pictures("many")
    assert ((pair[1][..., 0] == 0).sum(axis=1) > 100).any()
    found = WeightedBoxes(detections(*pair, CLASSES, max_detections=most), np.ones((2, 1)))
    areas, recalls = coco(*pair, most)
    np.testing.assert_allclose(found.average_precision[:, 0], areas.mean(axis=0), atol=1e-12)
    np.testing.assert_allclose(found.average_recall[:, 0], recalls.mean(axis=0), atol=1e-12)


# of fractions it rounds the sides of boxes to float32, by which an IoU may fall below a threshold
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "fractions"])
def test_curves_are_those_of_torchmetrics(kind):
    pair = pictures(kind)
    found = weighted(pair)
    metric = MeanAveragePrecision(iou_thresholds=IOUS.tolist(), rec_thresholds=RECALLS.tolist(), class_metrics=True)
    metric.warn_on_many_detections = False
    true, said = ([torch.from_numpy(rows[rows[:, 0] >= 0]) for rows in each.astype(np.float32)] for each in pair)
    metric.update(
        [{"boxes": rows[:, 2:], "scores": rows[:, 1], "labels": rows[:, 0].long()} for rows in said],
        [{"boxes": rows[:, 1:], "labels": rows[:, 0].long()} for rows in true],
    )
    theirs = {name: value.numpy() for name, value in metric.compute().items()}
    for ours, name in zip(CURVES, ("map", "map_50", "map_75", "mar_100"), strict=True):
        value = found.over_classes(getattr(found, ours))[0]
        np.testing.assert_allclose(-1 if np.isnan(value) else value, theirs[name], atol=1e-6, err_msg=name)


def loops(pair, threshold):
    """Return precision, recall and F1 of each class, and of all boxes, in float64; NaN as documented."""
    counts = np.zeros((3, CLASSES))  # right, predicted, true
    for true, said in zip(*pair, strict=True):
        for number, right in enumerate(found_by_loops(true, said, 0.5)[0]):
            if said[number, 0] >= 0 and said[number, 1] >= threshold:
                counts[:2, int(said[number, 0])] += right, 1
        for row in true[true[:, 0] >= 0]:
            counts[2, int(row[0])] += 1

    def rates(right, said, true):
        precision = right / said if said else np.nan
        recall = right / true if true else np.nan
        f1 = np.nan if not true else 2 * precision * recall / (precision + recall) if right else 0.0
        return precision, recall, f1

    of_classes = [rates(*each) if each[2] else (np.nan,) * 3 for each in counts.T]
    return np.array(of_classes).T, rates(*counts.sum(axis=1))


@pytest.mark.parametrize("threshold", [0, 0.5, 0.75, 1])
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "many"])
def test_rates_at_a_score_are_those_of_loops(kind, threshold):
    pair = pictures(kind)
    found = weighted(pair, score_threshold=threshold)
    of_classes, together = loops(pair, threshold)
    for place, name in enumerate(("precision", "recall", "f1")):
        np.testing.assert_allclose(getattr(found, name)[:, 0], of_classes[place], atol=1e-12, err_msg=name)
        np.testing.assert_allclose(found.pooled[name][0], together[place], atol=1e-12, err_msg=name)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("ties", "duplicates", "perfect")])
def test_a_weight_is_a_number_of_repetitions(kind):
    pair = pictures(kind)
    count = len(pair[0])
    weights = np.random.default_rng(1).integers(0, 3, (count, 6)).astype(np.float64)
    weights[:, 4], weights[0, 4] = 0, 5  # classes are absent
    weights[0, weights.sum(axis=0) == 0] = 1
    together = weighted(pair, weights)
    for column in range(weights.shape[1]):
        drawn = np.repeat(np.arange(count), weights[:, column].astype(int))
        alone = weighted([each[drawn] for each in pair])
        for name in NAMES:
            one, other = getattr(together, name)[:, column], getattr(alone, name)[:, 0]
            np.testing.assert_allclose(one, other, atol=1e-12, err_msg=name)
        for name, values in alone.pooled.items():
            np.testing.assert_allclose(together.pooled[name][column], values[0], atol=1e-12, err_msg=name)
    absent = ~np.isin(np.arange(CLASSES), pair[0][0, :, 0])
    np.testing.assert_array_equal(np.isnan(together.average_precision[:, 4]), absent)
    np.testing.assert_array_equal(np.isnan(together.precision[:, 4]) >= absent, True)


def test_equal_scores_of_different_pictures_are_repeated_exactly():
    """Of one picture and class they are not; the class says so."""
    pair = pictures("ties")
    for number, rows in enumerate(pair[1]):
        rows[:, 1] = np.arange(len(rows))[::-1] / len(rows) if number else np.linspace(1, 0, len(rows))
    weights = np.full((len(pair[0]), 1), 2.0)
    alone = weighted([np.repeat(each, 2, axis=0) for each in pair])
    np.testing.assert_allclose(weighted(pair, weights).average_precision, alone.average_precision, atol=1e-12)


def test_parts_change_nothing(monkeypatch):
    pair = pictures("random")
    weights = np.random.default_rng(2).integers(0, 4, (len(pair[0]), 30)).astype(np.float64)
    whole = weighted(pair, weights)
    expected = {name: getattr(whole, name) for name in NAMES}
    rights = matched(*pair)
    monkeypatch.setattr(module, "_PART_CELLS", 700)
    monkeypatch.setattr(assignment, "_PART_CELLS", 7)
    parted = weighted(pair, weights)
    assert len(list(parted._parts(200))) == 10
    for name, values in expected.items():
        np.testing.assert_array_equal(getattr(parted, name), values)
    for one, other in zip(matched(*pair), rights, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("iou", [0.3, 0.5, 0.8, 1.0])
@pytest.mark.parametrize("kind", KINDS)
def test_matches_are_those_of_loops(kind, iou):
    truth, predicted = pictures(kind)
    right, missed = matched(truth, predicted, iou)
    assert (right.shape, missed.shape) == (predicted.shape[:2], truth.shape[:2])
    assert right.dtype == missed.dtype == bool
    for number, pair in enumerate(zip(truth, predicted, strict=True)):
        expected = found_by_loops(*pair, iou)
        assert right[number].tolist() == expected[0]
        assert missed[number].tolist() == expected[1]
    there = truth[..., 0] >= 0
    assert right.sum() == (there & ~missed).sum()


def test_a_box_that_is_left_out_changes_nothing_above_it():
    truth, predicted = pictures("random")
    some = predicted.copy()
    low = some[..., 1] < 0.5
    some[low, 0] = -1
    np.testing.assert_array_equal(matched(truth, some)[0], matched(truth, predicted)[0] & ~low)


def test_of_equal_overlaps_the_last_is_taken_and_each_only_once():
    truth = np.array([[[0, 0, 0, 10, 10], [0, 0, 0, 10, 10], [1, 0, 0, 10, 10]]], dtype=np.float32)
    box = [0, 0, 10, 10]
    predicted = np.array([[[0, 0.5, *box], [0, 0.9, *box], [0, 0.4, *box], [1, 0.1, 50, 0, 60, 9]]])
    right, missed = matched(truth, predicted[:, 1:])
    assert right.tolist() == [[True, True, False]]
    assert missed.tolist() == [[False, False, True]]
    assert matched(truth, predicted[:, :1])[1].tolist() == [[True, False, True]]
    assert matched(truth, predicted, 1)[0].tolist() == [[True, True, False, False]]


def test_nothing_warns_where_nothing_is_defined():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for kind in KINDS:
            found = weighted(pictures(kind), np.zeros((len(pictures(kind)[0]), 2)))
            for name in NAMES:
                assert np.isnan(getattr(found, name)).all()
            assert all(np.isnan(values).all() for values in found.pooled.values())


def test_integers_and_half_precision_are_numbers():
    truth, predicted = pictures("perfect")
    truth, predicted = np.nan_to_num(truth), np.nan_to_num(predicted)
    predicted[..., 1] = 1
    expected = weighted((truth, predicted)).average_precision
    for kind in (np.int16, np.float16, np.float64):
        assert (weighted((truth.astype(kind), predicted.astype(kind))).average_precision == expected).all()


def test_an_overlap_needs_more_than_a_shared_edge():
    one = np.array([[0, 0, 10, 10], [0, 0, 10, 10], [0, 0, 10, 10], [0, 0, 4, 4]], dtype=float)
    other = np.array([[10, 0, 20, 10], [20, 20, 30, 30], [5, 0, 15, 10], [0, 0, 4, 4]], dtype=float)
    np.testing.assert_allclose(assignment.overlaps(one, other), [0, 0, 1 / 3, 1])
