"""Masks as labels of a task: their form, what is wrong with them, and what is computed of them pixel by pixel."""

import json

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, f1_score
from sklearn.utils.class_weight import compute_class_weight

import visionforge as vf
from tests.draws import draws
from tests.tasks.helpers import NAMES, drawn_masks, mask_model, mask_spec, noise
from visionforge.config.schema import Augmentation, Loss
from visionforge.config.schema.metrics import metrics_of
from visionforge.config.schema.tasks import task_named
from visionforge.data.augment import draw_augmentation
from visionforge.errors import DataError, SettingsError
from visionforge.scoring.cases import values_of
from visionforge.training.mixing.mixup import MixUp
from visionforge.training.tta import named_views

TASK = task_named("segmentation")
SPEC = mask_spec()


# --- labels of archives


def test_the_form_of_labels():
    assert TASK.label_shapes(5, 3, (16, 16)) == [(5, 16, 16)]
    assert (TASK.highest_label(3), TASK.label_bytes(3, (4, 4))) == (2, 8 * 16)
    assert TASK.background(("liver", "Background")) == 1
    assert TASK.background(("liver", "kidney")) is None
    assert TASK.drawn_classes(3) == ("background", "disc", "square")
    assert TASK.output_shape(SPEC, None) == (3, 16, 16)
    assert TASK.output_meaning == "probability of each class at each pixel"
    assert not TASK.is_usual(False, 2)
    with pytest.raises(NotImplementedError):
        TASK.rendered(np.random.default_rng(0), 3, 2)


def test_masks_are_stored_as_bytes_and_not_copied_for_nothing():
    masks = drawn_masks(ignored=0.1)
    assert TASK.stored(masks, 6) is masks
    again = TASK.stored(masks.astype(np.int32), 6)
    assert again.dtype == np.uint8
    np.testing.assert_array_equal(again, masks)


def test_classes_of_images_and_of_pixels_are_counted():
    masks = drawn_masks(5, classes=4, ignored=0.3)
    masks[0] = 255
    masks[1] = 2
    flags = TASK.image_labels(masks, 4)
    expected = np.array([[(mask == k).any() for k in range(4)] for mask in masks])
    np.testing.assert_array_equal(flags, expected)
    np.testing.assert_array_equal(TASK.counts(masks, 4), expected.sum(axis=0))
    pixels, total = TASK.weighed_counts(masks, 4)
    np.testing.assert_array_equal(pixels, [(masks == k).sum() for k in range(4)])
    assert total == (masks != 255).sum()


@pytest.mark.parametrize(
    ("names", "fill", "reason"),
    [
        (NAMES, 0, "all of its pixels are background"),
        (NAMES, 1, None),
        (("a", "b", "c"), 0, None),
        (("disc", "background"), 1, "all of its pixels are background"),
    ],
)
def test_a_split_of_background_alone_defines_nothing(names, fill, reason):
    assert TASK.undefined_reason(np.full((2, 4, 4), fill, np.uint8), names) == reason


def cut(value, dtype=np.int64, classes=3):
    masks = drawn_masks(3, classes=classes).astype(dtype)
    masks[1, 2, 3:5] = value
    return masks


@pytest.mark.parametrize(
    ("masks", "classes", "message"),
    [
        (cut(3), 3, "2 pixels of no class (3); allowed: 0 to 2, and 255, which does not count"),
        (cut(-1), 3, "2 pixels of no class (-1); allowed: 0 to 2, and 255, which does not count"),
        (cut(-1), 255, "2 pixels of no class (-1); allowed: 0 to 254"),
        (cut(256), 255, "2 pixels of no class (256); allowed: 0 to 254"),
        (cut(70_000), 3, "2 pixels of no class (70000); allowed: 0 to 2"),
        (cut(3), 256, "256 classes; allowed of masks: at most 255"),
        (np.full((2, 4, 4), 255, np.uint8), 3, "no pixel counts"),
        (np.zeros((0, 4, 4), np.uint8), 3, "holds no masks"),
    ],
)  # fmt: skip
def test_bad_values_of_an_archive_are_one_line(masks, classes, message):
    found = TASK.label_problem(masks, len(masks), classes, masks.shape[1:])
    assert found is not None
    assert message in found
    assert found.isprintable()


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int64, np.uint64])
def test_good_values_of_an_archive_have_no_problem(dtype):
    assert TASK.label_problem(cut(255, dtype), 3, 3, (16, 16)) is None
    assert TASK.label_problem(cut(254, dtype), 3, 255, (16, 16)) is None


