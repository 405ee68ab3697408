"""The variables of containers: strict mode is in the configuration and in run.json, and no folder is out of reach."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from tests.conftest import flags, run_folders
from visionforge.cli.main import main
from visionforge.config.environment import (
    in_container,
    is_strict,
    prepare_environment,
    warn_of_environment,
)
from visionforge.config.loading import read_arguments
from visionforge.errors import SettingsError


@pytest.fixture(autouse=True)
def bare(monkeypatch):
    """No variable of a container is set."""
    for name in ("IN_DOCKER", "DOCKER_REPRODUCIBILITY_MODE", "CUBLAS_WORKSPACE_CONFIG", "PYTHONHASHSEED"):
        monkeypatch.setenv(name, "")  # so that what the program sets is undone
        monkeypatch.delenv(name)


@pytest.fixture
def strict(monkeypatch):
    """Strict mode."""
    monkeypatch.setenv("DOCKER_REPRODUCIBILITY_MODE", "TRUE")


@pytest.mark.parametrize("name", ["IN_DOCKER", "DOCKER_REPRODUCIBILITY_MODE"])
def test_switches_are_read_as_people_write_them(monkeypatch, name):
    read = {"IN_DOCKER": in_container, "DOCKER_REPRODUCIBILITY_MODE": is_strict}[name]
    assert not read()
    for text in ("TRUE", "true", "1", "yes", "on", "0", "FALSE", "no", "off", ""):
        monkeypatch.setenv(name, text)
        assert read() is (text in ("TRUE", "true", "1", "yes", "on"))
    monkeypatch.setenv(name, "maybe")
    with pytest.raises(SettingsError, match=rf"^\${name}: 'maybe' is not allowed; allowed: TRUE, FALSE$"):
        read()


def test_nothing_changes_out_of_strict_mode():
    assert read_arguments(["--a", "b"]).values == {"a": "b"}
    assert "CUBLAS_WORKSPACE_CONFIG" not in os.environ


@pytest.mark.usefixtures("strict")
def test_defaults_come_first():
    read = read_arguments(["--a", "b", "--data.num_workers", "2"])
    assert read.values == {"trainer": {"deterministic": True}, "data": {"num_workers": 2}, "a": "b"}
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"


@pytest.mark.usefixtures("strict")
def test_workspaces_that_do_not_repeat_are_refused(monkeypatch, refuse):
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")
    read_arguments([])
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":16:8"
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":0:0")
    for stage in ("fit", "tune"):
        (line,) = refuse(stage, *flags())
        assert line.startswith("$CUBLAS_WORKSPACE_CONFIG: ':0:0' is not allowed")


@pytest.mark.usefixtures("strict")
@pytest.mark.parametrize("stage", ["fit", "test", "tune"])
@pytest.mark.parametrize(("value", "shown"), [("false", "false"), ("warn", "'warn'"), ("null", "null")])
def test_another_value_on_the_command_line_is_refused(refuse, stage, value, shown):
    (line,) = refuse(stage, *flags(trainer__deterministic=value))
    assert line == (
        f"trainer.deterministic: {shown} is not allowed (on the command line), because DOCKER_REPRODUCIBILITY_MODE is "
        "set; allowed: true"
    )


@pytest.mark.usefixtures("strict")
def test_another_value_in_a_file_is_refused(refuse, tmp_path):
    (tmp_path / "mine.yaml").write_text("trainer: {deterministic: false}\n")
    (line,) = refuse("fit", *flags(), "--config", "mine.yaml")
    assert "is not allowed (in mine.yaml), because" in line


@pytest.mark.usefixtures("strict")
def test_file_keeps_its_other_settings_and_its_workers(tmp_path, capsys):
    (tmp_path / "mine.yaml").write_text("trainer: {min_epochs: 1}\ndata: {num_workers: 1}\n")
    assert main(["fit", *flags(), "--config", "mine.yaml", "--print_config"]) == 0
    printed = yaml.safe_load(capsys.readouterr().out)
    assert printed["trainer"]["min_epochs"] == 1
    assert printed["trainer"]["deterministic"] is True
    assert printed["data"]["num_workers"] == 1


@pytest.mark.slow
def test_run_of_strict_mode_says_so(tmp_path):
    environment = {**os.environ, "DOCKER_REPRODUCIBILITY_MODE": "TRUE", "IN_DOCKER": "TRUE"}
    command = [sys.executable, "-m", "visionforge", "fit", *flags(trainer__max_epochs=1)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (run,) = run_folders(tmp_path / "outputs")
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert config["trainer"]["deterministic"] is True
    assert config["data"]["num_workers"] == 0
    (session,) = json.loads((run / "run.json").read_text())["sessions"]
    recorded = {"IN_DOCKER": "TRUE", "DOCKER_REPRODUCIBILITY_MODE": "TRUE", "CUBLAS_WORKSPACE_CONFIG": ":4096:8"}
    assert recorded.items() <= session["environment"].items()
    assert session["switches"]["deterministic_algorithms"] is True
    for place in (done.stderr, (run / "run.log").read_text()):
        assert place.count("PYTHONHASHSEED is not set") == 1


@pytest.mark.parametrize("variables", [{"PYTHONHASHSEED": "42", "DOCKER_REPRODUCIBILITY_MODE": "1"}, {}])
def test_no_warning_where_none_is_due(variables, monkeypatch, caplog):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    warn_of_environment()
    assert not caplog.records


@pytest.mark.usefixtures("strict")
def test_evaluation_of_a_run_that_was_not_strict_is(plain_run, tmp_path):
    run = tmp_path / "outputs" / plain_run.name
    shutil.copytree(plain_run, run)
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["trainer"]["deterministic"] = False
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    torch.use_deterministic_algorithms(False)
    assert main(["test", "--run", str(run)]) == 0
    assert torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(False)


# --- folders


@pytest.fixture
def container(monkeypatch, tmp_path) -> Path:
    """A container whose image names no folder; its temporary folder can be written."""
    monkeypatch.setenv("IN_DOCKER", "TRUE")
    for name in ("HOME", "XDG_CACHE_HOME", "TORCH_HOME", "MPLCONFIGDIR", "LOGNAME"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


def test_nothing_changes_out_of_a_container(container, monkeypatch):
    monkeypatch.delenv("IN_DOCKER")
    before = dict(os.environ)
    prepare_environment()
    assert os.environ == before


def test_container_without_a_home_folder_has_folders(container):
    prepare_environment()
    assert os.environ["HOME"] == str(container)
    assert os.environ["TORCH_HOME"] == str(container / ".cache" / "torch")
    assert os.environ["MPLCONFIGDIR"] == str(container / ".cache" / "matplotlib")


def test_home_that_cannot_be_written_is_left(container, monkeypatch):
    (container / "file").touch()  # which stops root, too
    monkeypatch.setenv("HOME", str(container / "file"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(container / "file" / "cache"))
    prepare_environment()
    assert os.environ["HOME"] == str(container)
    assert os.environ["XDG_CACHE_HOME"] == str(container / ".cache")


def test_folders_that_the_user_names_stay(container, monkeypatch):
    monkeypatch.setenv("HOME", str(container / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(container / "cache"))
    monkeypatch.setenv("TORCH_HOME", "/weights/read/only")
    prepare_environment()
    assert os.environ["HOME"] == str(container / "home")
    assert os.environ["TORCH_HOME"] == "/weights/read/only"
    assert os.environ["MPLCONFIGDIR"] == str(container / "cache" / "matplotlib")


def test_bad_switch_is_one_line(monkeypatch, refuse):
    monkeypatch.setenv("IN_DOCKER", "perhaps")
    (line,) = refuse("fit", *flags())
    assert line == "$IN_DOCKER: 'perhaps' is not allowed; allowed: TRUE, FALSE"


FAULTS = """
import resource, sys
import numpy as np
from visionforge.config.environment import keep_freed_memory
kept = keep_freed_memory()
np.ones(50_000_000, np.uint8)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    np.ones(50_000_000, np.uint8)
print(kept, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(**variables):
    """Return whether freed memory is kept, and how many pages ten arrays of 50 MB cost."""
    own = {key: value for key, value in os.environ.items() if not key.startswith("MALLOC_")}
    for name in ("GLIBC_TUNABLES", "LD_PRELOAD"):
        own.pop(name, None)
    done = subprocess.run(
        [sys.executable, "-c", FAULTS], env={**own, **variables}, capture_output=True, text=True, check=True
    )
    kept, count = done.stdout.split()
    return kept, int(count)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="asks glibc")
def test_freed_memory_is_used_again_unless_the_user_has_chosen_how_to_allocate():
    kept, few = faults()
    assert kept == "True"
    left, many = faults(MALLOC_ARENA_MAX="4")
    assert left == "False"
    assert faults(GLIBC_TUNABLES="glibc.malloc.arena_max=4")[0] == "False"
    assert few < many / 3  # each array anew is 12,000 pages, or fewer large ones
