"""`visionforge embed`: features of a data set's images, or with `--images` of any pictures."""

import argparse
from pathlib import Path

from visionforge.cli.arguments import CommandParser, flags_named
from visionforge.cli.command import Command
from visionforge.cli.help import OF_STAGE
from visionforge.cli.printing import print_found
from visionforge.cli.progress import progress_bar
from visionforge.cli.stages import read_settings
from visionforge.config.aliases import refuse_other_words
from visionforge.runs.signals import Interruption
from visionforge.streams import caution


def parser() -> CommandParser:
    """Return the parser of what is no setting."""
    from visionforge.cli.help import own_text
    from visionforge.engine.embeddings import CHOICES

    made = CommandParser(prog="visionforge embed", add_help=False, allow_abbrev=False)
    add = made.add_argument
    add("--split", choices=CHOICES, help=own_text("split"))
    add("--images", dest="pictures", nargs="+", type=Path, metavar="PATH", help=own_text("images"))
    add("--output", type=Path, metavar="FILE", help=own_text("output"))
    add("--overwrite", action="store_true", help=own_text("overwrite"))
    add("--no_cache", dest="cache", action="store_false", help=own_text("no_cache"))
    return made


def run(arguments: list[str]) -> int:
    """Run the command and return its exit status."""
    from visionforge.config.loading import normalise

    refuse_other_words("embed", arguments, OF_STAGE["embed"])
    own, rest = _parsed(normalise(arguments))
    raw = read_settings("embed", rest)
    if raw is None:
        return 0
    from visionforge.engine.embeddings import embed

    with flags_named(parser().flags()), Interruption() as interruption, progress_bar("embed") as progress:
        made = embed(raw, interruption=interruption, progress=progress, warn=caution, **vars(own))
    print_found(made, raw.json)
    return 0


def _parsed(arguments: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """Return what is no setting, and the rest."""
    return parser().parse_known_args(arguments)


COMMAND = Command(
    "embed",
    "write the features of a split or of pictures, by a run or a pretrained backbone",
    run,
    place=55,
    examples=("embed --run latest --split all --output features.npz",),
)
