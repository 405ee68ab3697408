"""Mistakes are told with path, value, what is allowed, and the nearest key."""

import pytest
from pydantic import ValidationError

from visionforge.config import RunSettings
from visionforge.config.problems import nearest, unknown_setting, validation_problems


def lines(values: dict, sources: dict | None = None) -> list[str]:
    with pytest.raises(ValidationError) as caught:
        RunSettings.model_validate(values)
    return validation_problems(caught.value, RunSettings, sources=sources)


def test_out_of_range():
    (line,) = lines({"data": {"batch_size": 0}}, {"data.batch_size": "in x.yaml"})
    assert line == "data.batch_size: 0 is not allowed (in x.yaml); allowed: an integer, 1 to 2048"


def test_union_member_is_one_line():
    (line,) = lines({"data": {"max_samples": "many"}})
    assert line == "data.max_samples: 'many' is not allowed; allowed: an integer, at least 1 or null"


def test_section_given_as_a_value():
    (line,) = lines({"model": {"mixup": 3}})
    assert line.startswith("model.mixup: 3 is not allowed; allowed: a name, mixup, or a mapping of name and settings")


@pytest.mark.parametrize(
    ("values", "suggestion"),
    [
        ({"data": {"batchsize": 1}}, "data.batch_size"),
        ({"model": {"optimizer": {"lr": 1}}}, "model.optimizer"),
        ({"seed": 1}, "seed_everything"),
        ({"learning_rate": 1}, "model.optimizer.learning_rate"),
        ({"data": {"Hflip": 1}}, "data.augmentation.hflip"),
    ],
)
def test_unknown_key_suggests_the_nearest(values, suggestion):
    (line,) = lines(values)
    assert "unknown setting" in line
    assert suggestion in line


def test_unknown_key_like_nothing_lists_the_siblings():
    assert "loss has: label_smoothing" in unknown_setting("model.loss.qqqq", ["model.loss.label_smoothing"])


def test_all_mistakes_at_once():
    assert len(lines({"data": {"batch_size": 0, "x": 1}, "model": {"tta": "perhaps"}, "seed_everything": -1})) == 4


def test_nearest_ignores_case_and_takes_beginnings():
    assert nearest("BREASTMNIST", ["breastmnist", "chestmnist"])[0] == "breastmnist"
    assert nearest("seed", ["schedule", "seed_everything"])[0] == "seed_everything"
    assert nearest("zzz", ["breastmnist"]) == []


def test_mapping_of_names():
    (line,) = lines({"model": {"loss": {"class_weights": "equal"}}})
    assert line.endswith("allowed: one of none, balanced, effective-number or a mapping of names to a number")
