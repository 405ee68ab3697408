"""A kind of component has settings of its own; what another kind has is refused, unless it says nothing."""

import copy
import json
import logging
import subprocess
import sys
from typing import Literal

import numpy as np
import pytest
from pydantic import Field, ValidationError

from visionforge.config.loading import read_arguments, read_values
from visionforge.config.problems import describe_allowed, flatten, validation_problems
from visionforge.config.schema import Averaging, Decoder, Loss, Mixing, ModelSettings, Optimizer, RunSettings, Schedule
from visionforge.config.schema import components as module
from visionforge.config.schema.components import register
from visionforge.config.stored import of_known_parts, unknown_parts
from visionforge.config.untrusted import for_evaluation, for_training
from visionforge.tuning.conditions import conditions_of, without_other_kinds

FAMILIES = [Optimizer, Schedule, Loss, Mixing, Averaging, Decoder]


def problems(**sections) -> list[str]:
    with pytest.raises(ValidationError) as caught:
        ModelSettings.model_validate(sections)
    return validation_problems(caught.value, ModelSettings, "model.", values=sections)


@pytest.fixture
def own(monkeypatch):
    """A kind of optimiser that somebody else has registered."""
    monkeypatch.setattr(Optimizer.family, "_kinds", dict(Optimizer.family.kinds))

    @register
    class Signed(Optimizer):
        """Steps of one size."""

        name: Literal["signed"] = "signed"
        beta: float = Field(default=0.5, ge=0.0, lt=1.0, description="Share of the old direction.")

        def build(self, groups):
            raise NotImplementedError

    return Signed


@pytest.mark.parametrize("base", FAMILIES)
def test_every_kind_is_chosen_by_its_name_alone(base):
    for name, kind in base.family.kinds.items():
        section = base.family.path.partition(".")[2]
        for written in (name, {"name": name}):
            chosen = getattr(ModelSettings.model_validate({section: written}), section)
            assert type(chosen) is kind
            assert chosen == base(name=name) == kind()
    assert type(base()) is type(getattr(ModelSettings(), section)) is base.family.kinds[base.family.default]


@pytest.mark.parametrize("base", FAMILIES)
def test_kinds_are_described(base):
    for kind in base.family.kinds.values():
        assert (kind.__doc__ or "").strip().endswith(".")
        assert all(field.description for name, field in kind.model_fields.items() if name != "name")
    assert f"{base.family.default}: " in base.family.description


def test_a_dump_has_the_settings_of_the_kind_and_reads_back():
    settings = RunSettings.model_validate({"model": {"optimizer": {"name": "adamw", "beta2": 0.9}}})
    dumped = settings.model_dump(mode="json")["model"]
    assert list(dumped["optimizer"]) == [
        "name",
        "learning_rate",
        "weight_decay",
        "decay_norm_bias",
        "rate_scaling",
        "reference_batch_size",
        "momentum",
        "beta2",
    ]
    assert "step_epochs" not in dumped["schedule"]
    assert settings.model_dump(exclude_unset=True) == {"model": {"optimizer": {"name": "adamw", "beta2": 0.9}}}
    assert RunSettings.model_validate_json(settings.model_dump_json(exclude_unset=True)) == settings
    assert RunSettings.model_validate(json.loads(settings.model_dump_json())) == settings


def test_settings_of_other_kinds():
    (line,) = problems(optimizer={"name": "adamw", "nesterov": True})
    assert line == (
        "model.optimizer.nesterov: True would be ignored, because model.optimizer.name is adamw; it is read by sgd and "
        "muon"
    )
    (line,) = problems(optimizer={"beta": 0.9})
    assert line == "model.optimizer.beta: unknown setting; nearest: model.optimizer.beta2"
    (line,) = problems(schedule="cosin")
    assert line.startswith(
        "model.schedule.name: 'cosin' is not allowed; allowed: one of cosine, constant, step, one_cycle"
    )
    (line,) = problems(loss=3)
    assert line.startswith("model.loss: 3 is not allowed")
    assert (
        len(problems(loss={"name": "focal", "focal_gamma": -1, "label_smoothing": 2}, averaging={"name": "mean"})) == 3
    )


def test_what_older_files_say_of_other_kinds_is_left_out_and_told_once(caplog):
    module._tell.cache_clear()
    old = {"name": "adamw", "momentum": 0.9, "nesterov": False, "beta2": 0.99}
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            settings = ModelSettings.model_validate({"optimizer": old, "averaging": {"name": "none", "decay": 0.5}})
    assert settings.optimizer == Optimizer(name="adamw", beta2=0.99)
    assert settings.averaging == Averaging(name="none")
    assert [record.message for record in caplog.records] == [
        "model.optimizer.nesterov: not read by adamw, so leave it out",
        "model.averaging.decay: not read by none, so leave it out",
    ]


def test_settings_are_described_by_the_kind_that_is_chosen(own):
    fields = flatten(RunSettings)
    assert describe_allowed(fields["model.optimizer.name"]) == "one of sgd, adamw, muon, signed"
    assert fields["model.optimizer.beta"].description == "Share of the old direction."
    assert "signed: Steps of one size." in fields["model.optimizer.name"].description
    (line,) = problems(optimizer={"name": "signed", "beta": 2})
    assert line == "model.optimizer.beta: 2 is not allowed; allowed: a number, 0 to below 1"


