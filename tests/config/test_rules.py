"""Each rule that spans settings refuses what it must, and nothing else."""

from dataclasses import replace

import pytest
from pydantic import ValidationError

from visionforge.config import RunSettings
from visionforge.config.problems import validation_problems
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
    try:
        settings = RunSettings.model_validate(values)
    except ValidationError as error:
        return validation_problems(error, RunSettings, values=values)
    return check_rules(settings, facts, stage)


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


def test_images_of_all_devices_leave_a_step_and_equal_parts():
    whole = {"batch_size": 128, "global_batch_size": 100}
    assert problems(data=whole, trainer={"devices": 2}) == []
    (line,) = problems(data={**whole, "global_batch_size": 102}, trainer={"devices": 3})
    assert line.startswith("data.global_batch_size: 102 leaves no training step")
    assert line.endswith("at most 99")
    (line,) = problems(data=whole, trainer={"devices": 3})
    assert line == "data.global_batch_size: 100 cannot be divided among 3 devices; set a multiple of 3"
    facts = Facts(GREY, BackboneFacts("resnet18", 8, True, final_map=1), CPU)
    (line,) = problems(facts, data={**whole, "global_batch_size": 2}, trainer={"devices": 2})
    assert line.startswith("data.global_batch_size: 2 is too small for resnet18")
    assert line.endswith("at least 4")


def test_what_no_scaling_reads_is_left_out():
    optimizer = {"reference_batch_size": 64}
    (line,) = problems(model={"optimizer": optimizer})
    assert line.startswith("model.optimizer.reference_batch_size: 64 would be ignored")
    assert problems(model={"optimizer": {**optimizer, "rate_scaling": "sqrt"}}) == []


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


@pytest.mark.parametrize(
    ("section", "ignored", "reason"),
    [
        ({"optimizer": {"name": "adamw", "nesterov": True}}, "optimizer.nesterov", "sgd and muon"),
        ({"optimizer": {"beta2": 0.9}}, "optimizer.beta2", "adamw and muon"),
        ({"schedule": {"name": "one_cycle", "warmup_epochs": 2}}, "schedule.warmup_epochs", "cosine and constant"),
        ({"schedule": {"name": "step", "cosine_fraction": 0.5}}, "schedule.cosine_fraction", "cosine"),
        ({"schedule": {"name": "step", "scheduler_patience": 2}}, "schedule.scheduler_patience", "cosine"),
        ({"schedule": {"step_epochs": 5}}, "schedule.step_epochs", "step"),
        ({"schedule": {"name": "constant", "gamma": 0.5}}, "schedule.gamma", "cosine and step"),
        ({"schedule": {"rise_fraction": 0.5}}, "schedule.rise_fraction", "one_cycle"),
        ({"schedule": {"scheduler_patience": 2}}, "schedule.scheduler_patience", "cosine_fraction is 1"),
        ({"schedule": {"gamma": 0.5}}, "schedule.gamma", "cosine_fraction is 1"),
        ({"loss": {"focal_gamma": 1.0}}, "loss.focal_gamma", "focal"),
        ({"loss": {"effective_beta": 0.9}}, "loss.effective_beta", "effective-number"),
        ({"averaging": {"name": "swa", "decay": 0.9}}, "averaging.decay", "ema"),
        ({"finetuning": {"stage_epochs": 2}}, "finetuning.stage_epochs", "freeze_epochs is 0"),
    ],
)
def test_setting_that_would_be_ignored(section, ignored, reason):
    (line,) = problems(model=section)
    assert line.startswith(f"model.{ignored}: ")
    assert "would be ignored" in line
    assert reason in line


def test_statistics_of_no_images_are_not_kept():
    keep = {"finetuning": {"batch_norm": "keep"}}
    (line,) = problems(model={**keep, "backbone": {"name": "resnet18", "pretrained": False}})
    assert line.startswith("model.finetuning.batch_norm: keep of a backbone with random weights")
    assert problems(model={**keep, "backbone": {"name": "resnet18", "pretrained": True}}) == []


def test_settings_of_what_is_off_altogether_may_stay():
    """So that one flag turns it off."""
    off = {"mixup": {"alpha": 0, "mixup_epochs": 3, "per_image": True}, "averaging": {"decay": 0.9}, "tta": False}
    assert problems(model={**off, "tta_weight": 0.5}) == []


@pytest.mark.parametrize(
    ("section", "key"),
    [
        ({"schedule": {"warmup_epochs": 5}}, "schedule.warmup_epochs"),
        ({"averaging": {"name": "ema", "start_epoch": 5}}, "averaging.start_epoch"),
        ({"finetuning": {"freeze_epochs": 6}}, "finetuning.freeze_epochs"),
    ],
)
def test_epochs_lie_in_the_training(section, key):
    (line,) = problems(model=section, trainer={"max_epochs": 5})
    assert line.startswith(f"model.{key}: ")
    assert "trainer.max_epochs is 5" in line
    assert problems(model=section, trainer={"max_epochs": 7}) == []


@pytest.mark.parametrize(
    ("task", "refused"),
    [
        ("binary", {"bce", "ordinal"}),
        ("multi-class", {"bce", "ordinal"}),
        ("ordinal", {"bce"}),
        ("multi-label", {"cross_entropy", "ordinal"}),
    ],
)
def test_loss_fits_the_labels(task, refused):
    facts = Facts(DatasetFacts("mine", 3, 100, None, task, ("a", "b")), RESNET, CPU)
    for name in ("auto", "cross_entropy", "bce", "focal", "ordinal"):
        found = problems(facts, model={"loss": {"name": name}})
        assert bool(found) == (name in refused), (name, found)
        assert all(line.startswith(f"model.loss.name: {name} does not fit mine") for line in found)


