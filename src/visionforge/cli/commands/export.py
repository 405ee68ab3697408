"""`visionforge export --run RUN --format …`: an artifact, the proof that it is the network, and a model card."""

import argparse
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from visionforge.cli.arguments import CommandParser, add_json_flag, add_target_flags
from visionforge.cli.command import Command
from visionforge.cli.printing import plain_table, print_json, print_table
from visionforge.cli.stages import refuse_bare_names
from visionforge.runs.paths import shown
from visionforge.runs.signals import Interruption
from visionforge.streams import caution, say, say_lines

if TYPE_CHECKING:
    from visionforge.exporting.export import ExportResult


def parser() -> CommandParser:
    """Return the command's parser."""
    from visionforge.exporting.export import INPUTS
    from visionforge.exporting.formats import FILES, OPSET, OPSETS

    made = CommandParser(
        prog="visionforge export", description="Write a network as a file that predicts without visionforge."
    )
    add = made.add_argument
    add_target_flags(made)
    add(
        "--format",
        choices=(*FILES, "torchscript"),
        default="onnx",
        help="onnx; torch: a torch.export program; safetensors: the weights; default onnx",
    )
    add("--out", type=Path, metavar="FOLDER", help="default export/FORMAT in the run, or in the working folder")
    add("--overwrite", action="store_true", help="replace what an earlier export wrote there")
    add("--input", choices=INPUTS, default="uint8", help="pixels 0 to 255, or 0 to 1; default uint8")
    add("--tta", action="store_true", default=None, help="test-time views inside; default as the network is set")
    add("--no-tta", "--no_tta", dest="tta", action="store_false", help="the image alone")
    add("--opset", type=int, default=OPSET, help=f"of ONNX, {OPSETS[0]} to {OPSETS[-1]}; default {OPSET}")
    add("--int8", action="store_true", help="ONNX: write a quantised model, too, and measure what it loses")
    add("--benchmark", action="store_true", help="measure latency and throughput beside PyTorch's")
    text = "prove it on these instead of the test split"
    add("--images", dest="pictures", nargs="+", type=Path, metavar="PATH", help=text)
    add("--root", help="folder of the archives; default as the run was configured")
    add_json_flag(made)
    return made


def run(arguments: list[str]) -> int:
    """Run the command and return its exit status."""
    from visionforge.config.loading import normalise

    refuse_bare_names("export", arguments)
    return parser().run(normalise(arguments), _export)


def _export(options: argparse.Namespace) -> int:
    from visionforge.exporting.export import export_network

    as_json = vars(options).pop("json")
    with Interruption():
        exported = export_network(**vars(options), warn=caution)
    if as_json:
        print_json(exported.as_dict())
    else:
        _print(exported)
    return 0


def _print(exported: "ExportResult") -> None:
    say_lines(exported.proofs())
    if "speed" in exported.content:
        _print_speed(exported.content["speed"])
    say_lines(str(shown(path)) for path in (*exported.artifacts, *exported.files))
    readable = next((path for path in exported.artifacts if path.suffix in (".onnx", ".safetensors")), None)
    if readable is not None:
        say(f"next: visionforge predict --model {shlex.quote(str(shown(readable)))} --images PATH")


def _print_speed(rows: list[dict[str, Any]]) -> None:
    table = plain_table("runtime", "batch", "ms per batch", "images/s", right=("batch", "ms per batch", "images/s"))
    for row in rows:
        spans = ("{:,.2f} ({:,.2f} to {:,.2f})".format(*row[key]) for key in ("milliseconds", "images_per_second"))
        table.add_row(row["runtime"], str(row["batch"]), *spans)
    print_table(table)


COMMAND = Command(
    "export",
    "write the network of a run as ONNX, torch.export program or safetensors, with the proof that it is the same",
    run,
    place=70,
)
