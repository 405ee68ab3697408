"""The space holds what was asked for, nothing that is not allowed, and nothing that cannot take effect."""

import optuna
import pytest
import yaml

from visionforge.config.problems import value_at
from visionforge.config.schema import RunSettings
from visionforge.data import dataset_info
from visionforge.errors import SettingsError
from visionforge.tuning.space import FULL, QUICK, build_space, with_values
from visionforge.tuning.tuning import Tuning

BASE = {"data": {"dataset": "breastmnist"}, "model": {"backbone": {"name": "mini_cnn", "pretrained": False}}}


def settings(**changes):
    tree = BASE
    for path, value in changes.items():
        tree = with_values(tree, {path.replace("__", "."): value})
    return RunSettings.model_validate(tree)


def build(**changes):
    chosen = settings(**changes)
    flags = dataset_info(chosen.data.dataset, chosen.data.synthetic).flags
    return build_space(chosen, flags, ["mini_cnn", "resnet18"], Tuning._check)


def paths(space):
    return {parameter.path for parameter in space.parameters}


def suggestions(space, count=100):
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    return [space.suggest(study.ask()) for _ in range(count)]


def test_presets_have_the_parameters_of_the_mission():
    assert len(FULL) == 13
    assert paths(build(tune__preset="full")) == set(FULL)
    assert paths(build(tune__preset="quick")) == set(QUICK)
    assert paths(build(tune__preset="architectures")) == {*QUICK, "model.backbone.name"}


@pytest.mark.parametrize(
    ("resolution", "batches"), [(28, [16, 32, 48, 64]), (64, [16, 32, 48, 64]), (224, [8, 12, 16])]
)
def test_batch_sizes_follow_the_resolution(resolution, batches):
    space = build(tune__preset="quick", data__resolution=resolution, data__dataset="pathmnist")
    (batch,) = [p for p in space.parameters if p.path == "data.batch_size"]
    assert list(batch.dimension.choices) == batches


@pytest.mark.parametrize("preset", ["quick", "full"])
def test_where_all_devices_share_images_their_number_is_searched(preset):
    space = build(tune__preset=preset, data__batch_size=128, data__global_batch_size=64)
    assert [p.path for p in space.parameters if "batch_size" in p.path] == ["data.global_batch_size"]


def test_pool_and_its_default():
    def pool(space):
        return next(p for p in space.parameters if p.path == "model.backbone.name").dimension.choices

    assert pool(build(tune__preset="architectures")) == ("mini_cnn", "resnet18")
    assert pool(build(tune__preset="architectures", tune__pool=["resnet34"])) == ("resnet34",)


def test_own_ranges_replace_those_of_the_preset_and_add_to_them():
    space = build(
        tune__preset="quick",
        tune__space={
            "model.optimizer.learning_rate": {"low": 0.01, "high": 0.02},
            "model.backbone.dropout": None,
            "model.optimizer.name": {"choices": ["sgd", "adamw"]},
        },
    )
    assert paths(space) == {*QUICK, "model.optimizer.name"} - {"model.backbone.dropout"}
    assert all(0.01 <= values["model.optimizer.learning_rate"] <= 0.02 for values in suggestions(space))


def test_conditional_parameter_is_proposed_only_where_it_is_read():
    space = build(tune__preset="full", tune__space={"model.optimizer.name": {"choices": ["sgd", "adamw"]}})
    found = suggestions(space)
    assert {values["model.optimizer.name"] for values in found} == {"sgd", "adamw"}
    for values in found:
        assert ("model.optimizer.momentum" in values) == (values["model.optimizer.name"] == "sgd")
        assert ("model.schedule.scheduler_patience" in values) == (values["model.schedule.cosine_fraction"] < 1)


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        ({"model__optimizer__name": "adamw"}, "model.optimizer.momentum"),
        ({"model__schedule__name": "constant"}, "model.schedule.min_lr"),
        ({"model__schedule__name": "step"}, "model.schedule.cosine_fraction"),
        ({"model__schedule__name": "step"}, "model.schedule.scheduler_patience"),
        ({"tune__space": {"model.schedule.cosine_fraction": None}}, "model.schedule.scheduler_patience"),
        ({"data__augmentation": {"preset": "light"}}, "data.augmentation.rotation_angle"),
        ({"data__dataset": "digits", "data__resolution": 8, "data__batch_size": 16}, None),
    ],
)
def test_what_cannot_take_effect_is_left_out_of_a_preset_with_a_message(changes, path):
    space = build(tune__preset="full", **changes)
    if path is None:
        return
    assert path not in paths(space)
    (line,) = [line for line in space.left_out if line.startswith(f"tune.space.{path}: ")]
    assert "cannot take effect, because " in line


