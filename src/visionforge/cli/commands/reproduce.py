"""`visionforge reproduce RUN`: check data, versions and settings, run it again, and name the first difference."""

import argparse
from collections.abc import Sequence

from visionforge.cli.arguments import CommandParser
from visionforge.cli.command import Command
from visionforge.cli.printing import print_json
from visionforge.streams import say, say_lines

EXIT_DIFFERENT = 1


def parser() -> CommandParser:
    """Return the command's parser."""
    from visionforge.inference.trust import FLAG

    made = CommandParser(
        prog="visionforge reproduce",
        description="Run a complete run again, and say where the first difference is. Exit status 1 if there is one.",
    )
    made.add_argument("name", metavar="RUN", help="folder or name")
    made.add_argument("--outputs", help="folder for the new run; default: beside the old one")
    made.add_argument(FLAG, metavar="RUN", help="build the classes that the configuration of this run names")
    made.add_argument("--check", action="store_true", help="only check data, versions and settings")
    made.add_argument("--json", action="store_true", help="print JSON at the end instead of text")
    return made


def run(arguments: list[str]) -> int:
    """Run the command; return 0 if the results are the same, 1 if they differ."""
    return parser().run(arguments, _reproduce)


def _reproduce(options: argparse.Namespace) -> int:
    from visionforge.engine.reproduce import reproduce

    found = reproduce(
        options.name,
        outputs=options.outputs,
        trust=options.trust,
        check=options.check,
        told=None if options.json else _print_notes,
    )
    if options.json:
        print_json(found.as_dict())
    else:
        say_lines(found.lines())
    return 0 if found.difference is None else EXIT_DIFFERENT


def _print_notes(notes: Sequence[str]) -> None:
    say_lines(f"! {note}" for note in notes)
    if not notes:
        say("✓ settings, versions and environment are those of the run")


COMMAND = Command(
    "reproduce",
    "run a run again, and say where the first difference is",
    run,
    place=90,
)
