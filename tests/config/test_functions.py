"""Plain functions as loss, augmentation, metric and backbone: by a decorator, or given where a name would stand."""

from functools import partial

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from torch import nn

import visionforge as vf
from tests.conftest import flags, run_folders
from visionforge import ImageClassifier, ImageDataModule, SettingsError, TaskSpec
from visionforge.cli.main import main
from visionforge.config.schema import AugmentationOperation, Loss
from visionforge.models import registry
from visionforge.models.registry import backbone_entry, register_backbone

PARTS = '''
import torch
from torch import nn
import visionforge as vf


@vf.register_loss
def brier(logits, targets, *, power: float = 2.0):
    """The distance of the probabilities to the target."""
    return (logits.softmax(dim=1) - targets).abs().pow(power).sum(dim=1)


@vf.register_augmentation
def darker(images, draws, *, most: float = 0.5):
    """Some images darker."""
    return images * (1 - most * draws.uniform(1, 1, 1))


@vf.register_backbone
def tiny(in_channels, num_classes):
    """A convolution and its mean."""
    return nn.Sequential(nn.Conv2d(in_channels, 8, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                         nn.Linear(8, num_classes))
'''


@pytest.fixture(autouse=True)
def as_before():
    """Let no part of a test be known to another."""
    families = (Loss.family, AugmentationOperation.family)
    assert all(family.kinds for family in families), "which loads the built-in ones"
    kept = [(family._kinds, dict(family._kinds)) for family in families]
    kept.append((registry._ENTRIES, dict(registry._ENTRIES)))
    yield
    for known, before in kept:
        known.clear()
        known.update(before)


def brier(logits, targets):
    return (logits.softmax(dim=1) - targets).square().sum(dim=1)


def darker(images, draws, *, most: float = 0.5):
    return images * (1 - most * draws.uniform(1, 1, 1))


def tiny(in_channels, num_classes):
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(4), nn.Linear(4, num_classes))


def step(model, images, labels):
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    trainer = pl.Trainer(max_epochs=1, accelerator="cpu", limit_train_batches=1, **quiet)
    trainer.fit(
        model, torch.utils.data.DataLoader(torch.utils.data.TensorDataset(images, labels), batch_size=len(images))
    )
    return float(trainer.callback_metrics["train/loss"])


def test_a_file_of_functions_is_a_file_of_parts(tmp_path, capsys):
    (tmp_path / "mine.py").write_text(PARTS)
    settings = flags(
        **{"import": tmp_path / "mine.py"},
        data__augmentation__operations="[{name: darker, most: 0.25}]",
        model__backbone__name="tiny",
        model__loss__name="brier",
        model__loss__power=1.5,
        trainer__default_root_dir=tmp_path / "outputs",
    )
    assert main(["fit", *settings]) == 0
    (run,) = run_folders(tmp_path / "outputs")
    config = (run / "config.yaml").read_text()
    assert "power: 1.5" in config
    assert "most: 0.25" in config
    assert main(["fit", *settings, "--model.loss.pover", "3"]) == 2
    assert "model.loss.pover: unknown setting" in capsys.readouterr().err


@pytest.mark.parametrize("weights", ["none", {"a": 3.0}])
def test_a_loss_of_each_image_is_the_weighted_mean_of_the_loop_beside_it(weights):
    torch.manual_seed(0)
    images, labels = torch.randn(8, 3, 28, 28), torch.tensor([0, 1] * 4)
    spec = TaskSpec(classes=("a", "b"), resolution=28)
    model = ImageClassifier(
        "mini_cnn", loss={"name": brier, "class_weights": weights}, mixup={"alpha": 0.0}, spec=spec, seed=1
    )
    model.configure_model()
    with torch.no_grad():
        each = brier(model.train()(images), nn.functional.one_hot(labels, 2).float())
    share = torch.tensor([3.0, 1.0])[labels] if weights != "none" else torch.ones(8)
    expected = float((each * share).sum() / share.sum())
    model.configure_optimizers = lambda: torch.optim.SGD(model.parameters(), lr=0.0)
    assert step(model, images, labels) == pytest.approx(expected, rel=1e-5)


def test_functions_stand_where_names_would(tmp_path):
    model = ImageClassifier(backbone=tiny, loss=brier, spec=TaskSpec(classes=3, resolution=28))
    assert (model.settings.backbone.name, model.settings.loss.name) == ("tiny", "brier")
    model.configure_model()
    assert model(torch.zeros(2, 3, 28, 28)).shape == (2, 3)
    data = ImageDataModule("synthetic", augmentation={"operations": [darker, "gaussian_noise"]})
    assert [operation.name for operation in data.settings.augmentation.operations] == ["darker", "gaussian_noise"]
    run = vf.fit(
        data={
            "dataset": "synthetic",
            "resolution": 28,
            "batch_size": 16,
            "synthetic": {"train": 64, "val": 32, "test": 32},
            "augmentation": {"operations": [darker]},
        },
        model={"backbone": {"name": "mini_cnn", "pretrained": False}, "loss": brier},
        trainer={"max_epochs": 1, "accelerator": "cpu", "default_root_dir": str(tmp_path)},
        evaluation={"report": False, "figures": False, "resamples": 50},
    )
    stored = (run.path / "config.yaml").read_text()
    assert "name: brier" in stored
    assert "name: darker" in stored