def test_a_name_belongs_to_one_kind(own):
    with pytest.raises(ValueError, match="an optimiser named 'sgd' is registered already"):

        @register
        class Mine(Optimizer):
            name: Literal["sgd"] = "sgd"

    with pytest.raises(ValueError, match="give it a name"):

        @register
        class Nameless(Optimizer):
            pass


def test_a_search_knows_which_kinds_read_a_setting(own):
    (condition,) = conditions_of("model.optimizer.beta")
    assert condition.text == "model.optimizer.name is signed"
    assert conditions_of("model.optimizer.learning_rate") == ()
    tree = {"model": {"optimizer": {"name": "sgd", "learning_rate": 0.1, "nesterov": True}, "tta": "off"}, "data": {}}
    changed = without_other_kinds(tree, {"model.optimizer.name": "adamw"})
    assert changed["model"]["optimizer"] == {"name": "sgd", "learning_rate": 0.1}
    assert tree["model"]["optimizer"]["nesterov"] is True


def test_a_package_that_cannot_be_loaded_is_one_line(monkeypatch):
    class Point:
        value = "theirs.lion:Lion"

        def load(self):
            raise ImportError("no theirs")

    monkeypatch.setattr(module, "_points", lambda: {"optimizer.lion": Point()})
    assert Optimizer.family.names == ("sgd", "adamw", "muon", "lion")
    (line,) = problems(optimizer="lion")
    assert line.startswith("model.optimizer.name: theirs.lion:Lion cannot be loaded (ImportError: no theirs)")


def test_kinds_are_known_without_torch():
    code = "import sys, visionforge.config as c; c.Optimizer.family.kinds; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize("given", [["--model.optimizer", "adamw"], ["--config", "mine.yaml"]])
def test_a_kind_that_is_only_named_keeps_its_name_beside_its_settings(tmp_path, given):
    (tmp_path / "mine.yaml").write_text("model: {optimizer: adamw}\n")
    raw = read_arguments([*given, "--model.optimizer.learning_rate", "0.002"])
    assert raw.values["model"]["optimizer"] == {"name": "adamw", "learning_rate": 0.002}


def test_a_kind_given_as_an_object_keeps_its_name():
    kind = Optimizer.family.kinds["adamw"](learning_rate=0.001)
    for given in ({"model": {"optimizer": kind}}, {"model.optimizer": kind}):
        assert read_values(None, given).values == {"model": {"optimizer": {"name": "adamw", "learning_rate": 0.001}}}
    usual = Optimizer.family.kinds["sgd"](learning_rate=0.1)
    assert read_values({"model": {"optimizer": "adamw"}}, {"model": ModelSettings(optimizer=usual)}).values == {
        "model": {"optimizer": {"name": "sgd", "learning_rate": 0.1}}
    }


def test_an_unknown_name_hides_no_other_mistake():
    lines = problems(optimizer={"name": "bad", "learning_rate": 99})
    assert [line.partition(":")[0] for line in lines] == ["model.optimizer.name", "model.optimizer.learning_rate"]


def test_values_that_are_no_plain_ones_are_not_compared():
    (line,) = problems(optimizer={"name": "sgd", "beta2": np.ones(3)})
    assert "would be ignored" in line


STORED = {
    "model": {
        "optimizer": {"name": "lion", "beta": 1},
        "schedule": {"name": "constant", "min_lr": 1e-5, "typo": 1},
        "loss": "focal",
    },
    "data": {"augmentation": {"operations": [{"name": "theirs"}, "gaussian_noise"]}},
    "seed_everything": 3,
}


def test_of_a_stored_configuration_what_is_not_known_is_left_out():
    before = copy.deepcopy(STORED)
    known = of_known_parts(STORED)
    assert before == STORED
    assert known["model"] == {"schedule": {"name": "constant", "typo": 1}, "loss": "focal"}
    assert known["data"] == {"augmentation": {"operations": ["gaussian_noise"]}}
    assert known["seed_everything"] == 3
    kept = of_known_parts(STORED, unknown=True)
    assert kept["model"]["optimizer"] == STORED["model"]["optimizer"]
    assert len(kept["data"]["augmentation"]["operations"]) == 2
    assert unknown_parts(STORED) == ["data.augmentation.operations.0: theirs", "model.optimizer: lion"]


def test_a_strangers_training_chooses_no_part_of_another_package():
    kept, refused = for_training({"model": {"optimizer": {"name": "lion"}, "tta": "off"}})
    assert refused == ["model.optimizer: lion"]
    assert kept == {"model": {"tta": "off"}}
    assert for_evaluation({"model": {"optimizer": "lion"}}) == {"model": {}}


def test_what_an_entry_point_gives_has_to_be_a_kind_of_that_name(monkeypatch):
    class Point:
        value = "theirs:it"

        def load(self):
            return self.thing

    points = {f"optimizer.{name}": Point() for name in ("module", "schedule", "other")}
    points["optimizer.module"].thing = json
    points["optimizer.schedule"].thing = Schedule.family.kinds["step"]
    points["optimizer.other"].thing = Optimizer.family.kinds["sgd"]
    monkeypatch.setattr(module, "_points", lambda: points)
    for name, reason in (("module", "no subclass"), ("schedule", "no subclass"), ("other", "its name is 'sgd'")):
        (line,) = problems(optimizer=name)
        assert reason in line
    assert list(Optimizer.family.kinds) == ["sgd", "adamw", "muon"]
