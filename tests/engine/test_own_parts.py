"""A module of somebody's adds a part of every family, which is chosen, trained, refused and resumed as ours are."""

import json
import sys
from pathlib import Path

import lightning.pytorch as pl
import pandas as pd
import pytest
import torch
import yaml

import visionforge as vf
from tests.conftest import REPOSITORY, flags, run_folders
from tests.training.helpers import data, fit, trainer, weights
from visionforge.cli.main import main
from visionforge.config.parts import register
from visionforge.config.schema import tasks
from visionforge.config.schema.components import Component

FAMILIES: dict[str, type[Component]] = {
    "optimizer": vf.Optimizer,
    "schedule": vf.Schedule,
    "loss": vf.Loss,
    "averaging": vf.Averaging,
    "mixing": vf.Mixing,
    "sampler": vf.Sampler,
    "augmentation": vf.AugmentationOperation,
}
OWN = {  # family → (the setting, what chooses the part)
    "optimizer": ("model.optimizer.name", "own_nadam"),
    "schedule": ("model.schedule.name", "own_linear"),
    "loss": ("model.loss.name", "own_brier"),
    "averaging": ("model.averaging.name", "own_half"),
    "mixing": ("model.mixup.name", "own_dim"),
    "sampler": ("data.sampler.name", "own_class_by_class"),
    "augmentation": ("data.augmentation.operations", "[own_invert]"),
}
WRONG = {  # family → (a setting that its part does not have, the nearest)
    "optimizer": ("model.optimizer.psy", "model.optimizer.psi"),
    "schedule": ("model.schedule.last_shar", "model.schedule.last_share"),
    "loss": ("model.loss.fcator", "model.loss.factor, model.loss.focal"),
    "averaging": ("model.averaging.memmory", "model.averaging.memory"),
    "mixing": ("model.mixup.mst", "model.mixup.most"),
    "sampler": ("data.sampler.shufled", "data.sampler.shuffled"),
}


@pytest.fixture
def module(tmp_path_factory, own_parts_forgotten):
    """The file of somebody's module; what it registers is forgotten afterwards."""
    path = tmp_path_factory.mktemp("theirs") / "own_parts_for_tests.py"
    path.write_text((REPOSITORY / "tests" / "own_parts.py").read_text(encoding="utf-8"), encoding="utf-8")
    yield path
    sys.modules.pop("own_parts_for_tests", None)


def trained(folder: Path, *more: str) -> pd.DataFrame:
    command = flags(trainer__default_root_dir=folder, trainer__max_epochs=2, data__synthetic__train=128)
    assert main(["fit", *command, *more]) == 0
    (run,) = run_folders(folder)
    return pd.read_csv(run / "metrics.csv").drop(columns=["seconds"], errors="ignore")


@pytest.fixture(scope="module")
def usual(tmp_path_factory) -> pd.DataFrame:
    return trained(tmp_path_factory.mktemp("usual"))


@pytest.mark.parametrize("family", OWN)
def test_a_part_of_a_module_is_chosen_by_name_and_changes_the_outcome(module, usual, tmp_path, family):
    setting, value = OWN[family]
    found = trained(tmp_path / "o", "--import", str(module), f"--{setting}", value)
    assert not found.equals(usual)
    (run,) = run_folders(tmp_path / "o")
    written = yaml.safe_load((run / "config.yaml").read_text())
    for part in setting.removesuffix(".name").split("."):
        written = written[part]
    chosen = written[0] if isinstance(written, list) else written
    assert chosen["name"] == value.strip("[]")
    assert main(["test", "--run", str(run), "--import", str(module)]) == 0


@pytest.mark.parametrize("family", WRONG)
def test_a_field_that_a_part_does_not_have_is_an_unknown_setting(module, refuse, family):
    (setting, value), (wrong, nearest) = OWN[family], WRONG[family]
    (line,) = refuse("fit", *flags(), "--import", str(module), f"--{setting}", value, f"--{wrong}", "1")
    assert line == f"{wrong}: unknown setting (on the command line); nearest: {nearest}"


def test_mistakes_in_a_list_name_the_item(module, refuse):
    value = "[{name: own_invert, probabilty: 1}, {name: own_invert, probability: 2}, {name: own_inwert}, {sigma: 1}]"
    lines = refuse("fit", *flags(), "--import", str(module), "--data.augmentation.operations", value)
    path, where = "data.augmentation.operations", "(on the command line)"
    names = "gaussian_noise, random_erasing, threshold, own_invert"
    assert lines == [
        f"{path}.0.probabilty: unknown setting {where}; nearest: {path}.0.probability",
        f"{path}.1.probability: 2 is not allowed {where}; allowed: a number, 0 to 1",
        f"{path}.2.name: 'own_inwert' is not allowed {where}; allowed: one of {names}; nearest: own_invert",
        f"{path}.3.name: '' is not allowed {where}; allowed: one of {names}",
    ]


