"""Read a command line and its YAML files into one nested dictionary that remembers where each value was written.

This reading happens before any heavy import, so that all mistakes of a configuration are told at once and in a moment.
From here on settings travel as objects: nobody else sees an argument or a file.
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path, PurePath
from typing import Any

from pydantic import BaseModel

from visionforge.config.environment import strict_defaults, strict_problems
from visionforge.config.functions import with_names
from visionforge.config.problems import flatten
from visionforge.config.schema import RunSettings
from visionforge.config.schema.components import Component
from visionforge.config.shipped import FLAGS, described, require_config
from visionforge.config.stored import component_paths
from visionforge.errors import SettingsError
from visionforge.reading import UnreadableError, read_text, read_yaml_text

COMMAND_LINE = "on the command line"
IN_PYTHON = "in Python"
SETTINGS = "VISIONFORGE_RUN_SETTINGS"  # environment variable: what the first process trains
_RANKS = ("RANK", "SLURM_PROCID", "LOCAL_RANK")  # by which launchers number their processes
SWITCHES = (  # flags that need no value
    "exclusive_device",
    "distill",
    "profile",
    "list",
    "leaderboard_only",
    "retry_failed",
)
OF_EVERY_COMMAND = ("--quiet", "--debug")  # flags that are taken before a command sees its arguments
_HELP, _PRINT, _JSON = ("--help", "-h"), "--print_config", "--json"
_OWN = frozenset(
    ("run", "minutes", "name", "seeds", "folds", "workers", "distill", "profile", "trust", "report")
)  # flags of commands, no settings
_YES, _NO = ("true", "yes", "on"), ("", "false", "no", "off", "none")
_NULLS = ("null", "~", "Null", "NULL", "")


def switched(flag: str, given: object) -> bool:
    """Return whether a flag that needs no value is on; None is off.

    Raises:
        SettingsError: If what is given is no switch.
    """
    text = str("" if given is None else given).strip().lower()
    if text not in (*_YES, *_NO):
        raise SettingsError(f"{flag}: {given} is not allowed; allowed: true or false")
    return text in _YES


def is_first_process() -> bool:
    """Return whether this process makes the files, as far as the launchers' variables tell."""
    return next((int(os.environ[name]) for name in _RANKS if os.environ.get(name, "").isdigit()), 0) == 0


@dataclass
class RawConfig:
    """Merged settings before validation.

    Attributes:
        values: The nested settings; a later file or flag has won over an earlier one.
        sources: Dotted path → where it was written, for error messages.
        help: What help is asked for: a topic, or an empty text; None if none is.
        print_config: How the configuration is to be printed: flags, or an empty text; None if it is not.
        json: Whether the result is to be printed as JSON.
    """

    values: dict[str, Any] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)
    help: str | None = None
    print_config: str | None = None
    json: bool = False

    def copy(self) -> "RawConfig":
        """Return a copy whose changes leave this one alone."""
        return RawConfig(_branches(self.values), dict(self.sources), self.help, self.print_config, self.json)

    def over(self, tree: Mapping[str, Any], source: str) -> "RawConfig":
        """Return these settings with others underneath, of which they change single ones."""
        below = RawConfig(help=self.help, print_config=self.print_config, json=self.json)
        below.merge(tree, source)
        below.merge(self.values, "")
        below.sources.update(self.sources)
        return below

    def merge(self, tree: Mapping[str, Any], source: str, prefix: str = "", into: dict[str, Any] | None = None) -> None:
        """Merge a nested mapping; mappings merge key by key, everything else is replaced."""
        target = self.values if into is None else into
        for key, value in tree.items():
            path = f"{prefix}{key}"
            if isinstance(value, Mapping):
                existing = target.get(key)
                if isinstance(existing, str) and path in component_paths():  # it is chosen by its name alone
                    existing = {"name": existing}
                branch = existing if isinstance(existing, dict) else {}
                target[key] = branch
                self.sources[path] = source
                self.merge(value, source, f"{path}.", branch)
            else:
                target[key] = value
                self.sources[path] = source

    def set(self, path: str, value: Any, source: str) -> None:
        """Set one dotted path; a path that ends in `+` adds to a list.

        What follows the name of a class of the Trainer's, such as `trainer.logger`, are its arguments; where there are
        several, those of the last.
        """
        section, _, rest = path.partition(".")
        flag, _, inner = rest.removesuffix("+").partition(".")
        chosen = self._trainer().get(flag) if section == "trainer" else None
        several = chosen if isinstance(chosen, list) else [] if chosen is None or isinstance(chosen, bool) else [chosen]
        if path.endswith("+"):
            more = value if isinstance(value, list) else [value]
            self.merge({section: {flag: [*several, *more]}}, source)
        elif inner and several and (spec := _spec(several[-1])):
            tree = RawConfig({"spec": spec})
            named = inner.partition(".")[0] in ("class_path", "init_args", "dict_kwargs")
            tree.merge({"spec": _nested(inner if named else f"init_args.{inner}", value)}, source)
            last = tree.values["spec"]
            self.merge({section: {flag: [*several[:-1], last] if isinstance(chosen, list) else last}}, source)
        else:
            self.merge(_nested(path, value), source)

    def _trainer(self) -> Mapping[str, Any]:
        trainer = self.values.get("trainer")
        return trainer if isinstance(trainer, Mapping) else {}


