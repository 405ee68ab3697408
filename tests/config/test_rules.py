"""Each rule that spans settings refuses what it must, and nothing else."""

import pytest

from visionforge.config import RunSettings
from visionforge.config.rules import BackboneFacts, DatasetFacts, DeviceFacts, Facts, check_rules

GREY = DatasetFacts("greymnist", channels=1, train=100, resolutions=(28, 64))
RESNET = BackboneFacts("resnet18", min_resolution=8, has_published_weights=True, final_map=4)
CPU = DeviceFacts("the CPU", float16=False, bfloat16=True)
OLD_GPU = DeviceFacts("an old GPU", float16=True, bfloat16=False)
FACTS = Facts(GREY, RESNET, CPU)


def problems(facts: Facts = FACTS, stage: str = "fit", **sections) -> list[str]:
    values = {"data": {"batch_size": 10}, "model": {}, "trainer": {}}
    for name, section in sections.items():
        values[name] = {**values[name], **section}
    return check_rules(RunSettings.model_validate(values), facts, stage)


def test_defaults_break_no_rule():
    assert problems() == []


@pytest.mark.parametrize("min_lr", [0.01, 0.02])
def test_min_lr_must_be_below_learning_rate(min_lr):
    (line,) = problems(model={"optimizer": {"learning_rate": 0.01}, "schedule": {"min_lr": min_lr}})
    assert line.startswith("model.schedule.min_lr:")
    assert "model.optimizer.learning_rate (0.01)" in line


def test_mixup_epochs_at_most_max_epochs():
    assert problems(model={"mixup": {"mixup_epochs": 5}}, trainer={"max_epochs": 5}) == []
    (line,) = problems(model={"mixup": {"mixup_epochs": 6}}, trainer={"max_epochs": 5})
    assert line.startswith("model.mixup.mixup_epochs: 6")


def test_pretrained_weights_need_three_channels():
    (line,) = problems(data={"force_rgb": False})
    assert line.startswith("model.backbone.pretrained:")
    assert "data.force_rgb" in line
    assert problems(data={"force_rgb": False}, model={"backbone": {"pretrained": False}}) == []


def test_weights_without_pretrained_would_be_ignored():
    (line,) = problems(model={"backbone": {"pretrained": False, "weights": "x.pth"}})
    assert line.startswith("model.backbone.weights:")


def test_pretrained_without_published_weights_needs_a_file():
    facts = Facts(GREY, BackboneFacts("mini_cnn", 8, has_published_weights=False, final_map=7), CPU)
    (line,) = problems(facts)
    assert "no published weights for mini_cnn" in line
    assert problems(facts, model={"backbone": {"weights": "x.pth"}}) == []


def test_resolution_must_be_offered_and_supported():
    (line,) = problems(data={"resolution": 32})
    assert "allowed: 28, 64" in line
    facts = Facts(GREY, BackboneFacts("resnet18", 32, True, 1), CPU)
    (line,) = problems(facts, data={"resolution": 28})
    assert "too small for resnet18" in line
    assert "at least 32" in line


def test_precision_only_where_the_device_has_it():
    (line,) = problems(trainer={"precision": "16-mixed"})
    assert "needs a GPU" in line
    assert "bf16-mixed" in line
    assert problems(trainer={"precision": "bf16-mixed"}) == []
    (line,) = problems(Facts(GREY, RESNET, OLD_GPU), trainer={"precision": "bf16-true"})
    assert "bfloat16" in line
    assert problems(Facts(GREY, RESNET, OLD_GPU), trainer={"precision": "16-mixed"}) == []


def test_at_least_one_step_is_left():
    assert problems(data={"batch_size": 100}) == []
    (line,) = problems(data={"batch_size": 101})
    assert line.startswith("data.batch_size: 101")
    (line,) = problems(data={"batch_size": 100, "max_samples": 60})
    assert "data.max_samples leaves 60" in line
    assert "at most 60" in line
    (line,) = problems(data={"batch_size": 60}, trainer={"devices": 2})
    assert "each of 2 devices" in line
    assert "at most 50" in line


def test_batch_norm_needs_more_than_one_value():
    (line,) = problems(Facts(GREY, BackboneFacts("resnet18", 8, True, final_map=1), CPU), data={"batch_size": 1})
    assert "batch normalisation" in line


def test_training_rules_are_not_applied_to_evaluation():
    values = {"data": {"batch_size": 500, "force_rgb": False}}
    assert problems(stage="test", **values) == []
    assert problems(stage="test", data={"resolution": 32}) != []


def test_all_broken_rules_are_told_at_once():
    lines = problems(
        data={"batch_size": 500, "resolution": 32, "force_rgb": False},
        model={"schedule": {"min_lr": 0.5}, "mixup": {"mixup_epochs": 99}},
        trainer={"precision": "16-mixed"},
    )
    assert len(lines) == 6
