"""Read a command line and its YAML files into one nested dictionary that remembers where each value was written.

This reading happens before any heavy import, so that all mistakes of a configuration are told at once and in a moment.
LightningCLI parses the same arguments again afterwards and stays the authority on what runs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from visionforge.config.environment import strict_problems
from visionforge.config.problems import flatten
from visionforge.config.schema import RunSettings
from visionforge.config.shipped import FLAGS, described, require_config, with_shipped
from visionforge.errors import SettingsError
from visionforge.reading import UnreadableError, read_text, read_yaml_text

COMMAND_LINE = "on the command line"
SWITCHES = ("exclusive_device",)  # flags that need no value
_PASS_THROUGH = ("--help", "-h", "--print_config")
_NULLS = ("null", "~", "Null", "NULL", "")


@dataclass
class RawConfig:
    """Merged settings before validation.

    Attributes:
        values: The nested settings; a later file or flag has won over an earlier one.
        sources: Dotted path → where it was written, for error messages.
        wants_help: Whether the parser only has to print help.
    """

    values: dict[str, Any] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)
    wants_help: bool = False

    def merge(self, tree: Mapping[str, Any], source: str, prefix: str = "", into: dict[str, Any] | None = None) -> None:
        """Merge a nested mapping; mappings merge key by key, everything else is replaced."""
        target = self.values if into is None else into
        for key, value in tree.items():
            path = f"{prefix}{key}"
            if isinstance(value, Mapping):
                existing = target.get(key)
                branch = existing if isinstance(existing, dict) else {}
                target[key] = branch
                self.sources[path] = source
                self.merge(value, source, f"{path}.", branch)
            else:
                target[key] = value
                self.sources[path] = source

    def set(self, path: str, value: Any, source: str) -> None:
        """Set one dotted path; what follows the name of a class, such as `trainer.logger`, are its arguments."""
        parts = path.split(".")
        trainer = self.values.get("trainer")
        if parts[0] == "trainer" and len(parts) > 2 and isinstance(trainer, dict):
            chosen = trainer.get(parts[1])
            if isinstance(chosen, str):
                chosen = trainer[parts[1]] = {"class_path": chosen}
            if isinstance(chosen, dict) and "class_path" in chosen and parts[2] not in ("class_path", "init_args"):
                parts.insert(2, "init_args")
        for part in reversed(parts):
            value = {part: value}
        self.merge(value, source)


def read_yaml(path: str | Path) -> dict[str, Any]:
    """Read a YAML mapping.

    Raises:
        SettingsError: If the file is missing, too large, not YAML, or not a mapping of settings.
    """
    path = Path(path)
    try:
        tree = read_yaml_text(read_text(path))
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

    ``--exclusive-device`` is ``--exclusive_device true``, ``--config quickstart`` names the shipped file, and a value
    that begins with a dash, such as -1e-3, is joined to its flag, for which a parser could take it otherwise.
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
    return with_shipped(result)


def _is_dashed_value(argument: str) -> bool:
    return argument.startswith("-") and not argument.startswith("--") and argument not in (*FLAGS, *_PASS_THROUGH)


def read_arguments(arguments: Sequence[str]) -> RawConfig:
    """Read the arguments after a subcommand: ``--config FILE`` and ``--dotted.key VALUE``, in order.

    Raises:
        SettingsError: If an argument has no value or is no flag, a file cannot be read, or strict mode does not allow a
            value; all of these are reported together.
    """
    raw = RawConfig()
    problems: list[str] = []
    queue = list(arguments)
    while queue:
        token = queue.pop(0)
        if token.split("=", 1)[0] in _PASS_THROUGH or token.startswith("--help"):
            raw.wants_help |= not token.startswith("--print_config")
            continue
        if not token.startswith("--") and token != "-c":
            problems.append(f"{token}: unexpected argument; settings are given as --section.key VALUE")
            continue
        flag, equals, text = token.partition("=")
        if not equals:
            if not queue or (queue[0].startswith("--")):
                problems.append(f"{flag}: needs a value")
                continue
            text = queue.pop(0)
        try:
            _apply(raw, flag, text)
        except SettingsError as error:
            problems.extend(error.problems)
    problems += strict_problems(raw.values, raw.sources)
    if problems:
        raise SettingsError(problems)
    return raw


def _apply(raw: RawConfig, flag: str, text: str) -> None:
    if flag in FLAGS:
        tree = read_yaml(require_config(text))
        if not tree:
            raise SettingsError(f"{described(text)}: is empty, so it is no configuration file; leave it out")
        raw.merge(tree, f"in {described(text)}")
        return
    path = flag.removeprefix("--").removesuffix("+")
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
    return frozenset(path for path, field in fields.items() if field.annotation in (str, str | None))


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