def archive(tmp_path, monkeypatch, labels, classes=NAMES, **fields):
    """Write an archive, of whose test split the labels are given, and its catalog entry."""
    arrays = {}
    for split in ("train", "val", "test"):
        arrays[f"{split}_images"] = noise(4, channels=1)[:, 0].numpy()
        arrays[f"{split}_labels"] = drawn_masks(4)
    np.savez_compressed(tmp_path / "made_16.npz", **{**arrays, "test_labels": labels})
    entry = {
        "name": "made",
        "title": "Made",
        "description": "Noise.",
        "task": "segmentation",
        "classes": list(classes),
        "channels": 1,
        "splits": {"train": 4, "val": 4, "test": 4},
        "archives": {"16": {"url": None, "md5": None}},
        "normalisation": {"mean": [0.5], "std": [0.3], "source": "assumed"},
        "flags": {"hflip": True, "vflip": True, "rotation": "any", "texture_is_label": True, "colour_is_label": True},
        "licence": "any",
        "citation": "none",
    }
    catalog = tmp_path / "catalog"
    catalog.mkdir()
    (catalog / "made.yaml").write_text(json.dumps({**entry, **fields}))
    monkeypatch.setenv("VISIONFORGE_CATALOG", str(catalog))
    return vf.MedMNISTDataModule("made", root=str(tmp_path), resolution=16, batch_size=4)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (drawn_masks(4, size=15), r"test_labels: shape is \(4, 15, 15\), expected \(4, 16, 16\)"),
        (drawn_masks(3), r"test_labels: shape is \(3, 16, 16\), expected \(4, 16, 16\)"),
        (drawn_masks(4).astype(np.float32), "test_labels: dtype is float32, expected integers"),
        (drawn_masks(4, classes=4), r"pixels of no class \(3\); allowed: 0 to 2, and 255"),
        (np.full((4, 16, 16), 255, np.uint8), "no pixel counts"),
    ],
)
def test_bad_masks_of_an_archive_are_refused_in_one_line(tmp_path, monkeypatch, labels, message):
    data = archive(tmp_path, monkeypatch, labels)

    def read():
        data.prepare_data()
        data.setup("test")

    with pytest.raises(DataError, match=message) as raised:
        read()
    (problem,) = raised.value.problems
    assert problem.isprintable()


def test_too_many_classes_and_volumes_are_refused_wherever_they_are_given(tmp_path, monkeypatch):
    names = tuple(f"c{k}" for k in range(256))
    message = "classes: 256 are not allowed; allowed for segmentation data: at most 255"
    with pytest.raises(DataError, match=message):
        archive(tmp_path, monkeypatch, drawn_masks(4), names)
    with pytest.raises(ValueError, match=message):
        mask_spec(classes=names)
    assert len(mask_spec(classes=names[:255]).classes) == 255
    with pytest.raises(ValueError, match="segmentation is of images; volumes are not supported"):
        mask_spec(spatial_dims=3)


# --- labels of batches


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (torch.zeros(2, 16, 16), r"labels: \(2, 16, 16\) of torch.float32; allowed for segmentation data: integers"),
        (torch.zeros(2, dtype=torch.int64), r"labels: \(2,\) of torch.int64; allowed for segmentation data"),
        (
            torch.zeros(2, 15, 16, dtype=torch.int64),
            r"labels: \(2, 15, 16\); allowed: \(2, 16, 16\), as the images are",
        ),
        (torch.full((2, 16, 16), 3), "labels: 3 is no class; allowed: 0 to 2 .*, and 255, which does not count"),
        (torch.full((2, 16, 16), -1), "labels: -1 is no class"),
        (torch.zeros(3, 16, 16, dtype=torch.int64), r"labels: \(3, 16, 16\) for 2 images"),
    ],
)
def test_bad_masks_of_a_batch_are_one_line(labels, message):
    model = mask_model()
    with pytest.raises(DataError, match=message) as raised:
        model._labelled((noise(2), labels))
    (problem,) = raised.value.problems
    assert problem.isprintable()


