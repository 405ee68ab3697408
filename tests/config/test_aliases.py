"""Words of other tools are answered with the command to type, which works."""

import shlex

import pytest

from tests.conftest import flags
from visionforge.cli.main import COMMANDS as OWN_COMMANDS
from visionforge.cli.main import main
from visionforge.config import aliases
from visionforge.config.aliases import COMMANDS, SETTINGS, command_meant, refuse_other_words
from visionforge.config.problems import flatten
from visionforge.config.schema import RunSettings
from visionforge.engine.validation import trainer_flags
from visionforge.errors import SettingsError


def line(capsys, *arguments):
    assert main(list(arguments)) == 2
    (found,) = capsys.readouterr().err.splitlines()
    return found.removeprefix("error: ")


def test_every_alias_means_something_that_exists():
    known = {*flatten(RunSettings), *(f"trainer.{flag}" for flag in trainer_flags())}
    meant = {*SETTINGS.values(), *aliases._OF_COMMAND["tune"].values(), *(s for s, _ in aliases._SWITCHES.values())}
    assert sorted(meant - known) == []
    assert sorted({text.split()[0] for text in COMMANDS.values()} - {*OWN_COMMANDS, "--help", "--version"}) == []
    assert not {*COMMANDS} & {*OWN_COMMANDS}
    assert not {*SETTINGS} & {*RunSettings.model_fields}


@pytest.mark.parametrize(
    ("arguments", "meant"),
    [
        (["train"], "visionforge fit"),
        (["train", "--epochs", "3", "--lr=0.1"], "--trainer.max_epochs 3 --model.optimizer.learning_rate=0.1"),
        (["fit", "--batch-size", "64", "--model", "resnet18"], "--data.batch_size 64 --model.backbone.name resnet18"),
        (["fit", "--data", "digits", "--no_tta"], "visionforge fit --data.dataset digits --model.tta=off"),
        (["fit", "--config", "quickstart", "--epochs", "3"], "fit --config quickstart --trainer.max_epochs 3"),
        (["tune", "--epochs", "3", "--n_trials", "5"], "visionforge tune --tune.epochs 3 --tune.n_trials 5"),
        (["evaluate", "--run", "a b"], "visionforge test --run 'a b'"),
        (["sweep", "--trials", "5"], "visionforge tune --tune.n_trials 5"),
        (["help"], "visionforge --help"),
        (["fit", "one/photos", "--epochs", "3"], "type: visionforge fit one/photos --trainer.max_epochs 3"),
        (["import", "photos/", "--resolution", "64"], "type: visionforge datasets import photos/ --resolution 64"),
        (["fit", "--amp", "--data.force_rgb", "true"], "--trainer.precision=auto --data.force_rgb true"),
        (["fit", "--amp", "true", "--epochs", "3"], "fit --trainer.precision=auto --trainer.max_epochs 3"),
        (["embed", "--output", "x.npz", "--batch", "4"], "visionforge embed --output x.npz --data.batch_size 4"),
    ],
)
def test_the_command_to_type_is_told(capsys, arguments, meant):
    assert meant in line(capsys, *arguments)


def test_what_is_told_can_be_typed(tmp_path, capsys):
    told = line(
        capsys, "train", *flags(trainer__default_root_dir=tmp_path)[:-2], "--epochs", "1", "--output", str(tmp_path)
    )
    command = shlex.split(told.partition("type: ")[2])
    assert command[0] == "visionforge"
    assert main(command[1:]) == 0
    assert any(path.name.startswith("2") for path in tmp_path.iterdir())


@pytest.mark.parametrize(
    "arguments",
    [
        ["--model", "my.yaml"],
        ["--data={dataset: digits}"],
        ["--workers", "2"],
        ["--trainer.max_epochs", "3"],
        ["--config", "train"],
        [],
    ],
)
def test_what_is_ours_is_left_alone(arguments):
    refuse_other_words("fit", arguments, own=("workers",))


def test_a_flag_that_is_no_flag_of_the_command_is_answered():
    with pytest.raises(SettingsError, match=r"--workers: .*type: visionforge fit --data\.num_workers 2"):
        refuse_other_words("fit", ["--workers", "2"])
    assert command_meant("nonsense", []) is None


def test_a_folder_as_a_data_set_is_answered_with_the_import(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "My Photos").mkdir()
    found = line(capsys, "fit", "--data.dataset", "./My Photos")
    assert "`visionforge datasets import './My Photos' --name my_photos`, then --data.dataset my_photos" in found
