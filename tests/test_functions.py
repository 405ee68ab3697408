"""Losses, metrics and augmentations as functions: examples run, references agree, wrong arguments are told."""

import doctest
import importlib
import subprocess
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from sklearn.metrics import average_precision_score, matthews_corrcoef, roc_auc_score
from sklearn.utils.class_weight import compute_class_weight
from torchvision.ops import sigmoid_focal_loss

import visionforge as vf
from visionforge import augmentations, losses, metrics

MODULES = ("visionforge.losses", "visionforge.metrics", "visionforge.augmentations")
OF_MASKS = ("visionforge.evaluation.segmentation", "visionforge.training.mask_losses")  # parts of the first two
OF_BOXES = ("visionforge.evaluation.detection",)  # a part of the second
WITH_EXAMPLES = (*MODULES, *OF_MASKS, *OF_BOXES, "visionforge.data.info", "visionforge.training.classifier")
RANDOM = torch.Generator().manual_seed(0)
LOGITS = torch.randn(12, 3, generator=RANDOM)
CLASSES = torch.arange(12) % 3
LABELS = torch.randint(0, 2, (12, 3), generator=RANDOM)
WEIGHTS = torch.tensor([0.5, 1.0, 3.0])
PIXELS = torch.randint(0, 256, (6, 3, 28, 28), dtype=torch.uint8, generator=RANDOM)


@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_examples_of_the_docstrings_run(name):
    found = doctest.testmod(importlib.import_module(name))
    assert found.attempted
    assert not found.failed


@pytest.mark.parametrize("name", MODULES)
def test_every_function_is_described_and_reached_from_the_package(name):
    module = importlib.import_module(name)
    short = name.rpartition(".")[2]
    assert getattr(vf, short) is module
    assert short in dir(vf)
    for public in module.__all__:
        assert public == "HIGHER_IS_BETTER" or getattr(module, public).__doc__, public


def test_the_names_load_nothing_before_they_are_used():
    code = "import sys, visionforge; dir(visionforge); print('torch' in sys.modules); visionforge.losses.focal"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False"]


# --- losses


def test_cross_entropy_is_that_of_torch():
    torch.testing.assert_close(losses.cross_entropy(LOGITS, CLASSES), F.cross_entropy(LOGITS, CLASSES))
    given = losses.cross_entropy(LOGITS, CLASSES.int(), weights=WEIGHTS)
    torch.testing.assert_close(given, F.cross_entropy(LOGITS, CLASSES, weight=WEIGHTS))
    shares = torch.softmax(torch.randn(12, 3, generator=RANDOM), dim=1)
    torch.testing.assert_close(losses.cross_entropy(LOGITS, shares), F.cross_entropy(LOGITS, shares))
    smooth = losses.cross_entropy(LOGITS, CLASSES, label_smoothing=0.1)
    torch.testing.assert_close(smooth, F.cross_entropy(LOGITS, CLASSES, label_smoothing=0.1))


def test_losses_of_labels_are_those_of_torch_and_torchvision():
    truth = LABELS.float()
    expected = F.binary_cross_entropy_with_logits(LOGITS, truth, pos_weight=WEIGHTS)
    torch.testing.assert_close(losses.binary_cross_entropy(LOGITS, LABELS, weights=WEIGHTS), expected)
    expected = sigmoid_focal_loss(LOGITS, truth, alpha=-1, gamma=1.5, reduction="mean")
    torch.testing.assert_close(losses.focal(LOGITS, LABELS, gamma=1.5, multi_label=True), expected)
    torch.testing.assert_close(losses.focal(LOGITS, CLASSES, gamma=0), F.cross_entropy(LOGITS, CLASSES))


def test_the_ordinal_loss_is_that_of_its_thresholds():
    falling = LOGITS[:, :2].sort(dim=1, descending=True).values
    above = (CLASSES[:, None] > torch.arange(2)).float()
    expected = F.binary_cross_entropy_with_logits(falling, above, reduction="none").sum(dim=1).mean()
    torch.testing.assert_close(losses.ordinal(falling, CLASSES), expected)
    torch.testing.assert_close(losses.ordinal_probabilities(falling).sum(dim=1), torch.ones(12))


