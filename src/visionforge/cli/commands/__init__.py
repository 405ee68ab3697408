"""The commands, a file each; a new command is a new file with a `COMMAND`, or several in `COMMANDS`."""

from functools import cache
from importlib import import_module
from pkgutil import iter_modules

from visionforge.cli.command import Command


@cache
def commands() -> dict[str, Command]:
    """Return name → command, in the order of the help; importing them loads neither torch nor Lightning."""
    found: list[Command] = []
    for module in iter_modules(__path__):
        content = vars(import_module(f"{__name__}.{module.name}"))
        found += content.get("COMMANDS", [content["COMMAND"]] if "COMMAND" in content else [])
    return {command.name: command for command in sorted(found, key=lambda command: command.place)}
