"""Metrics of boxes as functions: intervals hold the value, arrays and tensors are alike, wrong arguments are told."""

import numpy as np
import pytest
import torch

from tests.conftest import EXHAUSTIVE
from tests.scoring.boxes import CLASSES, coco, pictures
from visionforge import metrics
from visionforge.evaluation.bootstrap import estimate, paired_differences, resample_weights
from visionforge.evaluation.scores import PictureScorer, metrics_of_form
from visionforge.scoring.box_cases import BoxCases

TRUTH, PREDICTED = pictures("random")
NAMES = ["map", "map_50", "map_75", "mar_100", "precision", "recall", "f1"]
OF_CLASSES = ["ap", "ap_50", "precision", "recall", "f1"]


def scorer_of(truth, predicted):
    return PictureScorer(BoxCases(truth, predicted, CLASSES), metrics_of_form("boxes"))


def test_metrics_are_those_of_pycocotools_for_arrays_tensors_and_lists():
    found = metrics.detection_metrics(TRUTH, PREDICTED, CLASSES)
    areas, recalls = coco(TRUTH, PREDICTED)
    assert list(found) == NAMES
    expected = [areas.mean(), areas[0].mean(), areas[5].mean(), recalls.mean()]
    assert [found[name] for name in NAMES[:4]] == pytest.approx(expected)
    assert found == metrics.detection_metrics(torch.from_numpy(TRUTH), torch.from_numpy(PREDICTED), CLASSES)
    assert found == metrics.detection_metrics(TRUTH.tolist(), PREDICTED.tolist(), CLASSES)


def test_every_argument_changes_what_it_is_for():
    plain = metrics.detection_intervals(TRUTH, PREDICTED, CLASSES, resamples=0)
    assert list(plain.per_class) == OF_CLASSES
    assert plain.overall["map"] == pytest.approx(np.mean(plain.per_class["ap"]))
    assert plain.overall["map_50"] == pytest.approx(np.mean(plain.per_class["ap_50"]))
    sure = metrics.detection_intervals(TRUTH, PREDICTED, CLASSES, score_threshold=0.9, resamples=0)
    assert sure.overall["recall"] < plain.overall["recall"]
    assert [sure.overall[name] for name in NAMES[:4]] == [plain.overall[name] for name in NAMES[:4]]
    few = metrics.detection_metrics(TRUTH, PREDICTED, CLASSES, max_detections=1)
    assert few["mar_1"] < plain.overall["mar_100"]
    assert "mar_100" not in few
    more = metrics.detection_intervals(TRUTH, PREDICTED, CLASSES + 1, resamples=20)
    assert more.overall == plain.overall
    assert all(values == [*plain.per_class[name], None] for name, values in more.per_class.items())
    assert all(values[-1] is None for values in more.class_intervals.values())


def test_intervals_follow_seed_and_confidence_and_hold_the_value():
    found = metrics.detection_intervals(TRUTH, PREDICTED, CLASSES, resamples=300, seed=3)
    assert set(found.intervals) == set(found.overall)
    for name, (low, high) in found.intervals.items():
        assert low < found.overall[name] < high, name
    for name, values in found.class_intervals.items():
        assert all(low < value < high for value, (low, high) in zip(found.per_class[name], values, strict=True))
    assert found == metrics.detection_intervals(TRUTH, PREDICTED, CLASSES, resamples=300, seed=3)
    assert found.intervals != metrics.detection_intervals(TRUTH, PREDICTED, CLASSES, resamples=300, seed=4).intervals
    narrow = metrics.detection_intervals(TRUTH, PREDICTED, CLASSES, resamples=300, seed=3, confidence=0.5)
    assert narrow.intervals["map"][0] > found.intervals["map"][0]


def test_resamples_are_those_of_pycocotools():
    scorer = scorer_of(TRUTH, PREDICTED)
    (weights,) = resample_weights(scorer.labels, 25, 0)
    found = scorer(weights).overall
    for column in range(25):
        drawn = np.repeat(np.arange(len(TRUTH)), weights[:, column].astype(int))
        areas, recalls = coco(TRUTH[drawn], PREDICTED[drawn])
        assert found["map"][column] == pytest.approx(np.nanmean(areas.mean(axis=0)))
        assert found["mar_100"][column] == pytest.approx(np.nanmean(recalls.mean(axis=0)))