def test_masks_of_a_batch_of_any_integer_type_are_taken():
    masks = torch.from_numpy(drawn_masks(2, ignored=0.2))
    for kind in (torch.uint8, torch.int16, torch.int32, torch.int64):
        found = TASK.batch_labels(masks.to(kind), 2, NAMES)
        assert found.dtype == torch.int64
        assert torch.equal(found, masks.long())
        assert TASK.value_problem(masks.to(kind), NAMES) is None


# --- what does not count


def test_pixels_that_do_not_count_have_no_share_and_are_no_hits():
    masks = torch.from_numpy(drawn_masks(4, ignored=0.3)).long()
    shares = TASK.targets(masks, 3)
    assert shares.dtype == torch.float32
    np.testing.assert_array_equal(shares.sum(dim=1), (masks != 255).float())
    np.testing.assert_array_equal(torch.where(masks == 255, 0, masks)[masks != 255], shares.argmax(1)[masks != 255])
    logits = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    given = TASK.probabilities(logits)
    torch.testing.assert_close(given, torch.softmax(logits, 1))
    said, kept = given.argmax(dim=1), masks != 255
    expected = accuracy_score(masks[kept], said[kept])
    for targets in (masks, shares):
        assert float(TASK.hits(given, targets)) == pytest.approx(expected, abs=1e-6)
    np.testing.assert_array_equal(TASK.decide(given.numpy()), TASK.decide(given).numpy())
    nothing = torch.full_like(masks, 255)
    assert float(TASK.hits(given, nothing)) == float(TASK.hits(given, TASK.targets(nothing, 3))) == 0


def test_what_comes_from_outside_of_an_image_does_not_count():
    masks = torch.ones(8, 16, 16, dtype=torch.int64)
    turned = Augmentation(hflip=0, rotation_angle=40, jitter_val=0, min_scale=1)
    draw = draw_augmentation(draws(8), turned)
    moved = TASK.moved(masks, draw, (16, 16))
    assert set(moved.unique().tolist()) == {1, 255}


@pytest.mark.parametrize(
    "settings", [MixUp(alpha=0.8), MixUp(alpha=0, cutmix_alpha=1), MixUp(alpha=0.8, per_image=True)]
)
def test_masks_are_mixed_as_their_images(settings):
    masks = torch.from_numpy(drawn_masks(6, ignored=0.2)).long()
    images = torch.where(masks == 255, 0, masks + 1).float()[:, None] * torch.tensor([1.0, 10, 100]).view(1, 3, 1, 1)
    one_hot = (masks[:, None] == torch.arange(3).view(1, 3, 1, 1)).float()
    mixed, targets = TASK.mixed(settings, one_hot, masks, 3, np.random.default_rng(3))
    assert not torch.equal(targets, one_hot)
    torch.testing.assert_close(targets, mixed)  # the images are the shares themselves
    again, _ = TASK.mixed(settings, images, masks, 3, np.random.default_rng(3))
    weighed = (mixed * torch.tensor([1.0, 2, 3]).view(1, 3, 1, 1)).sum(dim=1)
    torch.testing.assert_close(again[:, 0], weighed)
    given = TASK.probabilities(torch.randn(6, 3, 16, 16, generator=torch.Generator().manual_seed(1)))
    said = given.argmax(dim=1)
    expected = sum(float(targets[:, k][said == k].sum()) for k in range(3)) / float(targets.sum())
    assert float(TASK.hits(given, targets)) == pytest.approx(expected, rel=1e-5)


# --- weights


