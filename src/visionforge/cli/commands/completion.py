"""`visionforge completion`: a script by which a shell completes what is typed."""

import argparse

from visionforge.cli.arguments import CommandParser
from visionforge.cli.command import Command
from visionforge.cli.completion import SHELLS, completion_script
from visionforge.streams import say_text


def run(arguments: list[str]) -> int:
    """Run the command and return its exit status."""
    return parser().run(arguments, _complete)


def parser() -> CommandParser:
    """Return the parser of the command."""
    made = CommandParser(
        prog="visionforge completion",
        description="Print a script by which a shell completes commands, settings, data sets, backbones and runs. For "
        "bash: `visionforge completion bash >> ~/.bashrc`; zsh: `… zsh >> ~/.zshrc`; fish: "
        "`… fish > ~/.config/fish/completions/visionforge.fish`. It knows the data sets of the moment; write it anew.",
    )
    made.add_argument("shell", choices=SHELLS)
    return made


def _complete(options: argparse.Namespace) -> int:
    say_text(completion_script(options.shell).rstrip())
    return 0


COMMAND = Command(
    "completion", "print a script by which bash, zsh or fish completes what is typed", run, place=94, tells=True
)
