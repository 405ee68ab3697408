"""Counts of pixels, Dice and IoU are scikit-learn's and torchmetrics', and a weight is a number of repetitions."""

import warnings

import numpy as np
import pytest
import torch
from sklearn import metrics as sk
from torchmetrics.segmentation import DiceScore, MeanIoU

from visionforge.scoring import masks as module
from visionforge.scoring.mask_cases import MaskCases
from visionforge.scoring.masks import WeightedMasks, confusions

CLASSES = 4
KINDS = ("random", "absent", "missing here and there", "one class", "perfect", "all wrong", "one picture", "volumes")


def masks(kind: str, seed: int = 0):
    """Return truth and prediction of one kind."""
    rng = np.random.default_rng(seed)
    shape = {"one picture": (1, 9, 7), "volumes": (5, 4, 5, 3)}.get(kind, (6, 9, 7))
    truth = rng.integers(0, CLASSES, shape)
    predicted = np.where(rng.random(shape) < 0.4, rng.integers(0, CLASSES, shape), truth)
    if kind == "absent":
        truth[truth == 2] = predicted[predicted == 2] = 0
    if kind == "missing here and there":  # in truth and prediction, in truth, in the prediction
        for number, both in enumerate([(truth, predicted), (truth,), (predicted,)]):
            for mask in both:
                mask[number][mask[number] == number + 1] = 0
    if kind == "one class":
        truth[:] = predicted[:] = 1
    if kind == "perfect":
        predicted = truth.copy()
    if kind == "all wrong":
        predicted = (truth + 1) % CLASSES
    return truth, predicted


def overlaps(truth, predicted):
    """Return (N, K) pixels of each class in both masks, and in both together."""
    return MaskCases(truth, predicted, CLASSES).overlaps