@pytest.mark.parametrize("value", ["own_invert", "3", "{name: own_invert}"])
def test_a_list_is_a_list(module, refuse, value):
    (line,) = refuse("fit", *flags(), "--import", str(module), "--data.augmentation.operations", value)
    assert "allowed: a list of gaussian_noise, random_erasing, threshold, own_invert, each by its name" in line


def test_a_setting_of_another_item_is_told_with_who_reads_it(module, refuse):
    value = "[{name: own_invert, sigma: 0.3}]"
    (line,) = refuse("fit", *flags(), "--import", str(module), "--data.augmentation.operations", value)
    assert line.startswith("data.augmentation.operations.0.sigma: 0.3 would be ignored")
    assert line.endswith("data.augmentation.operations.0.name is own_invert; it is read by gaussian_noise")


def test_a_resumed_run_with_parts_of_a_module_is_bit_identical(module, tmp_path):
    """Interrupted in the middle of an epoch; everything that the parts draw is a function of the step."""
    from visionforge.config.imports import import_modules

    import_modules([str(module)])

    def make():
        source = data(
            augmentation={"operations": ["own_invert", "gaussian_noise", {"name": "random_erasing"}]},
            sampler="own_class_by_class",
        )
        parts = {"optimizer": "own_nadam", "schedule": "own_linear", "loss": "own_brier"}
        return vf.ImageClassifier("mini_cnn", **parts, averaging="own_half", mixup="own_dim"), source

    whole, source = make()
    keep = pl.callbacks.ModelCheckpoint(
        tmp_path, filename="{step}", every_n_train_steps=7, save_top_k=-1, save_on_train_epoch_end=False
    )
    fit(whole, 3, source, callbacks=[keep], enable_checkpointing=True)
    resumed, source = make()
    pl.seed_everything(42, verbose=False)
    trainer(3).fit(resumed, datamodule=source, ckpt_path=str(tmp_path / "step=7.ckpt"), weights_only=True)
    assert torch.equal(weights(whole), weights(resumed))


# --- registering

ONE = """
import visionforge as vf
from typing import Literal
from pydantic import Field

class Mine(vf.AugmentationOperation):
    name: Literal["mine_for_tests"] = "mine_for_tests"
    strength: float = Field(default={default}, ge=0)

    def build(self):
        return lambda images, generator: {body}
"""


def cell(monkeypatch, default: float = 0.5, body: str = "images"):
    """Return the class that a notebook cell makes."""
    from types import ModuleType

    made = ModuleType("cell_for_tests")
    monkeypatch.setitem(sys.modules, "cell_for_tests", made)
    exec(ONE.format(default=default, body=body), made.__dict__)
    return made.Mine


def test_the_same_again_is_no_error_and_another_needs_to_replace(module, monkeypatch):
    vf.register_augmentation(cell(monkeypatch))
    vf.register_augmentation(cell(monkeypatch))
    for changes in ({"default": 0.6}, {"body": "images.abs()"}):
        other = cell(monkeypatch, **changes)
        with pytest.raises(ValueError, match=r"'mine_for_tests' is registered already, by another class .*Mine"):
            vf.register_augmentation(other)
        vf.register_augmentation(other, replace=True)
        assert vf.AugmentationOperation.family.kinds["mine_for_tests"] is other
        vf.register_augmentation(cell(monkeypatch), replace=True)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_class_of_another_family_is_refused(family):
    decorator, base = getattr(vf, f"register_{family}"), FAMILIES[family]
    other = vf.Loss if family != "loss" else vf.Sampler
    for wrong in (other, base, int, 3):
        with pytest.raises(TypeError, match=rf"{base.family.what} is a subclass of visionforge\.{base.__name__}"):
            decorator(wrong)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_class_without_its_method_or_name_is_refused(module, family):
    from typing import Literal

    decorator, base = getattr(vf, f"register_{family}"), FAMILIES[family]
    empty = type("Empty", (base,), {"__module__": __name__, "__annotations__": {"name": Literal["e"]}, "name": "e"})
    with pytest.raises(ValueError, match=f"Empty: {base.family.what} has a method .*{base.required[0]}.*; define it"):
        decorator(empty)
    with pytest.raises(ValueError, match="Nameless: give it a name"):
        decorator(type("Nameless", (base,), {"__module__": __name__}))


def test_what_is_built_in_keeps_its_name():
    from typing import Literal

    body = {"__module__": __name__, "__annotations__": {"name": Literal["balanced"]}, "name": "balanced"}
    taken = type("Taken", (vf.Sampler,), {**body, "weights": lambda self, labels: None})
    with pytest.raises(ValueError, match="'balanced' is registered already: it is built in"):
        register(taken, vf.Sampler, replace=True)


