"""What shells complete is what the commands take."""

import shutil
import subprocess

import pytest

from visionforge.cli.commands import commands
from visionforge.cli.completion import _flags, _settings, _values, completion_script
from visionforge.cli.main import main
from visionforge.data.registry import dataset_names

ASK = "COMP_WORDS=({words}); COMP_CWORD=$((${{#COMP_WORDS[@]}}-1)); _visionforge; printf '%s\\n' \"${{COMPREPLY[@]}}\""


@pytest.fixture(scope="module")
def script(tmp_path_factory):
    path = tmp_path_factory.mktemp("completion") / "visionforge.bash"
    path.write_text(completion_script("bash"))
    return path


def completed(script, *words, cwd=None):
    quoted = " ".join(f"'{word}'" for word in ("visionforge", *words))
    command = f"source {script}; {ASK.format(words=quoted)}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True, cwd=cwd)
    assert not done.stderr
    return done.stdout.split()


def test_commands_and_what_they_can_do(script):
    assert completed(script, "") == list(commands())
    assert completed(script, "datasets", "re") == ["remove"]
    assert "--older-than" in completed(script, "runs", "clean", "--o")


def test_settings_and_their_values(script):
    assert completed(script, "fit", "--data.data") == ["--data.dataset"]
    assert completed(script, "fit", "--trainer.max_ep") == ["--trainer.max_epochs"]
    assert completed(script, "doctor", "--data.data") == []
    assert completed(script, "fit", "--model.optimizer.name", "") == ["sgd", "adamw", "muon"]
    assert completed(script, "fit", "--model.backbone.pretrained", "") == ["true", "false", "auto"]
    assert completed(script, "tune", "--data.dataset", "blood") == ["bloodmnist"]
    assert "fastnet" in completed(script, "fit", "--model.backbone.name", "f")
    assert "quickstart" in completed(script, "fit", "--config", "qu")


def test_words_after_a_flag_of_a_command(script):
    assert completed(script, "export", "--format", "o") == ["onnx"]
    assert completed(script, "datasets", "import", "photos", "--rotation", "") == ["none", "small", "any"]
    assert completed(script, "submit", "--scheduler", "k") == ["kubernetes"]
    assert completed(script, "datasets", "import", "photos", "--fit", "c") == ["crop"]
    assert completed(script, "fit", "--format", "o") == []


def test_runs_of_this_folder(script, tmp_path):
    for name in ("20260101_a_b_000000", "no_run"):
        (tmp_path / "outputs" / name).mkdir(parents=True)
    (tmp_path / "outputs" / "20260101_a_b_000000" / "run.json").touch()
    assert completed(script, "test", "--run", "", cwd=tmp_path) == ["20260101_a_b_000000"]
    assert completed(script, "test", "--run", "", cwd=tmp_path / "outputs") == []


def test_every_word_is_one_of_the_command_line():
    known = {*_settings()}
    assert all(flag in known or flag == "--config" for flag in _values())
    for name, words in _flags().items():
        assert all(
            word.startswith("--") or word == "SETTINGS" or name in ("datasets", "models", "runs") for word in words
        )
    assert set(_values()["--data.dataset"]) == set(dataset_names())


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_read_theirs(tmp_path, shell, capsys):
    assert main(["completion", shell]) == 0
    (tmp_path / "script").write_text(capsys.readouterr().out)
    if shutil.which(shell) is None:
        pytest.skip(f"no {shell}")
    command = {
        "zsh": ["zsh", "-f", "-c", f"source {tmp_path / 'script'}; whence -w _visionforge"],
        "fish": [
            "fish",
            "--no-config",
            "-c",
            f"source {tmp_path / 'script'}; complete -C 'visionforge fit --data.data'",
        ],
    }[shell]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split()[0] in ("_visionforge:", "--data.dataset")


def test_an_unknown_shell_is_one_line(capsys):
    assert main(["completion", "tcsh"]) == 2
    assert "invalid choice: 'tcsh'" in capsys.readouterr().err