def references(truth, predicted):
    """Return accuracy, Dice and IoU of all pixels given, by scikit-learn; NaN of an absent class."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        arguments = {"labels": list(range(CLASSES)), "average": None, "zero_division": np.nan}
        true, said = truth.ravel(), predicted.ravel()
        dice = sk.f1_score(true, said, **arguments)
        iou = sk.jaccard_score(true, said, **arguments | {"zero_division": 0})
    absent = [k not in true and k not in said for k in range(CLASSES)]
    return sk.accuracy_score(true, said), np.where(absent, np.nan, dice), np.where(absent, np.nan, iou)


@pytest.mark.parametrize("ignore", [None, 255, 1])
@pytest.mark.parametrize("kind", KINDS)
def test_counts_of_each_picture_are_scikit_learns(kind, ignore, monkeypatch):
    truth, predicted = masks(kind)
    if ignore is not None:
        truth[:, :2] = ignore
        if ignore == 255:
            predicted[:, :1] = -7  # nobody looks at it
    found = confusions(truth, predicted, CLASSES, ignore)
    assert found.shape == (len(truth), CLASSES, CLASSES)
    assert found.dtype == np.int64
    for number, counts in enumerate(found):
        kept = np.full(truth[number].shape, True) if ignore is None else truth[number] != ignore
        expected = np.zeros((CLASSES, CLASSES), dtype=int)
        if kept.any():
            expected = sk.confusion_matrix(truth[number][kept], predicted[number][kept], labels=range(CLASSES))
        np.testing.assert_array_equal(counts, expected)
    monkeypatch.setattr(module, "_PART_PIXELS", 20)  # parts of pictures
    np.testing.assert_array_equal(confusions(truth, predicted, CLASSES, ignore), found)
    monkeypatch.setattr(module, "_PART_PIXELS", 130)  # two pictures a part
    np.testing.assert_array_equal(confusions(truth, predicted, CLASSES, ignore), found)


@pytest.mark.parametrize("kind", [bool, np.uint8, np.int16, np.uint64])
def test_any_integers_are_masks(kind):
    truth, predicted = masks("random")
    counts = confusions((truth % 2).astype(kind), (predicted % 2).astype(kind), 2)
    np.testing.assert_array_equal(counts, confusions(truth % 2, predicted % 2, 2))


@pytest.mark.parametrize("kind", KINDS)
def test_dice_and_iou_are_scikit_learns(kind):
    truth, predicted = masks(kind)
    found = WeightedMasks(*overlaps(truth, predicted), np.ones((len(truth), 1)))
    accuracy, dice, iou = references(truth, predicted)
    assert found.pixel_accuracy[0] == pytest.approx(accuracy)
    np.testing.assert_allclose(found.dice[:, 0], dice, atol=1e-12)
    np.testing.assert_allclose(found.iou[:, 0], iou, atol=1e-12)
    assert found.over_classes(found.iou)[0] == pytest.approx(np.nanmean(iou))
    pictures = [references(*pair) for pair in zip(truth, predicted, strict=True)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a class that no picture has
        dice, iou = (np.nanmean([each[place] for each in pictures], axis=0) for place in (1, 2))
    assert found.pixel_accuracy_by_picture[0] == pytest.approx(np.mean([each[0] for each in pictures]))
    np.testing.assert_allclose(found.dice_by_picture[:, 0], dice, atol=1e-12)
    np.testing.assert_allclose(found.iou_by_picture[:, 0], iou, atol=1e-12)
    assert found.over_classes(found.dice_by_picture)[0] == pytest.approx(np.nanmean(dice))


@pytest.mark.parametrize("kind", KINDS)
def test_dice_and_iou_are_torchmetrics(kind):
    truth, predicted = masks(kind)
    found = WeightedMasks(*overlaps(truth, predicted), np.ones((len(truth), 1)))
    pair = torch.from_numpy(predicted), torch.from_numpy(truth)

    def theirs(level, average):
        metric = DiceScore(CLASSES, average=average, aggregation_level=level, input_format="index")
        metric.update(*pair)
        return metric.compute().numpy()

    np.testing.assert_allclose(found.dice[:, 0], theirs("global", None), atol=1e-6)
    np.testing.assert_allclose(found.over_classes(found.dice)[0], theirs("global", "macro"), atol=1e-6)
    np.testing.assert_allclose(found.dice_by_picture[:, 0], theirs("samplewise", None), atol=1e-6)
    macro = theirs("samplewise", "macro")  # means over the classes of each picture, then over the pictures
    same = kind != "missing here and there"
    assert np.isclose(found.over_classes(found.dice_by_picture)[0], macro, atol=1e-6) == same
    metric = MeanIoU(CLASSES, per_class=True, input_format="index")
    metric.update(*pair)
    everywhere = [
        all((t == k).any() or (p == k).any() for t, p in zip(truth, predicted, strict=True)) for k in range(4)
    ]
    theirs_of_classes = metric.compute().numpy()  # its pictures without a class are told apart in no documented way
    np.testing.assert_allclose(found.iou_by_picture[everywhere, 0], theirs_of_classes[everywhere], atol=1e-6)


@pytest.mark.parametrize("kind", ["random", "absent", "missing here and there"])
def test_a_weight_is_a_number_of_repetitions(kind):
    truth, predicted = masks(kind)
    weights = np.random.default_rng(1).integers(0, 3, (len(truth), 5)).astype(np.float64)
    together = WeightedMasks(*overlaps(truth, predicted), weights)
    for column in range(5):
        repeated = np.repeat(np.arange(len(truth)), weights[:, column].astype(int))
        alone = WeightedMasks(*overlaps(truth[repeated], predicted[repeated]), np.ones((len(repeated), 1)))
        for name in ("pixel_accuracy", "dice", "iou", "pixel_accuracy_by_picture", "dice_by_picture", "iou_by_picture"):
            one, other = getattr(together, name)[..., column], getattr(alone, name)[..., 0]
            np.testing.assert_allclose(one, other, atol=1e-12, err_msg=name)


def test_the_background_is_in_no_mean():
    truth, predicted = masks("random")
    found = WeightedMasks(*overlaps(truth, predicted), np.ones((len(truth), 1)), background=2)
    assert found.over_classes(found.dice)[0] == pytest.approx(found.dice[[0, 1, 3], 0].mean())


def test_nothing_is_defined_where_everything_is_ignored():
    truth, predicted = np.full((2, 3, 3), 9), np.zeros((2, 3, 3), dtype=int)
    counts = confusions(truth, predicted, 2, ignore=9)
    assert not counts.any()
    found = WeightedMasks(*MaskCases(truth, predicted, 2, ignore=9).overlaps, np.ones((2, 1)))
    for name in ("pixel_accuracy", "dice", "iou", "pixel_accuracy_by_picture", "dice_by_picture", "iou_by_picture"):
        assert np.isnan(getattr(found, name)).all()
    assert np.isnan(found.over_classes(found.dice)).all()
