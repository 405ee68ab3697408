"""`visionforge robustness RUN`: what a network loses on corrupted images of its test split."""

from pathlib import Path
from typing import Any

from visionforge.cli.arguments import CommandParser, add_json_flag, add_target_flags
from visionforge.cli.command import Command
from visionforge.cli.printing import print_found
from visionforge.cli.progress import progress_bar
from visionforge.errors import SettingsError
from visionforge.runs.signals import Interruption


def parser() -> CommandParser:
    """Return the command's parser."""
    from visionforge.data.info import SPLITS
    from visionforge.inference.loading import ACCELERATORS

    text = "Test a network of classes or labels on corrupted images: noise, blur, compression, exposure, colours."
    made = CommandParser(prog="visionforge robustness", description=text)
    add = made.add_argument
    add("named", nargs="?", metavar="RUN", help="the same as --run")
    add_target_flags(made)
    add("--split", choices=SPLITS, default="test", help="default test")
    add("--corruptions", metavar="NAME,NAME", help="default every one that applies to the images")
    add("--severities", metavar="1,3,5", help="of 1 to 5; default all")
    add("--seed", type=int, default=0, help="seed of what the corruptions draw; default 0")
    add("--baseline", metavar="RUN", help="another run, or its checkpoint file, that the errors are divided by")
    add("--limit", type=int, metavar="N", help="look at the first N images only")
    add("--out", type=Path, metavar="FOLDER", help="default robustness in the run's evaluations, or in this folder")
    add("--overwrite", action="store_true", help="replace what an earlier call wrote there")
    add("--accelerator", choices=ACCELERATORS, default="auto", help="device; default auto, the best one present")
    add_json_flag(made)
    return made


def run(arguments: list[str]) -> int:
    """Run the command and return its exit status."""
    from visionforge.config.loading import normalise

    return parser().run(normalise(arguments), lambda options: _robustness(**vars(options)))


def _robustness(json: bool, named: str | None, run: str | None, **options: Any) -> int:
    from visionforge.engine.robustness import measure_robustness

    if named is not None and run is not None:
        raise SettingsError(f"robustness: {named} and --run {run} are two runs; name one")
    with Interruption() as interruption, progress_bar("robustness") as progress:
        found = measure_robustness(run=named or run, **options, interruption=interruption, progress=progress)
    print_found(found, json, "\n".join(found.lines()))
    return 0


COMMAND = Command("robustness", "test a run on corrupted images, and say what it loses", run, place=65)
