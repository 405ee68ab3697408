"""`visionforge audit RUN|DATASET`: which labels are likely to be wrong."""

import argparse
from pathlib import Path

from visionforge.cli.arguments import CommandParser, add_import_flag, add_json_flag
from visionforge.cli.command import Command
from visionforge.cli.printing import print_found
from visionforge.runs.signals import Interruption


def parser() -> CommandParser:
    """Return the command's parser."""
    from visionforge.data.info import SPLITS
    from visionforge.engine.audit import MOST

    made = CommandParser(
        prog="visionforge audit", description="Find labels that are likely to be wrong, and estimate how many are."
    )
    add = made.add_argument
    add("what", metavar="RUN|DATASET", help="run of `fit --folds` (recommended), or a data set: a quick model")
    add("--split", nargs="+", choices=(*SPLITS, "all"), default=["train", "val"], help="default train val")
    add("--folds", type=int, metavar="K", help="of a data set: number of folds, 2 to 20; default 5")
    add("--seed", type=int, default=0, help="of the folds of a data set, and of the intervals; default 0")
    add("--resolution", type=int, help="of a data set: default its smallest")
    add("--root", help="folder of the archives; default as the run has it, or $VISIONFORGE_DATA or the cache")
    add("--limit", type=int, default=100, help=f"most pictures of the page, 1 to {MOST}; default 100")
    add("--out", type=Path, metavar="FOLDER", help="default audit in the run's evaluations, or audit_DATASET here")
    add("--overwrite", action="store_true", help="replace what an earlier call wrote there")
    add_import_flag(made)
    add_json_flag(made)
    return made


def _audit(options: argparse.Namespace) -> int:
    from visionforge.engine.audit import audit

    as_json = vars(options).pop("json")
    with Interruption():
        print_found(audit(**vars(options)), as_json)
    return 0


def run(arguments: list[str]) -> int:
    """Run the command and return its exit status."""
    return parser().run(arguments, _audit)


COMMAND = Command("audit", "find labels of a data set that are likely to be wrong", run, place=65)