def test_class_weights():
    counts = np.array([3, 5, 9])
    expected = compute_class_weight("balanced", classes=np.arange(3), y=np.repeat(np.arange(3), counts))
    np.testing.assert_allclose(losses.balanced_weights(torch.tensor(counts)), expected)
    np.testing.assert_allclose(losses.balanced_weights(torch.tensor(counts), images=12), (12 - counts) / counts)
    rarity = (1 - 0.9) / (1 - 0.9**counts)
    found = losses.effective_number_weights(torch.tensor(counts), beta=0.9)
    np.testing.assert_allclose(found, rarity * 3 / rarity.sum())


BAD_LOSSES = {
    r"logits: \(12,\)": lambda: losses.cross_entropy(LOGITS[:, 0], CLASSES),
    r"logits: .*int64": lambda: losses.cross_entropy(LOGITS.long(), CLASSES),
    r"targets: \(11,\); allowed: \(12,\) or \(12, 3\)": lambda: losses.cross_entropy(LOGITS, CLASSES[1:]),
    r"targets: 1 to 3; allowed: 0 to 2": lambda: losses.cross_entropy(LOGITS, CLASSES + 1),
    r"targets: torch.float32": lambda: losses.focal(LOGITS, CLASSES.float()),
    r"targets: \(12,\); allowed: \(12, 3\)": lambda: losses.binary_cross_entropy(LOGITS, CLASSES),
    r"targets: 0 to 2; allowed: 0 to 1": lambda: losses.ordinal(LOGITS[:, :1], CLASSES),
    r"weights: \(2,\); allowed: \(3,\)": lambda: losses.focal(LOGITS, CLASSES, weights=WEIGHTS[:2]),
    r"gamma: -1": lambda: losses.focal(LOGITS, CLASSES, gamma=-1),
    r"label_smoothing: 2": lambda: losses.cross_entropy(LOGITS, CLASSES, label_smoothing=2),
    r"counts: \[0, 0\]": lambda: losses.balanced_weights(torch.zeros(2, dtype=torch.int64)),
    r"beta: 1": lambda: losses.effective_number_weights(torch.ones(2), beta=1.0),
    r"images: 3": lambda: losses.balanced_weights(torch.tensor([4, 1]), images=3),
}


@pytest.mark.parametrize("complaint", BAD_LOSSES)
def test_wrong_arguments_of_losses(complaint):
    with pytest.raises(ValueError, match=complaint):
        BAD_LOSSES[complaint]()


# --- metrics

GIVEN = torch.softmax(LOGITS, dim=1)


def test_metrics_are_those_of_scikit_learn_for_arrays_and_tensors():
    found = metrics.classification_metrics(GIVEN, CLASSES)
    assert found == metrics.classification_metrics(GIVEN.numpy(), CLASSES.tolist(), "multi-class")
    assert found["auc"] == pytest.approx(roc_auc_score(CLASSES, GIVEN.double(), multi_class="ovr"), abs=1e-6)
    assert found["mcc"] == pytest.approx(matthews_corrcoef(CLASSES, GIVEN.argmax(dim=1)))
    labels = metrics.classification_metrics(torch.sigmoid(LOGITS), LABELS)
    expected = average_precision_score(LABELS, torch.sigmoid(LOGITS).double(), average="macro")
    assert labels["average_precision"] == pytest.approx(expected, abs=1e-6)
    assert "exact_match" in labels
    assert "kappa_quadratic" in metrics.classification_metrics(GIVEN, CLASSES, "ordinal")


def test_intervals_hold_the_value_and_follow_the_seed():
    found = metrics.classification_intervals(GIVEN, CLASSES, resamples=300, seed=3)
    low, high = found.intervals["auc"]
    assert low < found.overall["auc"] < high
    assert found == metrics.classification_intervals(GIVEN, CLASSES, resamples=300, seed=3)
    narrow = metrics.classification_intervals(GIVEN, CLASSES, resamples=300, seed=3, confidence=0.5)
    assert narrow.intervals["auc"][0] > low


def test_a_model_does_not_differ_from_itself():
    same = metrics.paired_differences(GIVEN, GIVEN, CLASSES, resamples=50)
    assert all(difference.value == 0 for difference in same.values())
    better = metrics.paired_differences(torch.eye(3)[CLASSES], GIVEN, CLASSES, resamples=200)["accuracy"]
    assert better.value == pytest.approx(1 - float((GIVEN.argmax(dim=1) == CLASSES).float().mean()))