def test_weights_of_classes_are_those_of_scikit_learn_over_the_pixels():
    masks = drawn_masks(8, ignored=0.2)
    masks[masks == 2] = np.random.default_rng(1).choice([0, 2], (masks == 2).sum(), p=[0.9, 0.1])
    counts, total = TASK.weighed_counts(masks, 3)
    found = TASK.class_weights(torch.from_numpy(counts).double(), total, None)
    kept = masks[masks != 255]
    expected = compute_class_weight("balanced", classes=np.arange(3), y=kept)
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    beta = 0.999
    each = (1 - beta) / (1 - beta ** np.bincount(kept))
    np.testing.assert_allclose(TASK.class_weights(torch.from_numpy(counts).double(), total, beta), each / each.mean())
    absent = TASK.class_weights(torch.tensor([30.0, 0, 10]).double(), 40, None)
    np.testing.assert_allclose(absent, [40 / 90, 1, 40 / 30])


# --- predictions


@pytest.mark.parametrize("weight", [None, 0.6])
def test_merged_views_are_the_mean_of_views_that_are_turned_back(weight):
    model = mask_model(tta="full", tta_weight=weight)
    images = noise(3)
    alone, averaged = model.predict_probabilities(images)
    undo = {
        "identity": lambda x: x,
        "hflip": lambda x: x.flip(3),
        "vflip": lambda x: x.flip(2),
        "rotate 90": lambda x: torch.rot90(x, 3, (2, 3)),
        "rotate 180": lambda x: x.flip(2).flip(3),
        "rotate 270": lambda x: torch.rot90(x, 1, (2, 3)),
    }
    views = named_views(model.spec, "full", 16)
    assert list(views) == list(undo)
    each = [undo[name](model.predict_probabilities(view(images), False)[0]) for name, view in views.items()]
    torch.testing.assert_close(each[0], alone)
    expected = sum(each) / 6 if weight is None else weight * each[0] + (1 - weight) * sum(each[1:]) / 5
    torch.testing.assert_close(averaged, expected, rtol=1e-4, atol=1e-6)
    assert not torch.allclose(averaged, alone, atol=1e-3)


def test_a_predictor_says_the_most_probable_class_and_how_sure_it_is():
    model = mask_model(tta="light")
    with torch.no_grad():
        given = model.predict_probabilities(noise(4))
    for tta, probabilities in zip((False, None), given, strict=True):
        said = TASK.predictor(model, tta, keep=True)(noise(4))
        np.testing.assert_array_equal(said.labels, probabilities.argmax(dim=1))
        np.testing.assert_allclose(said.sure, probabilities.max(dim=1).values.mean(dim=(1, 2)), rtol=1e-6)
        np.testing.assert_array_equal(said.calibrated, probabilities)
        assert said.averaged == (tta is None)
    assert TASK.predictor(model)(noise(4)).calibrated is None
    joined = type(said).joined([said, said])
    assert joined.labels.shape == (8, 16, 16)
    assert joined.calibrated.shape == (8, 3, 16, 16)


def test_a_tried_split_says_which_metrics_are_defined():
    masks = drawn_masks(4, ignored=0.2)
    weighted = TASK.tried(masks, SPEC)
    for metric in metrics_of("segmentation"):
        assert float(values_of(metric, weighted)[0]) == pytest.approx(1.0)
    nothing = TASK.tried(np.zeros((2, 8, 8), np.uint8), SPEC)
    found = {metric.name: float(values_of(metric, nothing)[0]) for metric in metrics_of("segmentation")}
    assert np.isnan(found["mean_dice"])
    assert found["pixel_accuracy"] == 1.0


def test_scores_of_an_export_are_those_of_scikit_learn():
    masks = drawn_masks(4, ignored=0.2)
    probabilities = np.random.default_rng(2).dirichlet(np.ones(3), (4, 16, 16)).transpose(0, 3, 1, 2)
    found = TASK.scored(probabilities, masks, SPEC)
    kept = masks != 255
    truth, said = masks[kept], probabilities.argmax(axis=1)[kept]
    assert found["pixel_accuracy"] == pytest.approx(accuracy_score(truth, said))
    assert found["mean_dice"] == pytest.approx(f1_score(truth, said, labels=[1, 2], average="macro"))


def test_the_criterion_refuses_what_fits_no_masks():
    with pytest.raises(SettingsError, match=r"model\.loss\.name: ordinal does not fit labels that are segmentation"):
        TASK.criterion(Loss(name="ordinal"), 3)
