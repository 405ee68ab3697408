"""The module trains on anyone's loader of images and labels, and says in a line what it cannot take."""

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from tests.training.helpers import trainer, weights
from visionforge import ImageClassifier, TaskSpec
from visionforge.data.augment import normalise
from visionforge.errors import DataError, SettingsError
from visionforge.training.labelled import label_problem, labelled_batch

SPEC = TaskSpec(classes=3, channels=1, resolution=16, mean=(0.4,), std=(0.2,))
LABELS = TaskSpec(classes=("round", "red"), task="multi-label", channels=1, resolution=16)
PIXELS = torch.randint(0, 256, (24, 1, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
CLASSES = torch.arange(24) % 3


def trained(images: torch.Tensor, labels: torch.Tensor, spec: TaskSpec = SPEC) -> ImageClassifier:
    pl.seed_everything(42, verbose=False)
    loader = DataLoader(TensorDataset(images, labels), batch_size=8)
    module = ImageClassifier("mini_cnn", mixup={"alpha": 0.4}, spec=spec)
    one = trainer(1)
    one.fit(module, loader, loader)
    assert {"train/loss", "lr", "val/loss", "val/auc", "val/accuracy"} <= one.callback_metrics.keys()
    return module


def test_uint8_and_normalised_float_images_train_alike():
    floats = normalise(PIXELS, SPEC.mean, SPEC.std)
    expected = weights(trained(PIXELS, CLASSES))
    torch.testing.assert_close(weights(trained(floats, CLASSES)), expected)
    torch.testing.assert_close(weights(trained(floats.double(), CLASSES)), expected)


@pytest.mark.parametrize("labels", [CLASSES[:, None], CLASSES.int(), CLASSES.to(torch.uint8)[:, None]])
def test_integer_labels_of_any_form_train_alike(labels):
    assert torch.equal(weights(trained(PIXELS, labels)), weights(trained(PIXELS, CLASSES)))


@pytest.mark.parametrize("kind", [torch.float32, torch.float64, torch.int64, torch.bool])
def test_multi_label_data_trains_with_zeros_and_ones_of_any_type(kind):
    labels = torch.stack([CLASSES == 0, CLASSES != 1], dim=1)
    expected = weights(trained(PIXELS, labels.to(torch.uint8), LABELS))
    assert torch.equal(weights(trained(PIXELS, labels.to(kind), LABELS)), expected)


def test_grey_images_fill_the_channels_of_a_colour_task():
    module = trained(PIXELS, CLASSES, TaskSpec(classes=3, resolution=16))
    assert module.network.get_parameter("features.0.weight").shape[1] == 3


class Pairs(pl.LightningDataModule):
    """Somebody's data module, which has a `spec` of its own meaning."""

    spec = "see the wiki"

    def train_dataloader(self):
        return DataLoader(TensorDataset(PIXELS, CLASSES), batch_size=8)

    val_dataloader = train_dataloader


def test_any_data_module_trains_with_a_spec():
    trainer(1).fit(ImageClassifier("mini_cnn", spec=SPEC), datamodule=Pairs())
    with pytest.raises(SettingsError, match="give the module a TaskSpec"):
        trainer(1).fit(ImageClassifier("mini_cnn"), datamodule=Pairs())


BAD = {
    "a class too many": (PIXELS, CLASSES + 1, SPEC, r"labels: 3 is no class; allowed: 0 to 2 \(0, 1, 2\)"),
    "a negative class": (PIXELS, CLASSES - 1, SPEC, r"labels: -1 is no class"),
    "float classes": (PIXELS, CLASSES.float(), SPEC, r"labels: \(8,\) of torch.float32; allowed for multi-class data"),
    "one-hot classes": (PIXELS, torch.eye(3)[CLASSES], SPEC, r"labels: \(8, 3\) of torch.float32"),
    "another size": (
        PIXELS[..., :12, :12],
        CLASSES,
        SPEC,
        r"images: \(8, 1, 12, 12\); the task's images are \(N, 1, 16",
    ),
    "colour for grey": (PIXELS.expand(-1, 3, -1, -1), CLASSES, SPEC, r"images: \(8, 3, 16, 16\); the task's"),
    "integer images": (PIXELS.long(), CLASSES, SPEC, r"images: .* of torch.int64; allowed: uint8 or normalised float"),
    "no matrix of labels": (PIXELS, CLASSES, LABELS, r"labels: \(8,\); allowed for multi-label data: \(8, 2\)"),
    "shares of labels": (PIXELS, torch.full((24, 2), 0.5), LABELS, r"labels: 0.5 is not allowed.*: 0 or 1"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_trained_on_is_one_line(name):
    images, labels, spec, complaint = BAD[name]
    loader = DataLoader(TensorDataset(images, labels), batch_size=8)
    for loaders in ([loader], [DataLoader(TensorDataset(PIXELS, good(spec)), batch_size=8), loader]):
        with pytest.raises(DataError, match=complaint) as caught:
            trainer(1).fit(ImageClassifier("mini_cnn", spec=spec), *loaders)
        assert len(caught.value.problems) == 1


def good(spec: TaskSpec) -> torch.Tensor:
    return torch.ones(24, 2) if spec is LABELS else CLASSES


def test_a_batch_is_a_pair_of_one_length():
    with pytest.raises(DataError, match="pair of tensors"):
        labelled_batch({"image": PIXELS}, SPEC)
    with pytest.raises(DataError, match="pair of tensors"):
        labelled_batch((PIXELS, ["a"] * 24), SPEC)
    with pytest.raises(DataError, match=r"labels: \(23,\) for 24 images"):
        labelled_batch((PIXELS, CLASSES[1:]), SPEC)


def test_labels_are_looked_at_before_they_are_moved_to_a_gpu(monkeypatch):
    """There a class too many would be an assertion of the device, which ends the process's use of it."""
    module = ImageClassifier("mini_cnn", spec=SPEC)
    monkeypatch.setattr(ImageClassifier, "device", torch.device("cuda"))
    module.on_before_batch_transfer((PIXELS, CLASSES + 1), 0)
    on_device = torch.empty(24, 1, 16, 16, device="meta"), torch.empty(24, dtype=torch.int64, device="meta")
    with pytest.raises(DataError, match="labels: 3 is no class"):
        module._labelled(on_device)
    module.on_before_batch_transfer((PIXELS, CLASSES), 0)
    assert len(module._labelled(on_device)[1]) == 24
    assert label_problem(on_device[1], SPEC) is None


def test_a_spec_needs_no_more_than_classes():
    assert TaskSpec(classes=2).task == "binary"
    spec = TaskSpec(classes=["cat", "dog", "hen"], mean=[0.5], std=[0.2])
    assert (spec.task, spec.channels, spec.resolution, spec.classes) == ("multi-class", 1, 28, ("cat", "dog", "hen"))
    assert TaskSpec.model_validate(spec.model_dump(mode="json")) == spec
    for wrong in (
        {"classes": 1},
        {"classes": 3, "channels": 2},
        {"classes": -3},
        {"classes": 10**9},
        {},
        {"classes": 2.0},
    ):
        with pytest.raises(ValueError, match=r"classes|channels"):
            TaskSpec(**wrong)
    arrays = TaskSpec.of_arrays(np.zeros((4, 16, 16), np.uint8), np.array([0, 1, 2, 0]))
    assert arrays.flags == TaskSpec(classes=3).flags
