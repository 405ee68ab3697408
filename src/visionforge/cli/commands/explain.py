"""`visionforge explain --run RUN --images …`: pictures with what the network looked at, as PNG files."""

import argparse
from pathlib import Path

from visionforge.cli.arguments import CommandParser, add_json_flag, add_target_flags
from visionforge.cli.command import Command
from visionforge.cli.printing import print_found
from visionforge.cli.stages import refuse_bare_names
from visionforge.runs.paths import shown
from visionforge.runs.signals import Interruption
from visionforge.streams import caution


def parser() -> CommandParser:
    """Return the command's parser."""
    from visionforge.data.info import SPLITS
    from visionforge.engine.explanations import MOST
    from visionforge.inference.loading import ACCELERATORS

    made = CommandParser(
        prog="visionforge explain",
        description="Show where a network looks: Grad-CAM for feature maps, attention rollout for transformers.",
    )
    add = made.add_argument
    text = "folders, picture files, .npz archives; of volumes, .npy, .nii and .nii.gz files"
    add("--images", dest="pictures", nargs="+", type=Path, required=True, metavar="PATH", help=text)
    add_target_flags(made)
    add("--target", metavar="CLASS", help="class to explain, by name or number; default the predicted one")
    add("--out", type=Path, metavar="FOLDER", help="default explanations in the run's evaluations, or in this folder")
    add("--overwrite", action="store_true", help="replace what an earlier call wrote there")
    add("--limit", type=int, default=100, help=f"most pictures, 1 to {MOST}; default 100")
    add("--split", choices=SPLITS, help="part of .npz archives; default test")
    add("--accelerator", choices=ACCELERATORS, default="auto", help="device; default auto, the best one present")
    add_json_flag(made)
    return made


def run(arguments: list[str]) -> int:
    """Run the command and return its exit status."""
    from visionforge.config.loading import normalise

    refuse_bare_names("explain", arguments, pictures=True)
    return parser().run(normalise(arguments), _explain)


def _explain(options: argparse.Namespace) -> int:
    from visionforge.engine.explanations import explain_pictures

    as_json = vars(options).pop("json")
    with Interruption():
        done = explain_pictures(**vars(options), warn=caution)
    cut = done.found > options.limit
    more = f" (the first {done.images:,} of {done.found:,}; --limit takes more)" if cut else ""
    print_found(done, as_json, f"{done.images:,} overlays{more}: {shown(done.path)}")
    return 0


COMMAND = Command(
    "explain",
    "show on pictures where the network of a run looks",
    run,
    place=60,
)
