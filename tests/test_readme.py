"""The README's YAML is a valid configuration, and its commands parse."""

import re

import pytest
import yaml

from tests.conftest import REPOSITORY
from visionforge.config.loading import read_arguments
from visionforge.engine.validation import check_settings

README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^visionforge (fit .*?)(?:\s+#.*)?$", README, re.MULTILINE)


def test_yaml_is_a_valid_configuration():
    blocks = re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)
    assert blocks
    for block in blocks:
        check_settings(yaml.safe_load(block), "fit")


@pytest.mark.parametrize("command", COMMANDS)
def test_fit_commands_are_valid(command, monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    first, *rest = command.split()[1:]
    values = read_arguments(rest if not first.startswith("-") else [first, *rest]).values  # a source comes first
    values.pop("minutes", None)
    check_settings({name: value for name, value in values.items() if name not in ("seeds", "folds")}, "fit")


def test_runs_page_describes_every_key_of_the_manifest():
    from visionforge.runs.manifest import Manifest, Session

    page = (REPOSITORY / "docs" / "runs.md").read_text(encoding="utf-8")
    for model in (Manifest, Session):
        for name, field in model.model_fields.items():
            assert f"| `{name}` | {field.description} |" in page


def test_settings_page_has_the_declared_defaults_and_names():
    from visionforge.config import RunSettings
    from visionforge.config.problems import flatten

    page = (REPOSITORY / "docs" / "settings.md").read_text(encoding="utf-8")
    known = set(flatten(RunSettings))
    for name in re.findall(r"`((?:data|model|trainer)\.[a-z_.]+)`", page):
        if not name.startswith("trainer."):
            assert name in known, name


@pytest.mark.slow
def test_models_page_holds_the_measured_table():
    from visionforge.models.reference import models_table

    page = (REPOSITORY / "docs" / "models.md").read_text(encoding="utf-8")
    assert models_table() in page, "run: python -m visionforge.models.reference"


def test_settings_page_lists_what_the_digest_leaves_out():
    from visionforge.runs.config_hash import VOLATILE

    page = (REPOSITORY / "docs" / "settings.md").read_text(encoding="utf-8").split("## What a run's name covers")[1]
    for name, reason in VOLATILE.items():
        assert f"| `{name}` | {reason} |" in page
    assert {*re.findall(r"^\| `([a-z_.]+)` \| ", page.split("## All settings")[0], re.MULTILINE)} == set(VOLATILE)


def test_settings_page_holds_the_table_of_all_settings():
    from visionforge.config.reference import settings_table

    page = (REPOSITORY / "docs" / "settings.md").read_text(encoding="utf-8")
    assert settings_table() in page, "run: python -m visionforge.config.reference"
