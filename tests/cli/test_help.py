"""`--help` of every command names every flag that the command takes."""

import argparse
import re

import pytest

from visionforge.cli.commands import (
    audit,
    completion,
    datasets,
    doctor,
    embed,
    ensemble,
    explain,
    explain_setting,
    export,
    init,
    models,
    predict,
    pull,
    push,
    reproduce,
    robustness,
    runs,
    serve,
    smoke,
    submit,
)
from visionforge.cli.help import OF_STAGE, VALUES
from visionforge.cli.main import COMMANDS, main
from visionforge.config.loading import SWITCHES
from visionforge.config.problems import flatten
from visionforge.config.schema import BenchmarkSettings, ProbeSettings, RunSettings, TuneSettings
from visionforge.engine.validation import trainer_flags

LIGHTNING = ("fit", "validate", "test", "predict")
GROUPS = {"datasets": datasets, "models": models, "runs": runs}
PARSERS = {
    "audit": audit,
    "completion": completion,
    "doctor": doctor,
    "ensemble": ensemble,
    "explain": explain,
    "explain-setting": explain_setting,
    "export": export,
    "init": init,
    "pull": pull,
    "push": push,
    "reproduce": reproduce,
    "robustness": robustness,
    "serve": serve,
    "smoke": smoke,
    "submit": submit,
}
OWN = {  # what is read before a parser is asked, and what a parser of Lightning's takes beside the settings
    "fit": {"--minutes", "--name", "--seeds", "--folds", "--workers", "--distill", "--profile", "--resume", "--import"},
    "validate": {"--run", "--import"},
    "test": {"--run", "--import"},
    "predict": {"--run", "--images", "--import"},
    "probe": {"--run", "--seeds", "--folds", "--config"},
    "embed": {"--run", "--import"},
    "tune": {"--report", "--folds", "--config"},
    "benchmark": {"--suite", "--workers", "--list", "--leaderboard_only", "--retry_failed", "--config"},
}


def shown(capsys, *arguments: str, topic: tuple[str, ...] = ()) -> set[str]:
    """Return the flags that the help of a command names."""
    assert main([*arguments, "--help", *topic]) == 0
    output = capsys.readouterr()
    assert output.err == ""
    found = re.findall(r"(?<![\w.-])--?[a-z_][\w.-]*\w|(?<![\w-])-[a-z]\b", output.out)
    return {name[:2] + name[2:].replace("-", "_") for name in found}


def options(parser: argparse.ArgumentParser) -> set[str]:
    names = {name for action in parser._actions for name in action.option_strings}
    return {name[:2] + name[2:].replace("-", "_") for name in names}


@pytest.mark.parametrize("command", LIGHTNING)
def test_commands_of_lightning(capsys, command):
    flags = shown(capsys, command, topic=("all",))
    settings = {path for path in flatten(RunSettings) if not path.startswith(("tune", "benchmark", "probe"))}
    settings -= {path for path in settings if any(other.startswith(f"{path}.") for other in settings)}
    settings -= {"resume"} if command != "fit" else set()
    taken = {f"--{path}" for path in settings} | {f"--trainer.{name}" for name in trainer_flags()}
    taken |= OWN[command] | {"--config", "--print_config", "--help"}
    if command == "predict":
        taken |= options(predict.parser())
    assert taken <= flags, sorted(taken - flags)


@pytest.mark.parametrize("command", LIGHTNING)
def test_help_is_a_page_of_what_people_change(capsys, command):
    flags = shown(capsys, command)
    known = {f"--{path}" for path in flatten(RunSettings)} | {f"--trainer.{name}" for name in trainer_flags()}
    pictures = options(predict.parser()) if command == "predict" else set()
    assert flags - OWN[command] - pictures - {"--config", "--json", "--print_config", "--help", "-h"} <= known | {
        "--trust"
    }
    assert len({flag for flag in flags if "." in flag}) <= 35
    assert all(flag in flags for flag in ("--data.dataset", "--model.backbone.name", "--trainer.accelerator"))


