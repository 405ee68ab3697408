"""The commands, a module each; a new command is a new module with a `COMMAND`, or several in `COMMANDS`."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pkgutil import iter_modules

Run = Callable[[list[str]], int]  # what follows the command's name → exit status


@dataclass(frozen=True)
class Command:
    """One command.

    Attributes:
        name: What is typed.
        summary: Its line in `visionforge --help`.
        run: Runs it.
        place: Where it stands among the others.
        tells: Its result is what it prints, so that a full standard output is an error.
        examples: Command lines for `visionforge --help`.
    """

    name: str
    summary: str
    run: Run
    place: int
    tells: bool = False
    examples: tuple[str, ...] = ()


@cache
def commands() -> dict[str, Command]:
    """Return name → command, in the order of the help; importing them loads neither torch nor Lightning."""
    found: list[Command] = []
    for module in iter_modules(__path__):
        content = vars(import_module(f"{__name__}.{module.name}"))
        found += content.get("COMMANDS", [content["COMMAND"]] if "COMMAND" in content else [])
    return {command.name: command for command in sorted(found, key=lambda command: command.place)}
