"""`visionforge pull OWNER/NAME`: a published network into a folder."""

import argparse
from pathlib import Path

from visionforge.cli.arguments import CommandParser, add_json_flag
from visionforge.cli.command import Command
from visionforge.cli.printing import print_found
from visionforge.runs.signals import Interruption


def parser() -> CommandParser:
    """Return the command's parser."""
    made = CommandParser(
        prog="visionforge pull",
        description="Fetch a network that `visionforge push` has published: only files that it lists, compared with "
        "their SHA-256. Nothing in them is executed.",
    )
    add = made.add_argument
    text = "repository on the Hub; or a folder of the same files, as ./NAME"
    add("source", metavar="OWNER/NAME", help=text)
    add("--revision", metavar="REV", help="branch, tag or commit; default main")
    add("--out", type=Path, metavar="DIR", help="new folder; default NAME in the working folder")
    add_json_flag(made)
    return made


def run(arguments: list[str]) -> int:
    """Run the command and return its exit status."""
    from visionforge.config.loading import normalise

    return parser().run(normalise(arguments), _pull)


def _pull(options: argparse.Namespace) -> int:
    from visionforge.publishing.pull import pull_network

    as_json = vars(options).pop("json")
    with Interruption():
        pulled = pull_network(**vars(options))
    print_found(pulled, as_json)
    return 0


COMMAND = Command("pull", "fetch a published network from the Hugging Face Hub, or from a folder", run, place=72)
