"""Boxes as a task: what labels are allowed and kept, how they move, are mixed and merged, against plain references."""

import warnings

import numpy as np
import pytest
import torch
from torchvision.transforms import v2
from torchvision.tv_tensors import BoundingBoxes

from tests.draws import draws
from tests.tasks.helpers import box_spec, drawn_boxes, said_boxes
from visionforge.config.schema import Augmentation, Loss
from visionforge.config.schema.tasks import task_named
from visionforge.data.augment import draw_augmentation
from visionforge.data.info import TaskSpec
from visionforge.errors import DataError, SettingsError
from visionforge.tasks import boxes as module
from visionforge.training.box_labels import mixed_rows, moved_rows
from visionforge.training.box_views import merge_views, undo_boxes
from visionforge.training.mixing.mixup import MixUp
from visionforge.training.mixup import MixDraw
from visionforge.training.tta import dense_view_functions, named_views

TASK = task_named("detection")
SIDES = (32, 32)
GOOD = np.array([[0, 1, 2, 3, 10, 12], [2, 0, 0, 0, 32, 32], [2, 1, 5.5, 5, 6, 9]], np.float64)


def test_rows_of_an_archive_become_padded_ones():
    assert TASK.label_problem(GOOD, 4, 2, SIDES) is None
    found = TASK.stored(GOOD, 4)
    assert found.dtype == np.float32
    assert found.shape == (4, 2, 5)
    np.testing.assert_array_equal(found[0], [[1, 2, 3, 10, 12], [-1, 0, 0, 0, 0]])
    np.testing.assert_array_equal(found[2], [[0, 0, 0, 32, 32], [1, 5.5, 5, 6, 9]])
    assert (found[[1, 3], :, 0] == -1).all()
    np.testing.assert_array_equal(TASK.image_labels(found, 3), [[0, 1, 0], [0, 0, 0], [1, 1, 0], [0, 0, 0]])
    np.testing.assert_array_equal(TASK.counts(found, 3), [1, 2, 0])
    np.testing.assert_array_equal(TASK.stored(found, 4), found)
    assert TASK.label_problem(found, 4, 2, SIDES) is None


def test_pictures_without_any_box_are_allowed():
    empty = np.zeros((0, 6))
    assert TASK.label_problem(empty, 3, 2, SIDES) is None
    found = TASK.stored(empty, 3)
    assert found.shape == (3, 1, 5)
    assert TASK.undefined_reason(found, ("a", "b")) == "none of its images has a box"
    assert TASK.undefined_reason(drawn_boxes(), ("a", "b")) is None
    assert TASK.unlearnable_reason(found) == "none of its images has a box"
    assert TASK.unlearnable_reason(drawn_boxes()) is None


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ([0, 0, np.nan, 2, 3, 4], "is not finite"),
        ([4, 0, 1, 1, 2, 2], "is of no image; allowed: 0 to 3"),
        ([-1, 0, 1, 1, 2, 2], "is of no image"),
        ([2, 2, 1, 1, 2, 2], "is of no class; allowed: 0 to 1"),
        ([2, 0.5, 1, 1, 2, 2], "is of no class"),
        ([2, 0, 2, 1, 2, 2], "has no area"),
        ([2, 0, 1, 3, 2, 2], "has no area"),
        ([2, 0, 1, 1, 1 + 1e-9, 2], "has no area"),  # as float32
        ([2, 0, -1, 1, 2, 2], "reaches out of its image of 32×32 pixels"),
        ([2, 0, 1, 1, 2, 33], "reaches out of its image"),
        ([2, 0, 1, 1, 2, 1e300], "reaches out of its image"),  # infinite as float32
        ([1, 0, 1, 1, 2, 2], "stands behind one of a later image; rows have to be sorted by image"),
    ],
)
def test_a_row_that_is_wrong_is_told(row, message):
    with warnings.catch_warnings(action="error"):
        found = TASK.label_problem(np.vstack([GOOD, [row]]), 4, 2, SIDES)
    assert found.startswith("row 3 [")
    assert message in found