def _branches(value: Any) -> Any:
    """Return a copy of mappings and lists; what they hold, such as a callback from Python, stays the same object."""
    if isinstance(value, Mapping):
        return {key: _branches(item) for key, item in value.items()}
    return [_branches(item) for item in value] if isinstance(value, list) else value


def _spec(chosen: Any) -> dict[str, Any] | None:
    """Return a class and its arguments as a mapping; None if it is none."""
    if isinstance(chosen, str):
        return {"class_path": chosen}
    return _branches(chosen) if isinstance(chosen, dict) and "class_path" in chosen else None


def _nested(path: str, value: Any) -> dict[str, Any]:
    for part in reversed(path.split(".")):
        value = {part: value}
    return dict(value)


def read_yaml(path: str | Path, pipes: bool = False) -> dict[str, Any]:
    """Read a YAML mapping.

    Args:
        path: The file.
        pipes: It may be a pipe, such as a shell makes of ``<(command)``; a pipe is read once.

    Raises:
        SettingsError: If the file is missing, too large, not YAML, or not a mapping of settings.
    """
    path = Path(path)
    try:
        tree = read_yaml_text(read_text(path, pipes=pipes))
    except FileNotFoundError:
        raise SettingsError(f"{path}: no such configuration file") from None
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read as a configuration file ({error})") from error
    except ValueError as error:
        raise SettingsError(f"{path}: cannot be read as a configuration file: {error}") from error
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise SettingsError(
            f"{path}: a configuration is a mapping of settings, this file holds a {type(tree).__name__}"
        )
    return tree


def normalise(arguments: Sequence[str]) -> list[str]:
    """Return the arguments in the form that all readers know.

    ``--exclusive-device`` is ``--exclusive_device true``, and a value that begins with a dash, such as -1e-3, is joined
    to its flag, for which a parser could take it otherwise.
    """
    result: list[str] = []
    for position, argument in enumerate(arguments):
        if _is_dashed_value(argument) and result and result[-1].startswith("--") and "=" not in result[-1]:
            result[-1] += f"={argument}"
            continue
        flag, equals, value = argument.partition("=")
        name = flag.removeprefix("--").replace("-", "_")
        if not flag.startswith("--") or "." in flag:
            result.append(argument)
            continue
        following = arguments[position + 1] if position + 1 < len(arguments) else "--"
        result.append(f"--{name}{equals}{value}")
        if name in SWITCHES and not equals and following.startswith("--"):
            result.append("true")
    return result


def _is_dashed_value(argument: str) -> bool:
    return argument.startswith("-") and not argument.startswith("--") and argument not in (*FLAGS, *_HELP)


Config = str | Path | Mapping[str, Any] | RunSettings


def read_values(config: Config | Sequence[Config] | None, settings: Mapping[str, Any]) -> RawConfig:
    """Read settings from Python, as `read_arguments` reads a command line.

    Args:
        config: A YAML file, the name of a shipped configuration, a nested mapping, settings, or several of these, of
            which later ones win key by key.
        settings: Sections and settings by name, such as ``{"data": {"dataset": "breastmnist"}}``, or by their dotted
            name; they win over `config`.

    Raises:
        SettingsError: If a file cannot be read, a name is no text, or strict mode does not allow a value; all of these
            are reported together.
    """
    raw = RawConfig()
    problems: list[str] = []
    several = config if isinstance(config, list | tuple) else [] if config is None else [config]
    for path, value in strict_defaults().items():
        raw.set(path, value, IN_PYTHON)
    for each in several:
        try:
            if isinstance(each, RunSettings | Mapping):
                raw.merge(_plain(with_names(each)), IN_PYTHON)
            elif isinstance(each, str | Path):
                _apply(raw, FLAGS[0], str(each))
            else:
                kind = type(each).__name__
                problems.append(f"config: a {kind} is not allowed; allowed: a YAML file, a mapping or RunSettings")
        except SettingsError as error:
            problems.extend(error.problems)
    for path, value in settings.items():
        raw.set(path, _plain(with_names(value, path)), IN_PYTHON)
    problems += strict_problems(raw.values, raw.sources)
    if problems:
        raise SettingsError(problems)
    return raw