def test_a_temperature_mends_what_it_broke():
    labels = torch.multinomial(GIVEN.repeat(500, 1), 1, generator=torch.Generator().manual_seed(0))[:, 0]
    sharp = metrics.calibrated(GIVEN.repeat(500, 1), 0.5)
    temperature = metrics.fit_temperature(sharp, labels)
    assert temperature == pytest.approx(2.0, rel=0.1)
    np.testing.assert_allclose(metrics.calibrated(sharp[:12], 2.0), GIVEN, atol=1e-6)


BAD_METRICS = {
    "not between 0 and 1": lambda: metrics.classification_metrics(LOGITS, CLASSES),
    r"probabilities: \(12,\)": lambda: metrics.classification_metrics(GIVEN[:, 0], CLASSES),
    r"labels: \(11,\); allowed for multi-class data: \(12,\)": lambda: metrics.fit_temperature(GIVEN, CLASSES[1:]),
    r"labels: allowed .* 0 to 2": lambda: metrics.classification_metrics(GIVEN, CLASSES + 1),
    r"labels: allowed .* 0 to 1": lambda: metrics.best_thresholds(GIVEN, LABELS * 0.5),
    "task: 'multiclass'": lambda: metrics.classification_metrics(GIVEN, CLASSES, "multiclass"),
    r"allowed for binary data: \(12, 2\)": lambda: metrics.medmnist_metrics(GIVEN, CLASSES, "binary"),
    "positive: 3": lambda: metrics.classification_intervals(GIVEN, CLASSES, positive=3),
    "thresholds": lambda: metrics.classification_metrics(GIVEN, CLASSES, thresholds=[0.5] * 3),
    "resamples: 0": lambda: metrics.paired_differences(GIVEN, GIVEN, CLASSES, resamples=0),
    "confidence: 95": lambda: metrics.classification_intervals(GIVEN, CLASSES, confidence=95),
    r"other: \(12, 2\)": lambda: metrics.paired_differences(GIVEN, GIVEN[:, :2], CLASSES % 2, "ordinal"),
    "temperature: 0": lambda: metrics.calibrated(GIVEN, 0),
}


@pytest.mark.parametrize("complaint", BAD_METRICS)
def test_wrong_arguments_of_metrics(complaint):
    with pytest.raises(ValueError, match=complaint):
        BAD_METRICS[complaint]()


# --- augmentations

CONSTANTS = {"mean": (0.5, 0.4, 0.3), "std": (0.2, 0.2, 0.2)}


def test_augmentation_follows_its_seed_and_does_nothing_where_nothing_is_asked():
    one, again = (augmentations.random_augment(PIXELS, "strong", seed=5, **CONSTANTS) for _ in range(2))
    assert torch.equal(one, again)
    assert not torch.equal(one, augmentations.random_augment(PIXELS, "strong", seed=6, **CONSTANTS))
    plain = augmentations.random_augment(PIXELS, "none", **CONSTANTS)
    torch.testing.assert_close(plain, augmentations.normalise(PIXELS, **CONSTANTS))
    torch.manual_seed(0)
    first = augmentations.random_augment(PIXELS, **CONSTANTS)
    torch.manual_seed(0)
    assert torch.equal(first, augmentations.random_augment(PIXELS, **CONSTANTS))
    assert augmentations.random_augment(PIXELS[:, :1], "light", **CONSTANTS).shape == PIXELS.shape


@pytest.mark.parametrize("mix", [augmentations.mixup, augmentations.cutmix])
@pytest.mark.parametrize("per_image", [False, True])
def test_images_and_targets_are_mixed_by_the_same_shares(mix, per_image):
    """Images that are one-hot in their channels have the mixed targets as their channel means."""
    shares = torch.eye(6)
    images = shares[:, :, None, None].expand(-1, -1, 16, 16).contiguous()
    mixed, targets = mix(images, torch.arange(6), alpha=1.0, classes=6, per_image=per_image, seed=2)
    torch.testing.assert_close(mixed.mean(dim=(2, 3)), targets)
    assert not torch.equal(targets, shares)
    again = mix(images, shares, alpha=1.0, per_image=per_image, seed=2)
    torch.testing.assert_close(again[1], targets)


