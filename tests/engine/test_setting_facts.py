"""What is told of a setting is what holds of it."""

import json
import re
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from visionforge import SettingsError
from visionforge.cli.main import main
from visionforge.config.background import SOURCES, TOGETHER
from visionforge.config.pages import SETTINGS
from visionforge.config.problems import flatten
from visionforge.config.schema import RunSettings
from visionforge.engine.setting_facts import explain_setting
from visionforge.engine.validation import trainer_flags

LEAVES = [path for path, field in flatten(RunSettings).items() if not hasattr(field.annotation, "model_fields")]


@pytest.mark.parametrize("path", [*LEAVES, *(f"trainer.{flag}" for flag in trainer_flags())])
def test_every_setting_is_explained(path):
    found = explain_setting(path)
    assert found.setting == path
    assert found.means
    assert found.allowed
    assert json.dumps(found.as_dict())
    assert found.lines()[0] == path


@pytest.mark.parametrize("page", sorted(set(SETTINGS.values())))
def test_pages_and_their_headings_exist(page):
    name, _, anchor = page.partition("#")
    text = (Path(REPOSITORY) / "docs" / name).read_text(encoding="utf-8")
    headings = {
        re.sub(r"[^a-z0-9 -]", "", line.lstrip("# ").lower()).replace(" ", "-")
        for line in text.splitlines()
        if line.startswith("#")
    }
    assert not anchor or anchor in headings


def test_what_is_told(capsys):
    assert main(["explain-setting", "--model.optimizer.nesterov".removeprefix("--"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["kinds"] == ["sgd", "muon"]
    assert found["identifies"]
    assert not explain_setting("data.num_workers").identifies
    assert "data.force_rgb" in explain_setting("model.backbone.pretrained").related
    assert explain_setting("--data.batch_size") == explain_setting("data.batch_size")
    assert main(["explain-setting", "model.mixup.alpha"]) == 0
    assert "allowed     a number, 0 to 1" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("model.mixup", "setting: model.mixup is a section, with model.mixup.name, "),
        ("trainer.max_epoch", "setting: trainer.max_epoch is no setting; nearest: trainer.max_epochs"),
        ("nonsense", "setting: nonsense is no setting"),
        ("zzzzz", "setting: zzzzz is no setting; `visionforge fit --help all` tells of all"),
        ("lr", "setting: lr is no setting; nearest: model.optimizer.learning_rate"),
        ("mixup", "setting: mixup is the section model.mixup, with model.mixup.name, "),
    ],
)
def test_what_is_none_is_one_line(path, line):
    with pytest.raises(SettingsError) as caught:
        explain_setting(path)
    assert caught.value.problems[0].startswith(line)


def test_what_is_told_beside_the_schema_is_of_settings_that_exist():
    known = {*LEAVES, *(f"trainer.{flag}" for flag in trainer_flags())}
    assert {*SOURCES} <= known
    for what, group in TOGETHER.items():
        assert set(group) <= known, what
        assert len(set(group)) == len(group) > 1
    assert all(re.fullmatch(r".+, (19|20)\d\d, .+", source) for source in SOURCES.values())


def test_source_and_what_a_setting_acts_with():
    told = explain_setting("model.mixup.cutmix_alpha")
    assert told.source == "Yun et al., 2019, arXiv:1905.04899"
    assert "model.mixup.cutmix_prob" in told.acts_with["how images are mixed"]
    assert any(line.startswith("  acts with") and line.endswith("(how images are mixed)") for line in told.lines())
    assert explain_setting("log_level").acts_with == {}
    assert not any("source" in line.split() for line in explain_setting("log_level").lines())