def simulated(count, seed):
    """Return pictures that differ in how much is found and how well; three classes, right boxes with higher scores."""
    rng = np.random.default_rng(seed)
    corner, sides = rng.integers(0, 100, (count, 6, 2)), rng.integers(10, 30, (count, 6, 2))
    truth = np.concatenate([rng.integers(0, 3, (count, 6, 1)), corner, corner + sides], axis=2)
    off = np.rint(rng.normal(size=(count, 6, 4)) * rng.gamma(2, 1.2, (count, 1, 1))).clip(-4, 4)
    found = np.concatenate([truth[..., :1], rng.beta(5, 2, (count, 6, 1)), truth[..., 1:] + off], axis=2)
    none = rng.random((count, 6)) < 0.5
    found[none | (rng.random((count, 6)) > rng.beta(6, 3, (count, 1))), 0] = -1
    truth[none, 0] = -1
    corner, sides = rng.integers(0, 100, (count, 8, 2)), rng.integers(10, 30, (count, 8, 2))
    vain = [rng.integers(0, 3, (count, 8, 1)), rng.beta(2, 4, (count, 8, 1)), corner, corner + sides]
    vain = np.concatenate(vain, axis=2)
    vain[rng.random((count, 8)) < 0.5, 0] = -1
    return truth, np.concatenate([found, vain], axis=1)


@pytest.mark.slow
@EXHAUSTIVE
def test_intervals_hold_the_truth():
    """Average precision of 200 pictures is biased upwards (by 0.009 of 0.203), so its intervals hold less."""
    big = metrics.detection_metrics(*simulated(20_000, 1), 3)
    held = dict.fromkeys(big, 0)
    for number in range(300):
        found = metrics.detection_intervals(*simulated(200, 100 + number), 3, resamples=500, seed=number)
        for name, (low, high) in found.intervals.items():
            held[name] += low <= big[name] <= high
    assert all(held[name] / 300 >= (0.83 if name.startswith("map") else 0.88) for name in NAMES), held
    assert max(held.values()) / 300 <= 0.98, held


def test_two_models_are_compared_on_the_same_resamples():
    worse = PREDICTED.copy()
    worse[:, ::2, 0] = -1
    one, other = (scorer_of(TRUTH, each) for each in (PREDICTED, worse))
    found = paired_differences([one], [other], resamples=200)
    expected = [metrics.detection_metrics(TRUTH, each, CLASSES)["mar_100"] for each in (PREDICTED, worse)]
    assert found["mar_100"].value == pytest.approx(expected[0] - expected[1])
    assert found["mar_100"].interval[0] > 0
    (alone,) = estimate([one], resamples=200)
    assert alone.overall["map"] == metrics.detection_metrics(TRUTH, PREDICTED, CLASSES)["map"]


def test_models_are_compared_on_the_same_boxes_only():
    empty = np.full((1, *TRUTH.shape[1:]), -1, TRUTH.dtype), np.full((1, *PREDICTED.shape[1:]), -1, PREDICTED.dtype)
    longer = (np.concatenate(each) for each in zip((TRUTH, PREDICTED), empty, strict=True))  # by a picture without any
    others = [longer, (TRUTH[::-1], PREDICTED), (changed(TRUTH, np.s_[..., 4], TRUTH[..., 4] + 0.5), PREDICTED)]
    for other in others:
        with pytest.raises(ValueError, match="not of the same cases"):
            paired_differences([scorer_of(TRUTH, PREDICTED)], [scorer_of(*other)], resamples=20)


