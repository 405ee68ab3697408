"""`visionforge export --run RUN --format …`: an artifact, the proof that it is the network, and a model card."""

from pathlib import Path
from typing import Any

from rich.table import Table

from visionforge.cli.arguments import CommandParser, add_target_flags, plain_table, print_table, say, warn
from visionforge.config.loading import normalise
from visionforge.exporting.export import INPUTS, ExportResult, export_network
from visionforge.exporting.formats import FILES, OPSET, OPSETS
from visionforge.runs.paths import shown
from visionforge.runs.signals import Interruption


def run_export(arguments: list[str]) -> int:
    """Run `visionforge export …` and return its exit status.

    Args:
        arguments: What follows `export` on the command line.

    Raises:
        VisionForgeError: For every mistake that the user can mend, and if the artifact is not the network; nothing is
            left behind then.
        Interrupted: If a signal ended it; nothing is left behind then, either.
    """
    options = _parser().parse_args(normalise(arguments))
    with Interruption():
        exported = export_network(
            run=options.run,
            checkpoint=options.ckpt_path,
            format=options.format,
            out=options.out,
            overwrite=options.overwrite,
            input=options.input,
            tta=options.tta,
            opset=options.opset,
            int8=options.int8,
            benchmark=options.benchmark,
            images=options.images,
            root=options.root,
            warn=lambda text: warn(f"warning: {text}"),
        )
    _tell(exported)
    return 0


def _parser() -> CommandParser:
    parser = CommandParser(
        prog="visionforge export", description="Write a network as a file that predicts without visionforge."
    )
    add = parser.add_argument
    add_target_flags(parser)
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
    add("--images", nargs="+", type=Path, metavar="PATH", help="prove it on these instead of the test split")
    add("--root", help="folder of the archives; default as the run was configured")
    return parser


def _tell(exported: ExportResult) -> None:
    for line in exported.proofs():
        say(line)
    if "speed" in exported.content:
        print_table(_speed(exported.content["speed"]))
    for path in exported.files:
        say(f"{shown(path)}")


def _speed(rows: list[dict[str, Any]]) -> Table:
    table = plain_table("runtime", "batch", "ms per batch", "images/s", right=("batch", "ms per batch", "images/s"))
    for row in rows:
        spans = ("{:,.2f} ({:,.2f} to {:,.2f})".format(*row[key]) for key in ("milliseconds", "images_per_second"))
        table.add_row(row["runtime"], str(row["batch"]), *spans)
    return table
