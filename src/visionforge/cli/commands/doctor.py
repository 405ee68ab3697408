"""`visionforge doctor`: this machine, its folders, and processes that dead runs left behind."""

import argparse

from visionforge.cli.arguments import CommandParser, add_json_flag
from visionforge.cli.command import Command
from visionforge.cli.printing import print_json
from visionforge.streams import say_lines

EXIT_PROBLEMS = 1


def parser() -> CommandParser:
    """Return the command's parser."""
    made = CommandParser(
        prog="visionforge doctor",
        description="This machine, its folders, and processes that dead runs left behind. Exit status 1 if a folder "
        "cannot be written, or processes are left.",
    )
    made.add_argument("--outputs", help="folder of the runs; default $VISIONFORGE_OUTPUTS or the project's")
    made.add_argument("--root", help="folder of the archives; default $VISIONFORGE_DATA or the cache")
    made.add_argument("--kill", action="store_true", help="end the processes that dead runs left behind")
    made.add_argument(
        "--tune",
        nargs="?",
        const="resnet18",
        metavar="BACKBONE",
        help="also measure, within a minute, what trains fastest here: threads and precision; default resnet18",
    )
    add_json_flag(made)
    return made


def run(arguments: list[str]) -> int:
    """Run the command; return 1 if something keeps runs from working, and 0 otherwise."""
    return parser().run(arguments, _doctor)


def _doctor(options: argparse.Namespace) -> int:
    from visionforge.engine.diagnosis import diagnose
    from visionforge.engine.speed_advice import advise

    found = diagnose(options.outputs, options.root, kill=options.kill)
    advice = None if options.tune is None else advise(options.tune)
    if options.json:
        print_json(found.as_dict() | ({} if advice is None else {"speed": advice.as_dict()}))
    else:
        say_lines([*found.lines(), *(() if advice is None else advice.lines())])
    return 0 if found.ok else EXIT_PROBLEMS


COMMAND = Command(
    "doctor",
    "this machine, its folders, and processes that dead runs left behind",
    run,
    place=100,
    tells=True,
)