def test_boxes_in_memory_are_bounded(monkeypatch):
    assert "boxes in an image; allowed: at most 10,000" in TASK.label_problem(
        np.tile(GOOD[:1], (10_001, 1)), 1, 2, SIDES
    )
    monkeypatch.setattr(module, "MOST_PADDED", 39)
    assert "leave out images with very many boxes" in TASK.label_problem(GOOD, 4, 2, SIDES)
    assert TASK.label_bytes(2, SIDES) == 10_000 * 6 * 8


def test_one_class_is_enough_for_boxes_only():
    assert box_spec(classes=("cell",)).classes == ("cell",)
    with pytest.raises(ValueError, match="classes: 1 is not allowed; allowed for multi-class data: at least 2"):
        TaskSpec(classes=("cell",), task="multi-class")
    with pytest.raises(ValueError, match="at most 4096"):
        box_spec(classes=tuple(map(str, range(4097))))


def test_labels_of_a_batch():
    labels = torch.from_numpy(drawn_boxes())
    assert torch.equal(TASK.batch_labels(labels.double(), 6, ("a", "b")), labels)
    for wrong in (labels[0], labels[..., :4], labels.to(torch.complex64)):
        with pytest.raises(DataError, match=r"allowed for detection data: numbers \(N, M, 5\)"):
            TASK.batch_labels(wrong, 6, ("a", "b"))
    assert TASK.value_problem(labels, ("a", "b")) is None
    for row in ([2, 1, 1, 2, 2], [-2, 1, 1, 2, 2], [0.5, 1, 1, 2, 2], [0, 1, 1, 1, 2], [0, float("nan"), 1, 2, 2]):
        bad = labels.clone()
        bad[3, 0] = torch.tensor(row)
        assert "is no box; allowed: [class, x1, y1, x2, y2], classes 0 to 1 (a, b)" in TASK.value_problem(
            bad, ("a", "b")
        )


def test_rendered_boxes_hold_their_shapes():
    images, labels = TASK.scene(np.random.default_rng(0), 20, 3, 48, 1)
    assert labels.shape[::2] == (20, 5)
    for image, boxes in zip(images[..., 0], labels, strict=True):
        for _, *corners in boxes[boxes[:, 0] >= 0]:
            x1, y1, x2, y2 = (int(value) for value in corners)
            assert image[y1:y2, x1:x2].max() > 90
    assert TASK.drawn_classes(2) == ("disc", "square")


def test_boxes_move_with_their_images():
    labels = torch.from_numpy(drawn_boxes(8))
    settings = Augmentation(hflip=1.0, rotation_angle=0, jitter_val=0, min_scale=1)
    draw = draw_augmentation(draws(8), settings)
    assert bool(draw.flip.all())
    moved = moved_rows(labels, draw, (32, 32))
    for before, after in zip(labels, moved, strict=True):
        there = before[:, 0] >= 0
        given = BoundingBoxes(before[there, 1:], format="XYXY", canvas_size=(32, 32))
        torch.testing.assert_close(after[there, 1:], v2.functional.horizontal_flip(given).as_subclass(torch.Tensor))
        assert torch.equal(after[:, 0], before[:, 0])


def test_a_box_that_has_left_its_image_is_none():
    labels = torch.tensor([[[1.0, 0, 0, 4, 4], [0, 12, 12, 20, 20], [-1, 0, 0, 0, 0]]])
    settings = Augmentation(hflip=0, rotation_angle=45, jitter_val=0, min_scale=1)
    draw = draw_augmentation(draws(1, 3), settings)
    draw.theta[0] = torch.tensor([[0.5, 0, 0], [0, 0.5, 0]])  # the middle, twice as large
    assert moved_rows(labels, draw, (32, 32))[0].tolist() == [[-1, 0, 0, 0, 0], [0, 8, 8, 24, 24], [-1, 0, 0, 0, 0]]