def _plain(value: Any) -> Any:
    """Return a value as a YAML file would give it; objects for which YAML has no form, such as callbacks, stay."""
    if isinstance(value, BaseModel):
        named = {"name": value.name} if isinstance(value, Component) else {}
        return {**named, **value.model_dump(mode="python", exclude_unset=True)}
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, PurePath) else value


def read_arguments(arguments: Sequence[str]) -> RawConfig:
    """Read what follows `fit` and other commands with settings: ``--config FILE`` and ``--dotted.key VALUE``.

    A process that the first one has started has the settings of that. What strict mode asks for comes first, then the
    files, then the flags, wherever they stand: a later one wins key by key.

    Raises:
        SettingsError: If an argument has no value or is no flag, a file cannot be read, or strict mode does not allow a
            value; all of these are reported together.
    """
    raw = RawConfig()
    if (inherited := os.environ.get(SETTINGS)) and not is_first_process():
        raw.merge(json.loads(inherited), COMMAND_LINE)
        return raw
    problems: list[str] = []
    for path, value in strict_defaults().items():
        raw.set(path, value, COMMAND_LINE)
    given = _named_values(raw, normalise(arguments), problems)
    for flag, text in sorted(given, key=lambda item: item[0] not in FLAGS):
        try:
            _apply(raw, flag, text)
        except SettingsError as error:
            problems.extend(error.problems)
    problems += strict_problems(raw.values, raw.sources)
    if problems:
        raise SettingsError(problems)
    return raw


def _named_values(raw: RawConfig, arguments: list[str], problems: list[str]) -> list[tuple[str, str]]:
    """Return (flag, text) of every argument; what is no setting is put into `raw`, what is none at all a problem."""
    found: list[tuple[str, str]] = []
    queue = list(arguments)
    while queue:
        token = queue.pop(0)
        name, equals, text = token.partition("=")
        if name in _HELP:
            raw.help = text if equals else queue.pop(0) if queue and not queue[0].startswith("-") else ""
        elif name == _PRINT:
            raw.print_config = text
        elif token == _JSON:
            raw.json = True
        elif not token.startswith("--") and token != "-c":
            problems.append(f"{token}: unexpected argument; settings are given as --section.key VALUE")
        elif not equals and (not queue or queue[0].startswith("--")) and not _may_be_known(name):
            found.append((name, "null"))  # told of with other unknown settings
        elif not equals and (not queue or queue[0].startswith("--")):
            problems.append(f"{name}: needs a value")
        else:
            found.append((name, text if equals else queue.pop(0)))
    return found


def _may_be_known(flag: str) -> bool:
    """Return whether a flag is one of a command's, or inside a section."""
    name = flag.removeprefix("--").removesuffix("+")
    return flag in FLAGS or "." in name or name in (*RunSettings.model_fields, *_OWN, *SWITCHES, "import", "suite")


def _apply(raw: RawConfig, flag: str, text: str) -> None:
    if flag in FLAGS:
        file = require_config(text)
        if not (tree := read_yaml(file, pipes=True)):
            raise SettingsError(f"{described(file)}: is empty, so it is no configuration file; leave it out")
        raw.merge(tree, f"in {described(file)}")
        return
    path = flag.removeprefix("--")
    if path == "import":  # may stand several times
        raw.merge({"imports": [*raw.values.get("imports", ()), text]}, COMMAND_LINE)
        return
    if path in _texts() and text not in _NULLS:  # such as a folder that is named 2024, or no
        raw.set(path, text, COMMAND_LINE)
        return
    try:
        value = parse_value(text)
    except UnreadableError as error:
        raise SettingsError(f"{flag}: cannot be read as a value: {error}") from error
    if path in ("data", "model", "trainer") or (isinstance(value, str) and value.endswith((".yaml", ".yml"))):
        value = read_yaml(text) if isinstance(value, str) else value
    raw.set(path, value, COMMAND_LINE)


@cache
def _texts() -> frozenset[str]:
    """Return the dotted paths of settings that are texts, whatever they look like."""
    fields = flatten(RunSettings)
    return frozenset(path for path, field in fields.items() if field.annotation in (str, str | None)) | _OWN


def parse_value(text: str) -> Any:
    """Parse one flag's value as YAML; text that is no YAML stays text.

    Raises:
        UnreadableError: If it is YAML that has a key twice, or is larger or deeper than a setting can be.
    """
    try:
        return read_yaml_text(text)
    except UnreadableError as error:
        if error.syntax:
            return text
        raise