def test_an_operation_draws_by_image_or_by_batch():
    def noisy(images, generator):
        return images + torch.rand(len(images), 1, 1, 1, generator=generator)

    vf.register_augmentation(noisy)
    vf.register_augmentation(darker)
    kinds = AugmentationOperation.family.kinds
    assert (kinds["noisy"].by_image, kinds["darker"].by_image) == (False, True)
    generator = torch.Generator().manual_seed(3)
    changed = kinds["noisy"]().build()(torch.zeros(4, 1, 2, 2), generator)
    assert len(np.unique(changed.numpy())) == 4


def test_names_and_tasks_can_be_given():
    @vf.register_loss(name="of_labels", tasks=("labels",))
    def anything(logits, targets, weights):
        return nn.functional.binary_cross_entropy_with_logits(logits, targets)

    kind = Loss.family.kinds["of_labels"]
    assert kind.tasks == ("labels",)
    assert anything(torch.zeros(1, 2), torch.ones(1, 2), None) > 0, "the function itself is left as it is"
    with pytest.raises(ValueError, match=r"brier: tasks: \('beauty',\) is not allowed"):
        vf.register_loss(brier, tasks=("beauty",))


def test_the_same_again_is_no_error_and_another_is():
    vf.register_loss(brier)
    vf.register_loss(brier)
    other = eval("lambda logits, targets: logits.mean()")  # of another place
    other.__name__ = "brier"
    with pytest.raises(ValueError, match="'brier' is registered already"):
        vf.register_loss(other)
    vf.register_loss(other, replace=True)


@pytest.mark.parametrize(
    ("register", "function", "line"),
    [
        (vf.register_loss, lambda logits: 0, r"takes \(logits\); allowed: \(logits, targets\) or"),
        (vf.register_loss, lambda logits, targets, *, power: 0, "power behind \\* is a setting, which needs a default"),
        (
            vf.register_loss,
            lambda logits, targets, *, label_smoothing=1.0: 0,
            "label_smoothing is a setting that every",
        ),
        (vf.register_augmentation, lambda images: images, r"allowed: \(images, draws\) or \(images, generator\)"),
        (vf.register_augmentation, lambda images, numbers: images, r"takes \(images, numbers\); allowed: "),
        (register_backbone, lambda channels, num_classes: 0, "it takes channels"),
        (register_backbone, lambda in_channels: 0, "it lacks num_classes"),
    ],
)
def test_other_arguments_are_refused(register, function, line):
    with pytest.raises(ValueError, match=line):
        register(function)


def test_annotations_that_are_texts_and_functions_without_a_name():
    later: dict = {"__name__": "later"}
    text = """from __future__ import annotations
def later(logits, targets, *, gamma: float = 2, alpha: float | None = None):
    return logits.sum(dim=1)
"""
    exec(text, later)  # a file that says so
    vf.register_loss(later["later"])
    assert Loss.family.kinds["later"](gamma=1.5, alpha=0.5).gamma == 1.5
    with pytest.raises(ValueError, match="has no name that a configuration could have"):
        vf.register_loss(lambda logits, targets: logits)
    with pytest.raises(ValueError, match="has no name that a configuration could have"):
        vf.register_loss(partial(brier))


def test_a_function_as_the_backbone_of_a_fit():
    from visionforge.config.loading import read_values

    assert read_values(None, {"model": {"backbone": tiny}}).values["model"]["backbone"] == {"name": "tiny"}


def test_a_single_number_cannot_be_weighted():
    def whole(logits, targets):
        return logits.mean()

    spec = TaskSpec(classes=("a", "b"), resolution=28)
    model = ImageClassifier("mini_cnn", loss={"name": whole, "class_weights": {"a": 2.0}}, spec=spec)
    with pytest.raises(
        (ValueError, SettingsError), match="whole returns one number; let it return the loss of each image"
    ):
        step(model, torch.zeros(4, 3, 28, 28), torch.tensor([0, 1, 0, 1]))


def test_a_backbone_of_a_function_says_what_it_is():
    register_backbone(tiny)
    assert backbone_entry("tiny").description.startswith("A function of ")
    assert not backbone_entry("tiny").has_published_weights


def test_a_module_in_the_place_of_a_function_is_told_apart():
    with pytest.raises(ValueError, match=r"allowed: \(logits, targets\) .*; of a module, write a function that"):
        vf.register_loss(torch.nn.CrossEntropyLoss())
    with pytest.raises(ValueError, match="of a module, write a function that makes or calls it"):
        vf.register_backbone(torch.nn.Linear(1, 1))