def test_blended_images_keep_the_boxes_that_can_be_seen():
    labels = torch.tensor([[[0.0, 1, 1, 5, 5]], [[1.0, 2, 2, 9, 9]], [[-1.0, 0, 0, 0, 0]]])
    draw = MixDraw(torch.tensor([0.5, 0.9, 0.0]), torch.tensor([1, 0, 1]))
    found = mixed_rows(labels, draw)
    none = [-1.0, 0, 0, 0, 0]
    assert found.tolist() == [
        [labels[0, 0].tolist(), labels[1, 0].tolist()],
        [labels[1, 0].tolist(), none],
        [none, labels[1, 0].tolist()],
    ]


def test_a_patch_hides_boxes_and_brings_others():
    own = [[0.0, 0, 0, 10, 10], [0, 12, 12, 18, 18], [0, 20, 20, 30, 30]]
    theirs = [[1.0, 12, 12, 16, 16], [1, 8, 8, 14, 20], [1, 0, 0, 11, 11]]
    labels = torch.tensor([own, theirs])
    patch = torch.tensor([[10, 10, 20, 20], [0, 0, 0, 0]])  # top, left, bottom, right; the second is not mixed
    found = mixed_rows(labels, MixDraw(torch.tensor([0.9, 1.0]), torch.tensor([1, 0]), patch))
    there = [row for row in found[0].tolist() if row[0] >= 0]
    assert there == [own[0], own[2], theirs[0], [1, 10, 10, 14, 20]]  # 40 of 72 pixels of the last are in the patch
    assert [row for row in found[1].tolist() if row[0] >= 0] == theirs


def test_an_image_that_is_mixed_with_itself_keeps_its_boxes_as_they_are():
    labels = torch.tensor([[[0.0, 0, 0, 10, 10]], [[1.0, 2, 2, 9, 9]]])
    patch = torch.tensor([[0, 0, 9, 10], [0, 0, 0, 0]])  # which would hide the first box, and cut its copy
    for lam in (0.5, 0.1):
        found = mixed_rows(labels, MixDraw(torch.tensor([lam, lam]), torch.tensor([0, 1]), patch))
        assert [row.tolist() for row in found[found[..., 0] >= 0]] == labels[:, 0].tolist()


def test_mixers_of_others_are_refused():
    class Other(MixUp):
        def mix(self, images, targets, rng):
            return images, targets

    with pytest.raises(SettingsError, match=r"model\.mixup\.name: mixup mixes shares of classes, which boxes do not"):
        TASK.mixed(Other(), torch.zeros(1, 3, 8, 8), torch.zeros(1, 1, 5), 2, np.random.default_rng(0))
    labels = torch.from_numpy(drawn_boxes(4))
    images = torch.randn(4, 3, 32, 32)
    same, kept = TASK.mixed(MixUp(alpha=0), images, labels, 2, np.random.default_rng(0))
    assert same is images
    assert kept is labels
    _, mixed = TASK.mixed(MixUp(alpha=0.5, cutmix_alpha=1.0), images, labels, 2, np.random.default_rng(0))
    assert mixed.shape == (4, 8, 5)


# --- views


@pytest.mark.parametrize("name", ["identity", "hflip", "vflip", "rotate 90", "rotate 180", "rotate 270"])
def test_a_view_is_undone_exactly(name):
    """A box is drawn on a picture, the picture is turned, and the turned box is read from its pixels."""
    view = dense_view_functions(box_spec().flags, "full", 32)[name]
    for _, x1, y1, x2, y2 in drawn_boxes(5)[drawn_boxes(5)[..., 0] >= 0].astype(int).tolist():
        picture = torch.zeros(1, 1, 32, 32)
        picture[..., y1:y2, x1:x2] = 1
        rows, columns = view(picture)[0, 0].nonzero(as_tuple=True)
        seen = torch.stack([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]).float()
        assert undo_boxes(name, seen, 32).tolist() == [x1, y1, x2, y2]


