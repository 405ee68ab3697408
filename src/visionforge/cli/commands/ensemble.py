"""`visionforge ensemble RUN RUN …`: the networks of several runs as one."""

import argparse

from visionforge.cli.arguments import CommandParser, add_json_flag
from visionforge.cli.command import Command
from visionforge.cli.printing import print_json
from visionforge.runs.signals import Interruption


def parser() -> CommandParser:
    """Return the command's parser."""
    made = CommandParser(
        prog="visionforge ensemble",
        description="Join the best networks of several runs, whose probabilities are averaged, and test them together. "
        "The folder that this makes is used like that of any run: test, predict, explain, export.",
    )
    made.add_argument("runs", nargs="+", metavar="RUN", help="complete fits on the same data: folders or names")
    add_json_flag(made)
    return made


def run(arguments: list[str]) -> int:
    """Run the command and return its exit status."""
    return parser().run(arguments, _ensemble)


def _ensemble(options: argparse.Namespace) -> int:
    from visionforge.cli.result_tables import print_folds
    from visionforge.cli.stages import print_result
    from visionforge.engine.ensembles import make_ensemble

    with Interruption() as interruption:
        made = make_ensemble(options.runs, interruption)
    if options.json:
        print_json(made.as_dict())
    else:
        print_result(made.result, "fit")
        print_folds(made.result.content, made.path)
    return 0


COMMAND = Command("ensemble", "join the networks of several runs into one", run, place=45)