def test_views_are_averaged_with_the_weight_of_the_image():
    flags = vf.TaskSpec(classes=2).flags.model_copy(update={"hflip": True})
    first = torch.zeros(2, 3, 28, 28)
    first[..., :14] = 1.0

    def left(views):
        return views[:, 0, :, :14].mean(dim=(1, 2))[:, None]

    weighted = augmentations.average_over_views(left, first, flags, "light", weight=0.75)
    torch.testing.assert_close(weighted, torch.full((2, 1), 0.75))
    assert torch.equal(augmentations.average_over_views(left, first, flags, "off", weight=0.75), torch.ones(2, 1))


MASKS = (PIXELS[:, 0] % 3).contiguous()
BOXES = [torch.tensor([[1.0, 2.0, 20.0, 18.0]] * (image % 3)).reshape(-1, 4) for image in range(6)]


def test_labels_are_moved_by_the_draw_of_their_images():
    """With a class for each value, the grey image and its mask tell the same after any flip."""
    flips = {"hflip": 0.5, "vflip": 0.5, "rotation_angle": 0, "min_scale": 1, "jitter_val": 0}
    plain = {"mean": (0.0,), "std": (1 / 255,), "seed": 4}
    grey = PIXELS[:, :1]
    pixels, masks = augmentations.random_augment(grey, flips, masks=grey[:, 0], **plain)
    assert not torch.equal(masks, grey[:, 0])
    assert torch.equal(pixels[:, 0].round().to(torch.uint8), masks)
    for number in range(4):  # whatever is given, the images are the same
        wanted = {"masks": MASKS} if number % 2 else {}
        wanted |= {"boxes": BOXES} if number > 1 else {}
        found = augmentations.random_augment(PIXELS, "strong", seed=5, **CONSTANTS, **wanted)
        parts = found if wanted else (found,)
        assert torch.equal(parts[0], augmentations.random_augment(PIXELS, "strong", seed=5, **CONSTANTS))
        assert len(parts) == 1 + number % 2 + 2 * (number > 1)


def test_options_of_moved_labels_change_the_outcome():
    half = {"hflip": 0, "rotation_angle": 90, "min_scale": 0.2}
    options = {"masks": MASKS, "boxes": BOXES, "seed": 2, **CONSTANTS}
    _, masks, boxes, kept = augmentations.random_augment(PIXELS, half, fill=9, least_area=0.9, **options)
    assert (masks == 9).any()
    assert not (augmentations.random_augment(PIXELS, half, **options)[1] == 9).any()
    assert [len(each) for each in kept] == [len(each) for each in BOXES]
    assert [len(each) for each in boxes] == [int(each.sum()) for each in kept]
    more = augmentations.random_augment(PIXELS, half, least_area=0.0, **options)[3]
    assert sum(map(len, boxes)) < sum(int(each.sum()) for each in more)


def test_labels_are_left_alone_by_further_operations():
    erasing = {"hflip": 0, "rotation_angle": 0, "min_scale": 1, "operations": [{"name": "random_erasing"}]}
    _, masks, boxes, _ = augmentations.random_augment(PIXELS, erasing, masks=MASKS, boxes=BOXES, **CONSTANTS)
    assert torch.equal(masks, MASKS)
    assert all(torch.equal(*pair) for pair in zip(boxes, BOXES, strict=True))


def test_masks_are_mixed_with_their_images():
    images = F.one_hot(MASKS.long(), 3).permute(0, 3, 1, 2).float()
    mixed, shares = augmentations.mixup(images, MASKS, alpha=1.0, classes=3, seed=1)
    torch.testing.assert_close(shares, mixed)
    mixed, masks = augmentations.cutmix(images, MASKS, alpha=1.0, seed=1)
    assert masks.dtype == torch.uint8
    assert not torch.equal(masks, MASKS)
    assert torch.equal(masks, mixed.argmax(dim=1).to(torch.uint8))