SPACE_ERRORS = {
    "unknown": ({"model.optimizer.lerning_rate": {"low": 1, "high": 2}}, "nearest: model.optimizer.learning_rate"),
    "section": ({"model.optimizer": {"choices": [1]}}, "is a section; name one of its settings"),
    "too high": (
        {"model.optimizer.learning_rate": {"low": 0.1, "high": 2}},
        "high 2: 2.0 is not allowed; allowed: a number, above 1e-08 to below 1",
    ),
    "too low": ({"model.backbone.dropout": {"low": -0.1, "high": 0.5}}, "low -0.1: -0.1 is not allowed"),
    "no such choice": ({"model.optimizer.name": {"choices": ["sgd", "adam"]}}, "choice 'adam': 'adam' is not allowed"),
    "fraction": ({"data.batch_size": {"low": 1.5, "high": 8}}, "low and high must be whole numbers"),
    "dead": (
        {"model.schedule.gamma": {"low": 0.1, "high": 0.5}, "model.schedule.name": {"choices": ["constant"]}},
        "cannot take effect, because it is read where model.schedule.name is cosine or step, and that is constant",
    ),
    "averaging": (
        {"model.averaging.decay": {"low": 0.9, "high": 0.99}},
        "model.averaging.name is ema, and that is none",
    ),
    "where it runs": ({"data.num_workers": {"choices": [0, 1]}}, "cannot be searched"),
    "list": ({"data.augmentation.operations": {"choices": ["a", "b"]}}, "cannot be searched (a list of components)"),
    "item of a list": (
        {"data.augmentation.operations.0.sigma": {"low": 0.1, "high": 0.2}},
        "cannot be searched (a list of components)",
    ),
    "other images": ({"data.dataset": {"choices": ["breastmnist"]}}, "values on other images do not compare"),
    "views": ({"model.tta": {"choices": ["full", "off"]}}, "the validation does not use it"),
    "null of nothing": ({"model.averaging.decay": None}, "which has no such parameter"),
    "rule": (
        {
            "model.schedule.min_lr": {"low": 1e-3, "high": 5e-3},
            "model.optimizer.learning_rate": {"low": 2e-3, "high": 1e-2},
        },
        "it must be below model.optimizer.learning_rate",
    ),
}


@pytest.mark.parametrize("name", SPACE_ERRORS)
def test_mistakes_are_found_before_the_first_trial(name):
    space, line = SPACE_ERRORS[name]
    with pytest.raises(SettingsError) as refused:
        build(tune__preset="quick", tune__space=space)
    assert any(line in problem and problem.startswith("tune.space") for problem in refused.value.problems), str(
        refused.value
    )


@pytest.mark.parametrize(
    ("dimension", "message"),
    [
        ({}, "give either low and high, or choices"),
        ({"low": 1}, "give either low and high, or choices"),
        ({"low": 2, "high": 1}, r"low \(2\) is above high \(1\)"),
        ({"low": 0, "high": 1, "log": True}, "must be above 0 with log"),
        ({"low": 1, "high": 2, "log": True, "step": 1}, "log and step do not go together"),
        ({"choices": [1, 2], "low": 1}, "choices stand alone"),
        ({"choices": [1, 1]}, "differ from each other"),
        ({"choices": []}, "at least 1 item"),
    ],
)
def test_dimensions_that_contradict_themselves(dimension, message):
    with pytest.raises(ValueError, match=message):
        settings(tune__space={"model.backbone.dropout": dimension})


def test_nothing_to_search_is_refused():
    with pytest.raises(SettingsError, match="there is nothing to search"):
        build(tune__preset="none")


def test_images_that_may_not_be_turned_or_mirrored():
    flags = dataset_info("breastmnist").flags.model_copy(update={"rotation": "none", "hflip": False})
    space = build_space(settings(tune__preset="full"), flags, [], Tuning._check)
    assert "data.augmentation.rotation_angle" not in paths(space)
    chosen = settings(tune__space={"data.augmentation.hflip": {"low": 0, "high": 1}})
    with pytest.raises(SettingsError, match="left and right of these images are not interchangeable"):
        build_space(chosen, flags, [], Tuning._check)


