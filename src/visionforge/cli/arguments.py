"""What commands share: a parser whose complaints are one line each, and flags for a function's arguments."""

import argparse
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NoReturn

from visionforge.errors import SettingsError, VisionForgeError
from visionforge.streams import say_text

RUN = "--run"
Call = Callable[[argparse.Namespace], int]  # the options → exit status


class CommandParser(argparse.ArgumentParser):
    """A parser that raises instead of printing its usage."""

    def error(self, message: str) -> NoReturn:
        """Raise with the command's name and where its help is."""
        raise SettingsError(f"{self.prog.removeprefix('visionforge ')}: {message} (`{self.prog} --help`)")

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[Any, list[str]]:
        """Parse, and take a flag with underscores, as its setting is written in Python, for the one with hyphens.

        Where a run is named without a flag, `--run` in front of it, as other commands have it, says nothing more.
        """
        flags = {flag for action in self._actions for flag in action.option_strings}
        words = [_hyphened(each, flags) for each in args or ()]
        if RUN not in flags and any("RUN" in str(each.metavar) for each in self._actions if not each.option_strings):
            words = [each.removeprefix(f"{RUN}=") for each in words if each != RUN]
        return super().parse_known_args(words, namespace)

    def print_help(self, file: Any = None) -> None:
        """Print the help, which a quiet command does, too."""
        say_text(self.format_help().rstrip("\n"))

    def flags(self) -> dict[str, str]:
        """Return name of an option → its first flag."""
        return {action.dest: action.option_strings[0] for action in self._actions[::-1] if action.option_strings}

    def run(self, arguments: list[str], call: Call) -> int:
        """Parse, call, and return the exit status.

        Raises:
            VisionForgeError: If the arguments are wrong, or from the call; options are then named as they are typed.
        """
        options = self.parse_args(arguments)
        with flags_named(self.flags()):
            _import_named(options)
            return call(options)


def _hyphened(argument: str, flags: Collection[str]) -> str:
    """Return a flag as it is among those of a parser; others, and values, as they are."""
    flag, equals, value = argument.partition("=")
    other = flag.replace("_", "-")
    return f"{other}{equals}{value}" if flag.startswith("--") and flag not in flags and other in flags else argument


class Subcommands:
    """The parsers of a command whose first argument says what to do.

    Args:
        prog: The command.
        description: What its help begins with.
        named: Option → how problems name it, where that is not its flag.
    """

    def __init__(self, prog: str, description: str, named: Mapping[str, str] | None = None) -> None:
        self.parser = CommandParser(prog=prog, description=description)
        self._parsers = self.parser.add_subparsers(dest="command", required=True, parser_class=CommandParser)
        self._named = named or {}
        self._calls: dict[str, tuple[CommandParser, Call]] = {}

    def add(self, name: str, call: Call, text: str, json: bool = True) -> CommandParser:
        """Add one and return its parser.

        Args:
            name: What is typed.
            call: Does it.
            text: Its help.
            json: Begin its flags with `--json`.
        """
        parser: CommandParser = self._parsers.add_parser(name, help=text, description=text)
        if json:
            add_json_flag(parser)
        self._calls[name] = parser, call
        return parser

    def run(self, arguments: list[str]) -> int:
        """Parse, call, and return the exit status; see `CommandParser.run`."""
        options = self.parser.parse_args(arguments)
        parser, call = self._calls[options.command]
        del options.command
        with flags_named({**parser.flags(), **self._named}):
            _import_named(options)
            return call(options)


@contextmanager
def flags_named(flags: Mapping[str, str]) -> Iterator[None]:
    """Name the arguments of functions by their flags in the problems that they tell.

    A problem begins with the name of an argument, as in ``out: is a file``, and names others in backticks.

    Args:
        flags: Name of an argument → its flag.
    """
    names = "|".join(map(re.escape, flags))
    try:
        yield
    except VisionForgeError as error:
        error.problems = tuple(
            re.sub(rf"^({names})(?=:)|`({names})`", lambda found: flags[found[1] or found[2]], problem)
            for problem in error.problems
        )
        raise


def add_json_flag(parser: CommandParser) -> None:
    """Add `--json`."""
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")


def add_import_flag(parser: CommandParser, parts: str = "parts are then known by name") -> None:
    """Add `--import`, whose modules are imported before the call.

    Args:
        parser: Of the command.
        parts: What is said of the registered parts.
    """
    text = f"Python module or file whose registered {parts}; may be given several times"
    parser.add_argument("--import", dest="imports", metavar="MODULE", action="append", default=[], help=text)


def _import_named(options: argparse.Namespace) -> None:
    """Import what `--import` names, and take it out of the options: importing is all that it does."""
    if names := vars(options).pop("imports", None):
        from visionforge.config.imports import import_modules

        import_modules(names)


def add_target_flags(parser: CommandParser) -> None:
    """Add `--import`, and the flags that `inference.loading.find_target` resolves, to a light command."""
    add_import_flag(parser)
    parser.add_argument(
        "--run", help="run (folder, or name in the outputs folder), of which the best checkpoint is taken"
    )
    parser.add_argument(
        "--ckpt_path", dest="checkpoint", metavar="best|last|FILE", help="another checkpoint of the run, or a file"
    )
