"""The embedded data sets are fixed, complete and labelled right."""

import numpy as np
import pytest
from sklearn.datasets import load_digits

from visionforge.config.schema import Synthetic
from visionforge.data.archive import check_labels
from visionforge.data.info import SPLITS
from visionforge.data.registry import dataset_info
from visionforge.data.source import load_split


def test_digits_are_all_there_once():
    info = dataset_info("digits")
    parts = [load_split(info, 8, None, split) for split in SPLITS]
    assert [len(part.labels) for part in parts] == [1257, 180, 360]
    images = np.concatenate([part.images for part in parts]).reshape(-1, 64)
    labels = np.concatenate([part.labels for part in parts])
    reference = load_digits()
    wanted = np.rint(reference.data * 255 / 16).astype(np.uint8)
    ours = sorted((label, *row) for label, row in zip(labels.tolist(), images.tolist(), strict=True))
    theirs = sorted((label, *row) for label, row in zip(reference.target.tolist(), wanted.tolist(), strict=True))
    assert ours == theirs


def test_digits_are_stratified_and_fixed():
    info = dataset_info("digits")
    for split in SPLITS:
        part = load_split(info, 8, None, split)
        counts = np.bincount(part.labels, minlength=10)
        share = len(part.labels) / 1797
        np.testing.assert_allclose(counts, np.bincount(load_digits().target) * share, atol=1.5)
    assert load_split(info, 8, None, "test").labels[:12].tolist() == TEST_BEGINS


TEST_BEGINS = [2, 9, 7, 9, 2, 9, 6, 5, 0, 8, 9, 4]


def test_digits_constants():
    info = dataset_info("digits")
    pixels = load_split(info, 8, None, "train").images / 255.0
    assert abs(pixels.mean() - info.normalisation.mean[0]) < 1e-4
    assert abs(pixels.std() - info.normalisation.std[0]) < 1e-4


@pytest.mark.parametrize("task", ["binary", "multi-class", "multi-label", "ordinal"])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("resolution", [8, 28, 33])
def test_synthetic_renders_every_task(task, channels, resolution):
    info = dataset_info("synthetic", Synthetic(task=task, channels=channels, classes=5, train=40, val=10, test=10))
    part = load_split(info, resolution, None, "train")
    shape = (40, resolution, resolution) + ((3,) if channels == 3 else ())
    assert part.images.shape == shape
    assert part.images.dtype == np.uint8
    check_labels(part.labels, info, "synthetic", len(part.labels), 28)
    again = load_split(info, resolution, None, "train")
    np.testing.assert_array_equal(part.images, again.images)
    assert not np.array_equal(part.images[:10], load_split(info, resolution, None, "val").images)


def test_synthetic_constants_are_near():
    info = dataset_info("synthetic")
    pixels = load_split(info, 28, None, "train").images / 255.0
    np.testing.assert_allclose(pixels.mean(axis=(0, 1, 2)), info.normalisation.mean, atol=0.01)
    np.testing.assert_allclose(pixels.std(axis=(0, 1, 2)), info.normalisation.std, atol=0.01)
