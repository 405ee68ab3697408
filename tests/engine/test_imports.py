"""Modules that are named give their backbones by name, and belong to the identity of a run."""

import json
import sys
from pathlib import Path

import pytest
import yaml

import visionforge as vf
from tests.conftest import flags, run_folders
from tests.engine.test_one_parse import nested
from tests.security.harness import attack
from visionforge.cli.main import main
from visionforge.config.imports import MARK
from visionforge.models import registry

RUN = """
import visionforge.models.mini_cnn as mini
from visionforge.models.registry import BackboneEntry, register_backbone

def build(*args, **kwargs):
    return mini.build_mini_cnn(*args, **kwargs)

register_backbone(BackboneEntry(name="of_mine", builder=build, description="mine", stride=4, head="head."))
# {note}
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    monkeypatch.setattr(registry, "_ENTRIES", dict(registry._ENTRIES))
    path = tmp_path / "mine_for_tests.py"
    path.write_text(RUN.replace("{note}", "one"))
    yield path
    sys.modules.pop("mine_for_tests", None)


@pytest.mark.parametrize("form", ["name", "file", "yaml"])
def test_a_backbone_of_a_module_is_known_by_name(module, tmp_path, form):
    given = {"name": ["--import", "mine_for_tests"], "file": ["--import", str(module)], "yaml": ["--config", "x.yaml"]}
    (tmp_path / "x.yaml").write_text(yaml.safe_dump({"imports": ["mine_for_tests"]}))
    outputs = tmp_path / "o"
    command = flags(trainer__default_root_dir=outputs, trainer__max_epochs=1, model__backbone__name="of_mine")
    assert main(["fit", *given[form], *command]) == 0
    (run,) = run_folders(outputs)
    (named,) = yaml.safe_load((run / "config.yaml").read_text())["imports"]
    assert named.partition(MARK)[0] == given[form][1].replace("x.yaml", "mine_for_tests")
    assert main(["test", "--run", str(run), *given[form]]) == 0
    assert str(tmp_path) not in sys.path


def test_another_content_is_another_run_and_none_is_gone_on_with(module, tmp_path, capsys):
    trainer = {"default_root_dir": tmp_path / "o", "max_epochs": 1}
    settings = {"model": {"backbone": {"name": "of_mine"}}, "trainer": trainer, "imports": [str(module)]}
    one = vf.fit(nested(), **settings)
    manifest = json.loads((one.path / "run.json").read_text())
    (one.path / "run.json").write_text(json.dumps({**manifest, "state": "interrupted"}))
    module.write_text(RUN.replace("{note}", "two"))
    assert main(["fit", "--resume", str(one.path)]) == 2
    assert "take back the change" in capsys.readouterr().err
    assert vf.fit(nested(), **settings).hash != one.hash


def test_the_same_registration_again_is_no_error(module):
    entry = registry.backbone_entry("mini_cnn")
    with pytest.raises(ValueError, match="registered already"):
        vf.register_backbone(entry)
    exec(compile(module.read_text(), "cell", "exec"), {"__name__": "cell"})
    exec(compile(module.read_text(), "cell", "exec"), {"__name__": "cell"})
    assert registry.backbone_entry("of_mine").name == "of_mine"


@pytest.mark.parametrize(
    ("content", "said"),
    [(None, "cannot be imported (ModuleNotFoundError"), ("1/0", "cannot be imported (ZeroDivisionError: ")],
)
def test_mistakes_are_one_line(refuse, tmp_path, content, said):
    if content is not None:
        (tmp_path / "broken_for_tests.py").write_text(content)
    (line,) = refuse("fit", *flags(), "--import", "broken_for_tests", keeps=("__pycache__",))
    assert said in line
    assert "broken_for_tests" not in sys.modules


@pytest.mark.slow
def test_a_strangers_imports_are_not_imported(quick_run, tmp_path):
    import shutil

    theirs = tmp_path / "theirs"
    shutil.copytree(quick_run, theirs)
    (tmp_path / "evil_for_tests.py").write_text("from pathlib import Path\nPath('ran').touch()\n")
    config = yaml.safe_load((theirs / "config.yaml").read_text())
    (theirs / "config.yaml").write_text(yaml.safe_dump({**config, "imports": ["evil_for_tests"]}))
    for command in (["test", "--run", "theirs"], ["reproduce", "theirs"], ["fit", "--resume", "theirs"]):
        outcome = attack(*command, folder=tmp_path, timeout_s=120)
        assert not Path(tmp_path / "ran").exists()
        if command[0] != "test":
            assert outcome.status == 2
    assert "imports: evil_for_tests" in attack("reproduce", "theirs", folder=tmp_path, timeout_s=120).err


def test_light_commands_import_what_is_named(module, tmp_path, capsys):
    assert main(["models", "list", "of_*", "--import", str(module)]) == 0
    assert "of_mine" in capsys.readouterr().out
    for command in ("predict", "explain", "robustness", "export"):
        sys.modules.pop("mine_for_tests", None)
        registry._ENTRIES.pop("of_mine", None)
        given = ["--run", "none", *([] if command in ("robustness", "export") else ["--images", str(tmp_path)])]
        assert main([command, *given, "--import", "mine_for_tests"]) == 2
        assert "of_mine" in registry._ENTRIES


def test_light_commands_name_the_flag_of_what_cannot_be_imported(refuse):
    (line,) = refuse("models", "info", "resnet18", "--import", "nowhere_to_be_found")
    assert line.startswith("--import: nowhere_to_be_found: cannot be imported")
