"""Every setting has the default and the range it is documented with."""

import pytest
from pydantic import ValidationError

from visionforge.config import RunSettings
from visionforge.config.problems import describe_allowed, flatten

DEFAULTS = {
    "trainer.max_epochs": 60,
    "data.batch_size": 128,
    "model.optimizer.learning_rate": 0.008,
    "model.schedule.min_lr": 1e-6,
    "model.optimizer.weight_decay": 5e-4,
    "model.optimizer.momentum": 0.9,
    "model.mixup.alpha": 0.002,
    "model.loss.label_smoothing": 0.0,
    "model.backbone.dropout": 0.0,
    "seed_everything": 42,
    "trainer.deterministic": False,
    "data.augmentation.hflip": 0.5,
    "data.augmentation.rotation_angle": 10,
    "data.augmentation.jitter_val": 0.2,
    "data.augmentation.min_scale": 0.95,
    "model.tta": "full",
    "model.backbone.name": "resnet18",
    "model.backbone.pretrained": "auto",
    "data.force_rgb": True,
    "data.resolution": 28,
    "data.dataset": "bloodmnist",
    "data.max_samples": None,
    "data.balanced_sampling": True,
}
RANGES = {  # (allowed values, refused values)
    "trainer.max_epochs": ([1, 1000], [0, 1001, -1]),
    "data.batch_size": ([1, 2048], [0, 2049]),
    "model.optimizer.learning_rate": ([1.1e-8, 0.999], [1e-8, 1.0, -1]),
    "model.optimizer.weight_decay": ([0, 0.2], [-1e-9, 0.21]),
    "model.optimizer.momentum": ([0, 0.999], [1.0, -0.1]),
    "model.mixup.alpha": ([0, 1], [-0.1, 1.01]),
    "model.loss.label_smoothing": ([0, 0.3], [-0.1, 0.31]),
    "model.backbone.dropout": ([0, 0.9], [-0.1, 0.91]),
    "model.schedule.min_lr": ([1e-12], [0.0, float("nan"), float("inf")]),
    "data.augmentation.hflip": ([0, 1], [-0.1, 1.1]),
    "data.augmentation.rotation_angle": ([0, 180], [-1, 181, 1.5]),
    "data.augmentation.jitter_val": ([0, 1], [-0.1, 1.1]),
    "data.augmentation.min_scale": ([0.01, 1], [0, 1.1]),
    "data.resolution": ([28, 64, 128, 224], [7, 1025]),
    "data.max_samples": ([None, 1], [0]),
    "data.num_workers": ([0, 8], [-1]),
    "seed_everything": ([0, 2**32 - 1], [-1, 2**32]),
}


def nested(path: str, value: object) -> dict:
    for part in reversed(path.split(".")):
        value = {part: value}
    return value


def look_up(settings: RunSettings, path: str) -> object:
    for part in path.split("."):
        settings = getattr(settings, part)
    return settings


@pytest.mark.parametrize(("path", "expected"), DEFAULTS.items())
def test_default(path, expected):
    assert look_up(RunSettings(), path) == expected


@pytest.mark.parametrize("path", RANGES)
def test_range_is_closed_where_it_says_so(path):
    allowed, refused = RANGES[path]
    for value in allowed:
        assert look_up(RunSettings.model_validate(nested(path, value)), path) == value
    for value in refused:
        with pytest.raises(ValidationError):
            RunSettings.model_validate(nested(path, value))


def test_settings_are_frozen_and_closed():
    settings = RunSettings()
    with pytest.raises(ValidationError):
        settings.data.batch_size = 3
    with pytest.raises(ValidationError):
        RunSettings.model_validate({"data": {"batchsize": 3}})


@pytest.mark.parametrize(("path", "field"), flatten(RunSettings).items())
def test_every_setting_is_described(path, field):
    assert field.description, f"{path} has no description"
    assert describe_allowed(field)


def test_allowed_values_in_words():
    fields = flatten(RunSettings)
    assert describe_allowed(fields["data.batch_size"]) == "an integer, 1 to 2048"
    assert describe_allowed(fields["model.optimizer.momentum"]) == "a number, 0 to below 1"
    assert describe_allowed(fields["model.optimizer.learning_rate"]) == "a number, above 1e-08 to below 1"
    assert describe_allowed(fields["data.max_samples"]) == "an integer, at least 1 or null"
    assert describe_allowed(fields["data.synthetic.channels"]) == "one of 1, 3"
    assert describe_allowed(fields["data.force_rgb"]) == "true or false"
    assert describe_allowed(fields["data.augmentation.hflip"]) == "a number, 0 to 1"
    names = "gaussian_noise, random_erasing, threshold"
    listed = f"a list of {names}, each by its name or a mapping of name and settings"
    assert describe_allowed(fields["data.augmentation.operations"]) == listed