def test_a_kind_that_was_made_by_its_class_keeps_its_name():
    from visionforge.config.schema import ModelSettings, RunSettings
    from visionforge.training.optimizers.adamw import AdamW

    settings = RunSettings(model=ModelSettings(optimizer=AdamW(learning_rate=0.01)))
    again = RunSettings.model_validate(settings.model_dump(exclude_unset=True))
    assert again.model.optimizer == AdamW(learning_rate=0.01)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_built_in_kind_is_documented(family):
    """It says in a sentence what it is, each of its settings too, and the page of parts names it."""
    page = (REPOSITORY / "docs" / "howto" / "own-parts.md").read_text(encoding="utf-8")
    base = FAMILIES[family]
    own = {name: kind for name, kind in base.family.kinds.items() if kind.__module__.startswith(base.family.package)}
    assert own
    for name, kind in own.items():
        assert (kind.__doc__ or "").strip() != (base.__doc__ or "").strip()
        assert all(field.description for key, field in kind.model_fields.items() if key != "name"), name
        assert f"`{name}`" in page, name
    assert f"`register_{family}`" in page


@pytest.mark.slow
def test_a_task_of_a_module_goes_through_all_commands_with_its_own_metric_and_parts(module, tmp_path, capsys):
    """Whatever the network says, what it reports from 0.2 on is reported: in tables, metrics, report and artifact."""
    changes = {
        "data__synthetic__task": "own-screening",
        "model__optimizer__name": "own_nadam",
        "model__loss__name": "own_brier",
        "model__monitor": "val/own_reported",
        "data__augmentation__operations": "[own_invert]",
        "trainer__max_epochs": 1,
    }
    ours, outputs = ("--import", str(module)), tmp_path / "o"
    shown = flags(**changes, evaluation__report="true", evaluation__figures="true")
    assert main(["fit", *shown, *ours, "--trainer.default_root_dir", str(outputs)]) == 0
    (run,) = run_folders(outputs)
    content = json.loads((run / "metrics.json").read_text())
    assert (content["task"], content["positive"], content["chosen_by"]) == (
        "own-screening",
        "class 1",
        "val/own_reported",
    )
    table = pd.read_csv(run / "predictions.csv")
    surely = table["raw_tta_probability_class 1"] >= 0.2
    assert ((table["prediction"] == "class 1") == surely).all()
    assert content["with_tta"]["own_reported"] == pytest.approx(surely.mean())
    assert content["with_tta"]["accuracy"] == pytest.approx((table["prediction"] == table["truth"]).mean())
    report = (run / "report.html").read_text(encoding="utf-8")
    assert report.index("share that is reported") < report.index("sensitivity of class 1")

    given = flags(**changes)  # without a page and figures, each of which every command would draw again
    assert main(["fit", *given, *ours, "--trainer.default_root_dir", str(tmp_path / "p")]) == 0
    (run,) = run_folders(tmp_path / "p")
    capsys.readouterr()
    assert main(["test", "--run", str(run), *ours]) == 0
    assert main(["export", "--run", str(run), "--format", "onnx", *ours]) == 0
    assert "100.00% have the same prediction" in capsys.readouterr().out
    described = json.loads((run / "export" / "onnx" / "export.json").read_text())
    assert described["output"]["positive"] == "class 1"
    search = [
        "--tune.n_trials",
        "2",
        "--tune.metric",
        "val/own_reported",
        "--trainer.default_root_dir",
        str(tmp_path / "t"),
    ]
    assert main(["tune", *given, *ours, *search]) == 0
    assert main(["reproduce", str(run)]) == 0


def test_a_run_of_a_task_that_is_not_known_is_listed_and_refused_in_a_line(module, tmp_path, refuse, monkeypatch):
    given = flags(data__synthetic__task="own-screening", trainer__max_epochs=1)
    assert main(["fit", *given, "--import", str(module), "--trainer.default_root_dir", str(tmp_path / "o")]) == 0
    (run,) = run_folders(tmp_path / "o")
    monkeypatch.setattr(
        tasks, "_TASKS", {name: task for name, task in tasks.tasks().items() if name != "own-screening"}
    )
    assert main(["runs", "show", str(run)]) == 0
    allowed = ", ".join(tasks.task_names())
    hint = "; one of another package has to be imported first (--import MODULE)"
    (line,) = refuse("test", "--run", str(run))
    assert line.startswith("data.synthetic.task: 'own-screening' is not allowed (in ")
    assert line.endswith(f"{run.name}/config.yaml); allowed: one of {allowed}{hint}")
    (line,) = refuse("export", "--run", str(run), "--format", "onnx")
    assert line.endswith(f"best.ckpt: spec.task: 'own-screening' is not allowed; allowed: one of {allowed}{hint}")
