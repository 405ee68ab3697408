"""`visionforge predict --run RUN --images …`: classify anybody's pictures, as a stream, into a table."""

import argparse
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from visionforge.cli.arguments import CommandParser, add_target_flags, plain_console, say, warn
from visionforge.config.loading import normalise
from visionforge.data.info import SPLITS
from visionforge.engine.picture_predictions import predict_pictures
from visionforge.inference.loading import ACCELERATORS
from visionforge.runs.signals import Interruption


def run_predict_images(arguments: list[str]) -> int:
    """Run `visionforge predict --images …` and return its exit status.

    Args:
        arguments: What follows `predict` on the command line.

    Raises:
        VisionForgeError: For every mistake that the user can mend, and if no picture could be read.
        Interrupted: If a signal ended it; nothing is left behind then.
    """
    options = _parser().parse_args(normalise(arguments))
    with Interruption() as interruption, _progress() as progress:
        predictions = predict_pictures(
            options.images,
            interruption,
            run=options.run,
            checkpoint=options.ckpt_path,
            artifact=options.model,
            out=options.out,
            overwrite=options.overwrite,
            split=options.split,
            tta=options.tta,
            batch_size=options.batch_size,
            accelerator=options.accelerator,
            num_threads=options.num_threads,
            progress=progress,
            warn=lambda text: warn(f"warning: {text}"),
        )
    say(repr(predictions))
    return 0


def _parser() -> CommandParser:
    parser = CommandParser(
        prog="visionforge predict",
        description="Classify pictures. Without --images, `predict` writes the probabilities of the test split.",
    )
    add = parser.add_argument
    add("--images", nargs="+", type=Path, required=True, metavar="PATH", help="folders, picture files, .npz archives")
    add_target_flags(parser)
    add(
        "--model", type=Path, metavar="FILE", help="an exported .onnx or .safetensors file instead; needs no checkpoint"
    )
    where = "predictions.csv in the run's evaluations, or in the working folder for a lone checkpoint"
    add("--out", type=Path, metavar="FILE", help=f"table to write: .csv, .parquet or .jsonl; default {where}")
    add("--overwrite", action="store_true", help="replace a table that exists")
    add("--split", choices=SPLITS, help="part of .npz archives; default test")
    add("--tta", action="store_true", default=None, help="average over test-time views; default as the network is set")
    add("--no-tta", "--no_tta", dest="tta", action="store_false", help="take each picture as it is")
    add("--batch_size", type=_count, default=128, metavar="N", help="pictures per batch; default 128")
    add("--accelerator", choices=ACCELERATORS, default="auto", help="device; default auto, the best one present")
    add("--num_threads", type=_count, metavar="N", help="CPU threads of the network, and of reading pictures")
    return parser


def flag_names() -> list[str]:
    """Return the flags of `predict --images`, which the help of `predict` names, too."""
    return [action.option_strings[0] for action in _parser()._actions if "--help" not in action.option_strings]


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not allowed; allowed: whole numbers from 1")
    return int(text)


@contextmanager
def _progress() -> Iterator[Callable[[int, int], None]]:
    """Yield what moves a bar on a terminal, which appears with the first picture; elsewhere there is none."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = plain_console(stderr=True)
    bar = Progress(*columns, console=console, transient=True, disable=not sys.stderr.isatty())
    task = bar.add_task("predict")

    def move(done: int, total: int) -> None:
        bar.update(task, completed=done, total=total)
        bar.start()

    try:
        yield move
    finally:
        bar.stop()