def test_class_weights_name_classes_that_exist():
    facts = Facts(DatasetFacts("mine", 3, 100, None, "multi-class", ("benign", "malignant")), RESNET, CPU)
    assert problems(facts, model={"loss": {"class_weights": {"benign": 2}}}) == []
    (line,) = problems(facts, model={"loss": {"class_weights": {"malign": 2}}})
    assert "no class 'malign'; nearest: malignant" in line


@pytest.mark.parametrize("choice", ["balanced", "effective-number"])
def test_classes_are_balanced_once(choice):
    (line,) = problems(model={"loss": {"class_weights": choice}})
    assert "data.balanced_sampling to false" in line
    assert problems(model={"loss": {"class_weights": choice}}, data={"balanced_sampling": False}) == []


@pytest.mark.parametrize("choice", ["balanced", "effective-number"])
def test_classes_are_balanced_once_by_whichever_sampler(choice):
    weighted = {"loss": {"class_weights": choice}}
    (line,) = problems(model=weighted, data={"sampler": "balanced"})
    assert "data.sampler.name to uniform" in line
    assert problems(model=weighted, data={"sampler": "uniform"}) == []


def test_a_switch_that_the_sampler_does_not_read_is_left_out():
    for name in ("balanced", "uniform"):
        (line,) = problems(data={"sampler": name, "balanced_sampling": False})
        assert line.startswith(f"data.balanced_sampling: false would be ignored, because data.sampler.name is {name}")
        assert problems(data={"sampler": name}) == []
    assert problems(data={"sampler": "auto", "balanced_sampling": False}) == []


def test_freezing_needs_weights_worth_keeping():
    section = {"finetuning": {"freeze_epochs": 1}, "backbone": {"pretrained": False}}
    (line,) = problems(model=section)
    assert line.startswith("model.finetuning.freeze_epochs: freezes a backbone with random weights")


def test_frozen_stages_need_a_strategy_that_knows_it():
    section = {"finetuning": {"freeze_epochs": 1}}
    (line,) = problems(model=section, trainer={"devices": 2})
    assert "ddp_find_unused_parameters_true" in line
    good = {"devices": 2, "strategy": "ddp_find_unused_parameters_true"}
    assert problems(model=section, trainer=good) == []


def test_resolution_is_a_multiple_of_the_patches():
    facts = Facts(DatasetFacts("mine", 3, 100, None), BackboneFacts("vit", 8, True, 7, multiple_of=4), CPU)
    assert problems(facts, data={"resolution": 32}) == []
    (line,) = problems(facts, data={"resolution": 30})
    assert line.startswith("data.resolution: 30 is not allowed for vit")


def test_backbones_take_the_dimensions_of_the_data():
    takers = ("mini_cnn", "resnet18")
    volumes = DatasetFacts("organmnist3d", 1, 900, None, spatial_dims=3)
    of_images = BackboneFacts("swin_v2_t", 8, True, final_map=4, takers=takers)
    (line,) = problems(Facts(volumes, of_images, CPU), model={"backbone": {"name": "swin_v2_t"}})
    assert line == "model.backbone.name: swin_v2_t does not take volumes; allowed: mini_cnn, resnet18"
    of_both = BackboneFacts("resnet18", 8, True, final_map=4, spatial_dims=(2, 3), inflates=True, takers=takers)
    acs = {"backbone": {"volume_convolution": "acs"}}
    assert not problems(Facts(volumes, of_both, CPU), model=acs)
    (line,) = problems(Facts(GREY, of_both, CPU), model=acs)
    assert line == "model.backbone.volume_convolution: acs is for volumes, the data are images; leave it out"
    native = BackboneFacts("theirs", 8, True, final_map=4, spatial_dims=(3,))
    (line,) = problems(Facts(volumes, native, CPU), model=acs)
    assert "acs would be ignored" in line


BIG = BackboneFacts("big", min_resolution=32, has_published_weights=True, final_map=4, multiple_of=4)


@pytest.mark.parametrize(
    ("resize", "line"),
    [
        ({}, "data.resolution: 28 is too small for big; at least 32"),
        ({"size": 24}, "data.resize.size: 24 is too small for big; at least 32"),
        ({"size": 49}, "data.resize.size: 49 is not allowed for big, whose patches have 4 pixels here; a multiple of"),
        ({"size": 24, "mode": "pad"}, "data.resize.mode: pad has no room for images of 28 pixels"),
    ],
)
def test_the_size_that_counts_is_the_one_that_the_network_reads(resize, line):
    assert any(problem.startswith(line) for problem in problems(Facts(GREY, BIG, CPU), data={"resize": resize}))


def test_a_size_that_the_network_takes_and_the_way_to_none_may_stay():
    assert problems(Facts(GREY, BIG, CPU), data={"resize": {"size": 48}}) == []
    assert problems(data={"resize": {"mode": "pad"}}) == [], "one flag, size null, turns it off"


def test_constants_of_weights_need_published_ones():
    backbone = {"normalisation": "weights", "pretrained": False}
    assert problems(model={"backbone": backbone}) == []
    facts = Facts(GREY, replace(RESNET, has_published_weights=False), CPU)
    (line,) = problems(facts, model={"backbone": backbone})
    assert line.startswith("model.backbone.normalisation: weights is not allowed for resnet18")