def test_views_of_boxes_have_no_shifts():
    assert not [name for name in named_views(box_spec(), "full", 32) if name.startswith("shift")]
    with pytest.raises(ValueError, match="'shift up' has no exact inverse"):
        undo_boxes("shift up", torch.zeros(4), 32)


def test_views_that_agree_say_the_same_and_one_that_does_not_counts_less():
    said = torch.zeros(1, 3, 6)
    said[..., 0] = -1
    said[0, 0] = torch.tensor([1, 0.8, 4, 5, 14, 16])
    said[0, 1] = torch.tensor([0, 0.6, 4, 5, 14, 16])  # of another class, so another object
    mirrored = said.clone()
    mirrored[0, :2, 2::2] = 32 - said[0, :2, [4, 2]]
    torch.testing.assert_close(merge_views(("identity", "hflip"), torch.stack([said, mirrored]), None, 32), said)
    mirrored[0, 1, 0] = -1
    found = merge_views(("identity", "hflip"), torch.stack([said, mirrored]), None, 32)
    torch.testing.assert_close(found[0, :2, 1], torch.tensor([0.8, 0.3]))
    found = merge_views(("identity", "hflip"), torch.stack([said, mirrored]), 0.9, 32)
    torch.testing.assert_close(found[0, :2, 1], torch.tensor([0.8, 0.54]))


def test_merged_boxes_are_means_by_their_scores():
    one = torch.tensor([[[1, 0.9, 4.0, 4, 14, 14], [1, 0.5, 20, 20, 28, 28]]])
    other = torch.tensor([[[1, 0.3, 6.0, 4, 14, 14], [-1, 0, 0, 0, 0, 0]]])
    found = merge_views(("identity", "identity"), torch.stack([one, other]), None, 32)
    torch.testing.assert_close(
        found, torch.tensor([[[1, 0.6, 4.5, 4, 14, 14], [1, 0.25, 20, 20, 28, 28]]]), atol=1e-5, rtol=0
    )


def test_merged_boxes_are_exact_in_lower_precision():
    """As under `trainer.precision: bf16-mixed`, where places of 8 bits would be whole pixels from 128 on."""
    said = torch.from_numpy(said_boxes(drawn_boxes(6, 200)))
    views = torch.stack([said, said])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = merge_views(("identity", "identity"), views, None, 200)
    assert torch.equal(found, merge_views(("identity", "identity"), views, None, 200))


def test_nothing_is_found_in_any_view():
    none = torch.zeros(2, 1, 3, 6)
    none[..., 0] = -1
    assert torch.equal(merge_views(("identity", "hflip"), none, None, 32), none[0])


# --- the rest of the task


def test_a_perfect_prediction_is_tried():
    labels = drawn_boxes()
    weighted = TASK.tried(labels, box_spec())
    assert float(weighted.over_classes(weighted.average_precision)[0]) == 1.0


def test_what_a_detector_has_not_is_refused():
    with pytest.raises(SettingsError, match=r"model\.loss\.label_smoothing: 0\.1 would be ignored"):
        TASK.criterion(Loss(name="auto", label_smoothing=0.1), 2)
    with pytest.raises(SettingsError, match=r"model\.loss\.class_weights: balanced would be ignored"):
        TASK.criterion(Loss(name="detector", class_weights="balanced"), 2)
    with pytest.raises(SettingsError, match="does not fit labels that are detection"):
        TASK.criterion(Loss(name="focal"), 2)
    with pytest.raises(SettingsError, match="no class weights"):
        TASK.class_weights(torch.ones(2), 2, None)
    with pytest.raises(NotImplementedError):
        TASK.criterion(Loss(name="detector"), 2)(torch.zeros(1), torch.zeros(1))