def test_help_of_a_section(capsys, refuse):
    assert shown(capsys, "fit", topic=("model.schedule",)) - {"--config"} == {
        f"--{path}" for path in flatten(RunSettings) if path.startswith("model.schedule.")
    }
    assert "--trainer.val_check_interval" in shown(capsys, "fit", topic=("trainer",))
    (line,) = refuse("fit", "--help", "model.shedule")
    assert line.startswith("--help: model.shedule is no section or setting; nearest: model.schedule")


def test_help_of_a_list_tells_the_settings_of_its_items_which_have_no_flags(capsys):
    for topic in ("data.augmentation", "data.augmentation.operations", "all"):
        assert main(["fit", "--help", topic]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert "  data.augmentation.operations[].sigma  (default 0.1)" in lines
        assert "  data.augmentation.operations[].name  (needed)" in lines
        assert not any(line.startswith("  --data.augmentation.operations[") for line in lines)


@pytest.mark.parametrize("command", [*PARSERS, *GROUPS])
def test_commands_with_parsers_of_their_own(capsys, command):
    parser = PARSERS[command].parser() if command in PARSERS else GROUPS[command].subcommands().parser
    assert options(parser) <= shown(capsys, command)
    for action in parser._actions:
        for name, part in action.choices.items() if isinstance(action, argparse._SubParsersAction) else ():
            assert options(part) <= shown(capsys, command, name)


def test_what_is_no_setting_of_embed(capsys):
    flags = shown(capsys, "embed")
    assert options(embed.parser()) | OWN["embed"] | {"--ckpt_path", "--print_config"} <= flags
    assert {"--model.backbone.name", "--model.backbone.weights", "--data.dataset"} <= flags
    assert "--trainer.max_epochs" not in flags
    assert "--data.synthetic.train" in shown(capsys, "embed", topic=("all",))


def test_other_commands(capsys):
    assert set(COMMANDS) == {*LIGHTNING, *PARSERS, *GROUPS, *OWN}
    sections = (("tune", TuneSettings), ("benchmark", BenchmarkSettings), ("probe", ProbeSettings))
    for command in ("probe", "tune", "benchmark"):
        flags = shown(capsys, command)
        assert OWN[command] <= flags
        for name, section in sections:
            if command == name:
                assert {f"--{name}.{path}" for path in flatten(section)} <= flags
    assert options(predict.parser()) <= shown(capsys, "predict", "--images", "x")


def test_help_of_nothing_near_lists_the_sections(refuse):
    told = ["--help: qqqq is no section or setting; sections: data, model, evaluation, trainer; or all"]
    assert refuse("fit", "--help", "qqqq") == told
    assert refuse("tune", "--help", "modle")[0].startswith("--help: modle is no section or setting; nearest: model")


def test_help_of_a_search_tells_of_a_section(capsys):
    assert main(["tune", "--help", "model.schedule"]) == 0
    assert "--model.schedule.min_lr" in capsys.readouterr().out
    assert main(["tune", "--help", "tune.study"]) == 0
    assert "--tune.study" in capsys.readouterr().out


@pytest.mark.parametrize("columns", [60, 80, 300])
def test_help_fits_the_terminal(capsys, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    for topic in ([], ["model.backbone"], ["all"]):
        assert main(["fit", "--help", *topic]) == 0
        lines = capsys.readouterr().out.splitlines()
        long = [line for line in lines if len(line) > min(columns, 100) and not line.startswith("  visionforge ")]
        assert [line for line in long if len(line.split()) > 1] == []  # a name is not broken
        if columns == 60 and not topic:
            assert any(
                line.startswith("  visionforge fit --config") and len(line) > 60 for line in lines
            )  # to be copied


def test_help_shows_what_follows_a_flag_and_what_could_be_typed(capsys):
    for command in OF_STAGE:
        assert main([command, "--help"]) == 0
        told = capsys.readouterr().out
        assert ("Examples\n" in told) == bool(COMMANDS[command].examples)
        for name in OF_STAGE[command]:
            flag = "-h, --help" if name == "help" else f"--{name}"
            value = f" {VALUES[name]}" if name in VALUES else ""
            assert f"\n  {flag}{value}\n" in told
    assert {name for each in OF_STAGE.values() for name in each} >= set(VALUES)
    assert not set(VALUES) & set(SWITCHES)
