"""`visionforge predict`: the test split, or with `--images` any pictures."""

import argparse
from itertools import pairwise
from pathlib import Path

from visionforge.cli.arguments import CommandParser, add_json_flag, add_target_flags
from visionforge.cli.command import Command
from visionforge.cli.printing import print_found
from visionforge.cli.progress import progress_bar
from visionforge.cli.stages import evaluate_stage, refuse_bare_names
from visionforge.errors import SettingsError
from visionforge.runs.signals import Interruption
from visionforge.streams import caution

PICTURES = (
    "With --images, which takes folders, picture files and archives, `predict` classifies them and takes these flags "
    "alone: {}. `visionforge predict --images PATH --help` tells of them."
)
ARTIFACTS = (".onnx", ".safetensors")


def run(arguments: list[str]) -> int:
    """Run the command and return its exit status."""
    from visionforge.config.loading import normalise

    refuse_bare_names("predict", arguments, pictures=True)
    given = normalise(arguments)
    if any(argument.partition("=")[0] == "--images" for argument in given):
        return parser().run(given, _pictures)
    _refuse_flags_of_pictures(given)
    return evaluate_stage("predict", arguments, further=_further)


def _refuse_flags_of_pictures(given: list[str]) -> None:
    """Refuse a flag that only pictures have; `--model` is one before an artifact, and a setting before YAML.

    `--precision` is answered with the setting of the Trainer.
    """
    from visionforge.cli.help import OF_STAGE
    from visionforge.config.schema import RunSettings

    known = {f"--{name}" for name in (*OF_STAGE["predict"], *RunSettings.model_fields, "precision")}
    flags = {flag for action in parser()._actions for flag in action.option_strings} - known - {"-h"}
    for argument, following in pairwise([*given, ""]):
        flag, equals, value = argument.partition("=")
        if flag in flags or (flag == "--model" and (value if equals else following).endswith(ARTIFACTS)):
            raise SettingsError(f"{flag}: is for pictures; add --images PATH")


def _further() -> str:
    """Return what the help of `predict` says of the flags for pictures."""
    flags = [action.option_strings[0] for action in parser()._actions]
    return PICTURES.format(", ".join(flag for flag in flags if flag not in ("-h", "--images", "--json")))


def parser() -> CommandParser:
    """Return the parser of `predict --images`."""
    from visionforge.data.info import SPLITS
    from visionforge.inference.loading import ACCELERATORS, FULL, PRECISIONS

    made = CommandParser(
        prog="visionforge predict",
        description="Predict pictures. Without --images, `predict` writes what a run says of the test split.",
    )
    add = made.add_argument
    text = "folders, picture files, .npz archives; of volumes, .npy, .nii and .nii.gz files"
    add("--images", dest="pictures", nargs="+", type=Path, required=True, metavar="PATH", help=text)
    add_target_flags(made)
    text = "an exported .onnx or .safetensors file instead; needs no checkpoint"
    add("--model", dest="artifact", type=Path, metavar="FILE", help=text)
    where = "predictions.csv in the run's evaluations, or in the working folder for a lone checkpoint"
    add("--out", type=Path, metavar="FILE", help=f"table to write: .csv, .parquet, .jsonl or .xlsx; default {where}")
    add("--overwrite", action="store_true", help="replace a table that exists")
    add("--split", choices=SPLITS, help="part of .npz archives; default test")
    add("--tta", action="store_true", default=None, help="average over test-time views; default as the network is set")
    add("--no-tta", "--no_tta", dest="tta", action="store_false", help="take each picture as it is")
    add("--batch_size", type=_count, default=128, metavar="N", help="pictures per batch; default 128")
    add("--accelerator", choices=ACCELERATORS, default="auto", help="device; default auto, the best one present")
    add("--num_threads", type=_count, metavar="N", help="CPU threads of the network, and of reading pictures")
    add("--scale", choices=("fit", "native"), help="masks, boxes: scale pictures as in training (fit, default), or not")
    add(
        "--overlap",
        type=float,
        metavar="SHARE",
        help="masks, boxes: share of a tile that is also in the next; default 0.25",
    )
    text = "what layers multiply in; default 32-true, auto is bf16-mixed where the device is faster in it"
    add("--precision", choices=PRECISIONS, default=FULL, help=text)
    add_json_flag(made)
    return made


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not allowed; allowed: whole numbers from 1")
    return int(text)


def _pictures(options: argparse.Namespace) -> int:
    from visionforge.engine.picture_predictions import predict_pictures

    as_json = vars(options).pop("json")
    with Interruption() as interruption, progress_bar("predict") as progress:
        given = vars(options)
        predictions = predict_pictures(interruption=interruption, progress=progress, warn=caution, **given)
    print_found(predictions, as_json)
    return 0


COMMAND = Command(
    "predict",
    "write what a run says of the test split, or with --images of any pictures: probabilities, masks, or boxes",
    run,
    place=50,
)
