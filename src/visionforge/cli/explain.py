"""`visionforge explain --run RUN --images …`: pictures with what the network looked at, as PNG files."""

from pathlib import Path

from visionforge.cli.arguments import CommandParser, add_target_flags, say, warn
from visionforge.config.loading import normalise
from visionforge.data.info import SPLITS
from visionforge.engine.explanations import MOST, explain_pictures
from visionforge.inference.loading import ACCELERATORS
from visionforge.runs.paths import shown
from visionforge.runs.signals import Interruption


def run_explain(arguments: list[str]) -> int:
    """Run `visionforge explain …` and return its exit status.

    Args:
        arguments: What follows `explain` on the command line.

    Raises:
        VisionForgeError: For every mistake that the user can mend, and if no picture could be read.
        Interrupted: If a signal ended it; nothing is left behind then.
    """
    options = _parser().parse_args(normalise(arguments))
    with Interruption():
        done = explain_pictures(
            options.images,
            run=options.run,
            checkpoint=options.ckpt_path,
            target=options.target,
            out=options.out,
            overwrite=options.overwrite,
            limit=options.limit,
            split=options.split,
            accelerator=options.accelerator,
            warn=lambda text: warn(f"warning: {text}"),
        )
    cut = done.found > options.limit
    more = f" (the first {done.images:,} of {done.found:,}; --limit takes more)" if cut else ""
    say(f"{done.images:,} overlays{more}: {shown(done.path)}")
    return 0


def _parser() -> CommandParser:
    parser = CommandParser(
        prog="visionforge explain",
        description="Show where a network looks: Grad-CAM for feature maps, attention rollout for transformers.",
    )
    add = parser.add_argument
    add("--images", nargs="+", type=Path, required=True, metavar="PATH", help="folders, picture files, .npz archives")
    add_target_flags(parser)
    add("--target", metavar="CLASS", help="class to explain, by name or number; default the predicted one")
    add("--out", type=Path, metavar="FOLDER", help="default explanations in the run's evaluations, or in this folder")
    add("--overwrite", action="store_true", help="replace what an earlier call wrote there")
    add("--limit", type=int, default=100, help=f"most pictures, 1 to {MOST}; default 100")
    add("--split", choices=SPLITS, help="part of .npz archives; default test")
    add("--accelerator", choices=ACCELERATORS, default="auto", help="device; default auto, the best one present")
    return parser
