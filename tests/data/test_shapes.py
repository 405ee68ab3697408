"""Rendered shapes: as many as are said, where their masks and boxes say, the same from the same seed."""

import numpy as np
import pytest

from tests.tasks.helpers import mask_data
from visionforge.config.schema import Synthetic
from visionforge.data.registry import dataset_info
from visionforge.data.shapes import MOST_SHAPES, NAMES, render_shapes, shape_names
from visionforge.data.source import load_split


def rendered(images=20, kinds=6, resolution=48, channels=3, seed=0):
    return render_shapes(np.random.default_rng(seed), images, kinds, resolution, channels)


@pytest.mark.parametrize("channels", [1, 3])
def test_forms(channels):
    scenes = rendered(channels=channels)
    assert (scenes.images.shape, scenes.images.dtype) == ((20, 48, 48, channels), np.uint8)
    assert (scenes.masks.shape, scenes.masks.dtype) == ((20, 48, 48), np.uint8)
    assert scenes.boxes.shape[1] == 6
    assert set(np.unique(scenes.masks)) == set(range(7))
    numbers = np.bincount(scenes.boxes[:, 0].astype(int), minlength=20)
    assert numbers.min() >= 1
    assert numbers.max() <= MOST_SHAPES
    assert len(set(numbers.tolist())) > 1


def test_masks_are_what_is_in_the_boxes_and_nothing_else():
    scenes = rendered()
    left = scenes.masks.copy()
    for image, kind, x1, y1, x2, y2 in scenes.boxes.astype(int):
        part = scenes.masks[image, y1:y2, x1:x2] == kind + 1
        assert part.any(axis=0).all()  # each row and column of a box has some of it: it is the smallest one
        assert part.any(axis=1).all()
        left[image, y1:y2, x1:x2][part] = 0
    assert not left.any()
    assert (scenes.boxes[:, 2:] >= 0).all()
    assert (scenes.boxes[:, 2:] <= 48).all()


def test_shapes_are_brighter_than_the_ground():
    scenes = rendered(60)
    grey = scenes.images.mean(axis=-1)
    for mask, image in zip(scenes.masks, grey, strict=True):
        assert image[mask > 0].mean() > image[mask == 0].mean() + 20


def test_kinds_differ_in_their_form():
    """The share of its box that a shape fills tells most of them apart."""
    scenes, filled = rendered(300, 6, 64), {}
    for image, kind, x1, y1, x2, y2 in scenes.boxes.astype(int):
        part = scenes.masks[image, y1:y2, x1:x2] == kind + 1
        filled.setdefault(NAMES[kind], []).append(part.mean())
    means = {name: float(np.mean(values)) for name, values in filled.items()}
    assert means["square"] > 0.95
    assert means["disc"] == pytest.approx(np.pi / 4, abs=0.06)
    assert means["triangle"] == pytest.approx(0.5, abs=0.1)
    assert means["ring"] < means["disc"] - 0.15
    assert means["cross"] == pytest.approx(0.51, abs=0.08)


def test_they_are_a_function_of_the_generator():
    one, two, other = rendered(seed=3), rendered(seed=3), rendered(seed=4)
    np.testing.assert_array_equal(one.images, two.images)
    np.testing.assert_array_equal(one.boxes, two.boxes)
    assert not np.array_equal(one.masks, other.masks)


def test_names():
    assert shape_names(2) == ("disc", "square")
    assert shape_names(8) == (*NAMES, "disc 2", "square 2")
    assert len(set(shape_names(99))) == 99


@pytest.mark.parametrize("resolution", [8, 16, 200])
@pytest.mark.parametrize("kinds", [1, 99])
def test_any_size_and_number_of_kinds(resolution, kinds):
    scenes = rendered(4, kinds, resolution)
    assert 1 <= scenes.masks.max() <= kinds
    assert len(scenes.boxes) >= 4


@pytest.mark.parametrize("channels", [1, 3])
def test_the_data_set_of_shapes(channels):
    synthetic = Synthetic(task="segmentation", classes=4, channels=channels, train=20, val=9, test=7)
    info = dataset_info("synthetic", synthetic)
    assert info.classes == ("background", "disc", "square", "triangle")
    assert (info.flags.hflip, info.flags.vflip, info.flags.rotation) == (True, False, "small")
    parts = {split: load_split(info, 24, None, split) for split in ("train", "val", "test")}
    for split, count in (("train", 20), ("val", 9), ("test", 7)):
        assert parts[split].images.shape == (count, 24, 24, 3)[: 4 if channels == 3 else 3]
        assert parts[split].labels.shape == (count, 24, 24)
        assert parts[split].labels.max() <= 3
    assert not np.array_equal(parts["val"].images[:7], parts["test"].images)
    again = load_split(info, 24, None, "test")
    np.testing.assert_array_equal(again.labels, parts["test"].labels)
    data = mask_data(resolution=24, synthetic=synthetic)
    data.setup("fit")
    np.testing.assert_array_equal(data.dataset_for("train").labels, parts["train"].labels)
