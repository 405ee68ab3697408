"""Scripts by which shells complete commands, flags, settings, and the names of data sets, backbones and runs."""

import argparse
import shlex
from collections.abc import Iterable
from functools import cache
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

SHELLS = ("bash", "zsh", "fish")
RUNS = ("--run", "--resume", "--trust")  # flags that name a run
_FOLDERS = "ls outputs/*/run.json 2>/dev/null | cut -d / -f 2"


def completion_script(shell: str) -> str:
    """Return the script of a shell.

    Args:
        shell: ``bash``, ``zsh`` or ``fish``.
    """
    if shell == "fish":
        return _fish()
    start = (
        "autoload -U +X compinit && compinit\nautoload -U +X bashcompinit && bashcompinit\n" if shell == "zsh" else ""
    )
    return start + _bash()


def _bash() -> str:
    settings, values = _settings(), _values()
    flags = "\n".join(f"        {name}) words={shlex.quote(' '.join(words))} ;;" for name, words in _flags().items())
    given = "\n".join(
        f"        {command}:{flag}) words={shlex.quote(' '.join(words))} ;;"
        for command, flags in {**_choices(), "*": values}.items()
        for flag, words in flags.items()
    )
    return f"""\
_visionforge() {{
    local cur="${{COMP_WORDS[COMP_CWORD]}}" prev="${{COMP_WORDS[COMP_CWORD-1]}}" command="${{COMP_WORDS[1]}}" words=""
    local settings={shlex.quote(" ".join(settings))}
    if [ "$COMP_CWORD" -eq 1 ]; then
        words={shlex.quote(" ".join(_summaries()))}
    else
        case "$command:$prev" in
        {"|".join(f"*:{flag}" for flag in RUNS)}) words="$({_FOLDERS})" ;;
{given}
        *) case "$command" in
{flags}
        esac ;;
        esac
        case "$words" in *" SETTINGS"|SETTINGS) words="${{words%SETTINGS}}$settings" ;; esac
    fi
    COMPREPLY=( $(compgen -W "$words" -- "$cur") )
}}
complete -o default -F _visionforge visionforge
"""


def _fish() -> str:
    lines = [
        f"complete -c visionforge -n __fish_use_subcommand -f -a {name} -d {shlex.quote(text)}"
        for name, text in _summaries().items()
    ]
    values, choices = _values(), _choices()
    for name, words in _flags().items():
        of_flag = {**values, **choices.get(name, {})}
        seen = f"complete -c visionforge -n '__fish_seen_subcommand_from {name}'"
        flags = [flag for word in words for flag in (_settings() if word == "SETTINGS" else [word])]
        for flag in flags:
            if not flag.startswith("--"):
                lines.append(f"{seen} -f -a {flag}")
            elif flag in RUNS:
                lines.append(f'{seen} -l {flag[2:]} -x -a "({_FOLDERS})"')
            else:
                given = f" -a {shlex.quote(' '.join(of_flag[flag]))}" if flag in of_flag else ""
                lines.append(f"{seen} -l {flag[2:]} -r{given}")
    return "\n".join(lines) + "\n"


def _summaries() -> dict[str, str]:
    from visionforge.cli.commands import commands

    return {name: command.summary for name, command in commands().items()}


def _flags() -> dict[str, list[str]]:
    """Return command → its flags and first words; the word SETTINGS stands for those of a configuration."""
    from visionforge.cli.help import OF_STAGE
    from visionforge.config.loading import OF_EVERY_COMMAND

    found: dict[str, list[str]] = {}
    for name, parsers in _parsers().items():
        words = [word for word in parsers if word]
        words += dict.fromkeys(flag for each in parsers.values() for flag in _options(each))
        if name in OF_STAGE:
            words += [f"--{flag}" for flag in OF_STAGE[name]] + ["SETTINGS"]
        found[name] = list(dict.fromkeys([*OF_EVERY_COMMAND, *words]))
    return found


@cache
def _parsers() -> dict[str, dict[str, argparse.ArgumentParser]]:
    """Return command → its own parser, under an empty word, and those of its first words."""
    from importlib import import_module

    from visionforge.cli.commands import commands

    found: dict[str, dict[str, argparse.ArgumentParser]] = {}
    for name in commands():
        module = import_module(f"visionforge.cli.commands.{name.replace('-', '_')}")
        found[name] = {"": module.parser()} if hasattr(module, "parser") else {}
        if hasattr(module, "subcommands"):
            found[name] |= module.subcommands().parser._subparsers._group_actions[0].choices
    return found


def _choices() -> dict[str, dict[str, list[str]]]:
    """Return command → its flag → the words of which one follows it."""
    found: dict[str, dict[str, list[str]]] = {}
    for name, parsers in _parsers().items():
        for action in (action for each in parsers.values() for action in each._actions):
            known = found.setdefault(name, {})
            for flag in action.option_strings if action.choices else ():
                known[flag] = list(dict.fromkeys([*known.get(flag, []), *map(str, action.choices or ())]))
    return found


def _options(parser: argparse.ArgumentParser) -> list[str]:
    return [flag for action in parser._actions for flag in action.option_strings if flag.startswith("--")]


def _settings() -> list[str]:
    from visionforge.config.problems import leaves
    from visionforge.config.schema import RunSettings
    from visionforge.engine.validation import trainer_flags

    paths = dict.fromkeys([*leaves(RunSettings), *(f"trainer.{flag}" for flag in trainer_flags())])
    return [f"--{path}" for path in paths]


def _values() -> dict[str, list[str]]:
    """Return flag → what may follow it, where that is a list of words."""
    from visionforge.config.problems import flatten
    from visionforge.config.schema import RunSettings
    from visionforge.config.shipped import shipped_files
    from visionforge.data.registry import dataset_names
    from visionforge.models.registry import backbone_names

    found = {f"--{path}": words for path, field in flatten(RunSettings).items() if (words := _words(field.annotation))}
    names = {"--config": shipped_files(), "--data.dataset": dataset_names(), "--model.backbone.name": backbone_names()}
    return {**found, **{flag: sorted(each) for flag, each in names.items()}}


def _words(annotation: Any) -> list[str]:
    origin = get_origin(annotation)
    if annotation is bool:
        return ["true", "false"]
    if origin is Literal:
        return [str(value) for value in get_args(annotation)]
    if origin in (Union, UnionType):
        parts: Iterable[Any] = (part for part in get_args(annotation) if part is not type(None))
        return [word for part in parts for word in _words(part)]
    return []