def test_what_is_undefined_is_none():
    found = metrics.detection_intervals(*pictures("neither"), CLASSES, resamples=20)
    assert set(found.overall.values()) == {None}
    assert set(found.intervals.values()) == {None}
    assert found.per_class["ap"] == [None] * CLASSES
    vain = metrics.detection_metrics(*pictures("no truth"), CLASSES)  # everything is a false alarm
    assert {name: value for name, value in vain.items() if value is not None} == {"precision": 0}
    nothing = metrics.detection_metrics(*pictures("no predictions"), CLASSES)
    assert nothing == dict.fromkeys(NAMES, 0) | {"precision": None}


def changed(given, place, value):
    found = given.copy()
    found[place] = value
    return found


ROW, SAID = np.s_[2, 0], np.s_[2, 1]
BOX, SCORED = [0, 5, 5, 9, 9], [0, 0.5, 5, 5, 9, 9]
BAD = {
    r"truth: \(15, 5\); allowed: \(N, M, 5\), rows \[class, x1, y1, x2, y2\]": (TRUTH[:, 0], PREDICTED),
    r"truth: \(0, 6, 5\); allowed: \(N, M, 5\)": (TRUTH[:0], PREDICTED[:0]),
    r"truth: \(15, 11, 6\); allowed": (PREDICTED, PREDICTED),
    r"predicted: \(15, 6, 5\); allowed: \(N, D, 6\), rows \[class, score, x1": (TRUTH, TRUTH),
    "predicted: 14 pictures; allowed: 15, as of the truth": (TRUTH, PREDICTED[1:]),
    "truth: object; allowed: numbers": (TRUTH.astype(object), PREDICTED),
    "predicted: bool; allowed: numbers": (TRUTH, PREDICTED.astype(bool)),
    "truth: has the class 4; allowed: 0 to 3, or -1": (changed(TRUTH, ROW, [4, *BOX[1:]]), PREDICTED),
    "truth: has the class 0.5; allowed": (changed(TRUTH, ROW, [0.5, *BOX[1:]]), PREDICTED),
    "predicted: has the class -2; allowed": (TRUTH, changed(PREDICTED, SAID, [-2, *SCORED[1:]])),
    "predicted: has the class nan; allowed": (TRUTH, changed(PREDICTED, SAID, [np.nan, *SCORED[1:]])),
    "truth: row 0 of picture 2 has a number that is not finite": (changed(TRUTH, ROW, [*BOX[:4], np.nan]), PREDICTED),
    "predicted: row 1 of picture 2 has .*beyond 1e\\+09": (TRUTH, changed(PREDICTED, SAID, [*SCORED[:5], 1e10])),
    "predicted: row 1 of picture 2 has a number that is not": (TRUTH, changed(PREDICTED, SAID, [0, np.inf, *BOX[1:]])),
    "truth: row 0 of picture 2 has no area; allowed: x1 < x2": (changed(TRUTH, ROW, [0, 5, 5, 5, 9]), PREDICTED),
    "predicted: row 1 of picture 2 has no area": (TRUTH, changed(PREDICTED, SAID, [0, 0.5, 5, 9, 9, 5])),
    "predicted: row 1 of picture 2 has a score": (TRUTH, changed(PREDICTED, SAID, [0, 1.5, *BOX[1:]])),
}
WRONG = {
    "classes: 0 is not allowed; allowed: 1 to 4096": {"classes": 0},
    "classes: 1000000000 is not allowed": {"classes": 10**9},
    "score_threshold: 1.5 is not allowed; allowed: 0 to 1": {"score_threshold": 1.5},
    "score_threshold: nan is not allowed": {"score_threshold": np.nan},
    "max_detections: 0 is not allowed": {"max_detections": 0},
    "resamples: -1": {"resamples": -1},
    "confidence: 95": {"confidence": 95},
}


@pytest.mark.parametrize("complaint", [*BAD, *WRONG])
def test_wrong_arguments(complaint):
    pair, arguments = BAD.get(complaint, (TRUTH, PREDICTED)), {"classes": CLASSES} | WRONG.get(complaint, {})
    with pytest.raises(ValueError, match=complaint) as raised:
        metrics.detection_intervals(*pair, **arguments)
    assert "\n" not in str(raised.value)