@pytest.mark.parametrize("mode", ["off", "light", "full"])
def test_outputs_of_pixels_are_averaged_in_the_place_of_the_image(mode):
    """A network that looks at pixels alone says the same of each view; one that sees the place does not."""
    flags = augmentations.DomainFlags(
        hflip=True, vflip=True, rotation="any", texture_is_label=False, colour_is_label=False
    )
    images = torch.rand(2, 3, 28, 28, generator=torch.Generator().manual_seed(0))
    found = augmentations.average_over_views(lambda views: views.softmax(dim=1), images, flags, mode, dense=True)
    torch.testing.assert_close(found, images.softmax(dim=1))
    place = torch.linspace(0, 1, 28).expand(1, 1, 28, 28)

    def sees_the_place(views):
        return place.expand(len(views), 1, 28, 28)

    found = augmentations.average_over_views(sees_the_place, images, flags, "light", dense=True)
    expected = (2 * place + place.flip(-1)) / 3  # the image, and the top-bottom flip; the left-right flip
    torch.testing.assert_close(found, expected.expand(2, 1, 28, 28))


FLOATS = PIXELS / 255
BAD_AUGMENTATIONS = {
    "uint8": lambda: augmentations.random_augment(FLOATS, **CONSTANTS),
    r"allowed: \(N, C, R, R\)": lambda: augmentations.random_augment(PIXELS[..., :20], **CONSTANTS),
    "nearest: strong": lambda: augmentations.random_augment(PIXELS, "strog", **CONSTANTS),
    "nearest: augmentation.hflip": lambda: augmentations.random_augment(PIXELS, {"hflipp": 1}, **CONSTANTS),
    "mean, std: 2 and 2": lambda: augmentations.random_augment(PIXELS, mean=(0, 0), std=(1, 1)),
    "alpha: 0": lambda: augmentations.mixup(FLOATS, torch.arange(6), alpha=0),
    "alpha: 3": lambda: augmentations.cutmix(FLOATS, torch.arange(6), alpha=3),
    "`classes` their number": lambda: augmentations.mixup(FLOATS, torch.arange(6), alpha=1),
    r"targets: \(5,\) for 6 images": lambda: augmentations.mixup(FLOATS, torch.arange(5), alpha=1, classes=6),
    "allowed: floats": lambda: augmentations.mixup(PIXELS, torch.arange(6), alpha=1, classes=6),
    r"masks: \(6, 20, 28\); allowed for these images: \(6, 28, 28\)": lambda: augmentations.random_augment(
        PIXELS, masks=MASKS[:, :20], **CONSTANTS
    ),
    "masks: .*float32": lambda: augmentations.random_augment(PIXELS, masks=FLOATS[:, 0], **CONSTANTS),
    "fill: 300": lambda: augmentations.random_augment(PIXELS, masks=MASKS, fill=300, **CONSTANTS),
    "boxes: of 5 images; allowed: of 6": lambda: augmentations.random_augment(PIXELS, boxes=BOXES[1:], **CONSTANTS),
    r"row 2 \(image 2\).*lies outside": lambda: augmentations.random_augment(
        PIXELS, boxes=[*BOXES[:2], BOXES[2] + torch.tensor([[0.0], [28.0]]), *BOXES[3:]], **CONSTANTS
    ),
    "least_area: -1": lambda: augmentations.random_augment(PIXELS, boxes=BOXES, least_area=-1, **CONSTANTS),
    "masks, boxes: volumes": lambda: augmentations.random_augment(
        PIXELS[:, :, None, :28].expand(-1, -1, 28, -1, -1), masks=MASKS, **CONSTANTS
    ),
    r"targets: \(6, 28, 20\) for 6 images; .* masks \(6, 28, 28\)": lambda: augmentations.cutmix(
        FLOATS, MASKS[..., :20], alpha=1
    ),
    "masks have to be integer classes": lambda: augmentations.mixup(FLOATS, MASKS, alpha=1),
    "targets: torch.float32": lambda: augmentations.cutmix(FLOATS, FLOATS[:, 0], alpha=1),
    "outputs: .* allowed": lambda: augmentations.average_over_views(
        lambda x: x[:, 0, 0], FLOATS, vf.TaskSpec(classes=2).flags, dense=True
    ),
    "mode: 'half'": lambda: augmentations.average_over_views(lambda x: x, FLOATS, vf.TaskSpec(classes=2).flags, "half"),
}


@pytest.mark.parametrize("complaint", BAD_AUGMENTATIONS)
def test_wrong_arguments_of_augmentations(complaint):
    with pytest.raises(ValueError, match=complaint):
        BAD_AUGMENTATIONS[complaint]()