def test_every_suggestion_is_a_valid_configuration():
    space = build(tune__preset="full", tune__space={"model.optimizer.name": {"choices": ["sgd", "adamw", "muon"]}})
    for values in suggestions(space, 40):
        assert Tuning._check(space.apply(values)) == []
        for path, value in values.items():
            assert value_at(space.apply(values), path) == value


def test_steps_and_whole_numbers_are_kept():
    space = build(
        tune__preset="none",
        tune__space={
            "model.backbone.dropout": {"low": 0, "high": 0.4, "step": 0.2},
            "data.augmentation.rotation_angle": {"low": 0, "high": 20, "step": 10},
        },
    )
    found = suggestions(space)
    assert {round(values["model.backbone.dropout"], 6) for values in found} == {0.0, 0.2, 0.4}
    assert {values["data.augmentation.rotation_angle"] for values in found} == {0, 10, 20}
    assert [p.grid() for p in space.parameters] == [[0.0, 0.2, 0.4], [0, 10, 20]]


def test_own_configuration_is_a_trial_as_far_as_it_lies_inside():
    space = build(tune__preset="quick", data__batch_size=128)
    assert space.of_base() == {
        "model.optimizer.learning_rate": 0.008,
        "model.optimizer.weight_decay": 0.0005,
        "model.backbone.dropout": 0.0,
    }
    study = optuna.create_study()
    study.enqueue_trial(space.of_base())
    trial = study.ask()
    assert space.suggest_base(trial) == {}
    assert trial.params == space.of_base()


@pytest.mark.parametrize(
    ("path", "dimension", "message"),
    [
        ("data.batch_size", {"low": 8, "high": 16, "step": 0.5}, "step: 0.5 is not allowed; a whole number"),
        ("data.batch_size", {"low": 8, "high": 16, "step": 3}, "high: 16 would never be tried.* 14 or 17"),
        ("data.batch_size", {"low": 8.5, "high": 16}, "low and high must be whole numbers"),
        (
            "model.backbone.dropout",
            {"low": 0, "high": 0.5, "step": 0.2},
            r"high: 0.5 would never be tried.* 0.4 or 0.6",
        ),
        ("model.optimizer.learning_rate", {"choices": ["1e-3", 0.001]}, "choices must differ from each other"),
        ("data.balanced_sampling", {"choices": [1, True]}, "choices must differ from each other"),
    ],
)
def test_values_that_no_trial_can_have(path, dimension, message):
    with pytest.raises((SettingsError, ValueError), match=message):
        build(tune__preset="none", tune__space={path: dimension})


def test_step_is_compared_as_a_decimal():
    (parameter,) = build(
        tune__preset="none", tune__space={"model.backbone.dropout": {"low": 0, "high": 0.3, "step": 0.1}}
    ).parameters
    assert parameter.grid() == pytest.approx([0.0, 0.1, 0.2, 0.3])


def test_choices_are_what_their_setting_reads():
    tree = yaml.safe_load(
        "{model.optimizer.learning_rate: {choices: [1e-3, 8e-3]}, data.batch_size: {choices: [16, 8]},"
        " data.balanced_sampling: {choices: [0, 1]}, trainer.gradient_clip_val: {choices: [null, 1e-1]}}"
    )
    space = build(tune__preset="none", tune__space=tree, data__batch_size=16)
    choices = {parameter.path: parameter.dimension.choices for parameter in space.parameters}
    assert choices == {
        "model.optimizer.learning_rate": (0.001, 0.008),
        "data.batch_size": (16, 8),
        "data.balanced_sampling": (False, True),
        "trainer.gradient_clip_val": (None, 0.1),
    }
    assert [type(value) for value in choices["data.batch_size"]] == [int, int]
    assert space.of_base() == {
        "model.optimizer.learning_rate": 0.008,
        "data.batch_size": 16,
        "data.balanced_sampling": True,
        "trainer.gradient_clip_val": None,
    }


@pytest.mark.parametrize("choice", [8.0, "8", True])
def test_a_choice_of_integers_is_written_in_integers(choice):
    with pytest.raises(SettingsError, match=f"choice {choice!r}: {choice!r} is not allowed; allowed: an integer"):
        build(tune__preset="none", tune__space={"data.batch_size": {"choices": [16, choice]}}, data__batch_size=16)


def test_a_flag_that_is_not_set_has_the_value_that_lightning_takes():
    space = build(tune__preset="none", tune__space={"trainer.accumulate_grad_batches": {"low": 1, "high": 4}})
    assert space.of_base() == {"trainer.accumulate_grad_batches": 1}
