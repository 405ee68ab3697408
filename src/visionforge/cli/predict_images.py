"""`visionforge predict --run RUN --images …`: classify anybody's pictures, as a stream, into a table."""

import argparse
import contextlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from visionforge.cli.arguments import CommandParser, add_target_flags, plain_console, say, warn
from visionforge.config.loading import normalise
from visionforge.data.info import SPLITS
from visionforge.data.picture_sources import ArchiveImages, PictureFiles, list_pictures
from visionforge.data.stream import picture_batches
from visionforge.errors import RunError, SettingsError
from visionforge.evaluation.table_writers import Column, TableWriter, open_table, require_format
from visionforge.inference.loading import Target, device_of, find_target, load_classifier
from visionforge.runs.anchors import shown, writable
from visionforge.runs.owned_files import folder_for
from visionforge.runs.signals import Interruption
from visionforge.runs.workspace import describe

if TYPE_CHECKING:
    from visionforge.evaluation.picture_table import Predictor

MOST_THREADS = 8  # that decode; more wait for each other
WARNINGS = 10  # pictures that could not be read which are shown; the others are in the table of errors
_ERROR_COLUMNS = (Column("path"), Column("reason"))


def run_predict_images(arguments: list[str]) -> int:
    """Run `visionforge predict --images …` and return its exit status.

    Args:
        arguments: What follows `predict` on the command line.

    Raises:
        VisionForgeError: For every mistake that the user can mend, and if no picture could be read.
        Interrupted: If a signal ended it; nothing is left behind then.
    """
    options = _parser().parse_args(normalise(arguments))
    with Interruption() as interruption:
        if options.out is not None:
            _check_output(options.out, options.overwrite, made=False)
        target = None if options.model is not None else find_target("predict", options.run, options.ckpt_path)
        out = _default_output(target) if options.out is None else options.out
        _check_output(out, options.overwrite, made=options.out is None)
        listed = list_pictures(options.images, options.split)
        if options.split is not None and not any(isinstance(source, ArchiveImages) for source in listed):
            raise SettingsError("--split: chooses a part of .npz archives; --images names none")
        predictor = _artifact(options) if target is None else _network(options, target)
        with interruption.deferred():  # a batch is finished first, so that no file is caught half open
            _predict(options, predictor, listed, out, interruption)
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
    accelerators = ("auto", "cpu", "gpu", "cuda", "mps")
    add("--accelerator", choices=accelerators, default="auto", help="device; default auto, the best one present")
    add("--num_threads", type=_count, metavar="N", help="CPU threads of the network, and of reading pictures")
    return parser


def flag_names() -> list[str]:
    """Return the flags of `predict --images`, which the help of `predict` names, too."""
    return [action.option_strings[0] for action in _parser()._actions if "--help" not in action.option_strings]


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not allowed; allowed: whole numbers from 1")
    return int(text)


# --- where the table goes


def _default_output(target: Target | None) -> Path:
    if target is None or target.run is None:
        return Path("predictions.csv")
    return target.run.path / "evaluations" / f"predict_{target.checkpoint.stem}_images" / "predictions.csv"


def _errors_of(out: Path) -> Path:
    return out.with_name(f"{out.stem}.errors.csv")


def _is_error_table(path: Path) -> bool:
    """Return whether a file has the heading of the tables that list what could not be read."""
    heading = ",".join(column.name for column in _ERROR_COLUMNS).encode()
    if path.is_symlink() or not path.is_file():
        return False
    with path.open("rb") as file:
        return file.readline(len(heading) + 2).strip() == heading


def _check_output(out: Path, overwrite: bool, made: bool) -> None:
    """Refuse what cannot be written, before anything is read.

    Args:
        out: The table.
        overwrite: Whether tables that exist may be replaced.
        made: Whether the folder is made if need be.

    Raises:
        SettingsError: If the suffix means no table, or a file would be lost.
        RunError: If the folder cannot be written.
    """
    require_format(out)
    for path in (out, _errors_of(out)):
        if path.is_dir():
            raise SettingsError(f"--out: {shown(path)} is a folder; name a file in it")
        if os.path.lexists(path) and not overwrite:
            raise SettingsError(f"--out: {shown(path)} exists already; name another file, or add --overwrite")
    errors = _errors_of(out)
    if os.path.lexists(errors) and not _is_error_table(errors):  # nobody has named it
        raise SettingsError(
            f"--out: {shown(errors)} would be replaced, and was not written by predict; move it away, or name another "
            "file"
        )
    parent = out.absolute().parent
    if not made and not parent.is_dir():
        raise RunError(f"--out: {shown(parent)} does not exist; make the folder, or name another")
    if not writable(parent):
        raise RunError(f"--out: {shown(parent)} cannot be written; name a file in another folder")


# --- the network


def _network(options: argparse.Namespace, target: Target) -> "Predictor":
    """Return the network of a checkpoint on its device."""
    from visionforge.evaluation.picture_table import NetworkPredictor

    model = load_classifier(target.checkpoint)
    if options.tta and model.settings.tta == "off":
        model.settings = model.settings.model_copy(update={"tta": "full"})
    return NetworkPredictor(model.to(device_of(options.accelerator)), options.tta)


def _artifact(options: argparse.Namespace) -> "Predictor":
    """Return an exported artifact.

    Raises:
        SettingsError: If a flag asks for what an artifact does not have.
    """
    if options.run is not None or options.ckpt_path is not None:
        raise SettingsError("--model: is given instead of --run and --ckpt_path")
    if options.tta is not None:
        raise SettingsError("--tta: an artifact has its views inside, or none; export it with --tta or --no-tta")
    if options.accelerator not in ("auto", "cpu"):
        raise SettingsError(f"--accelerator: artifacts run on the CPU; {options.accelerator} was given")

    from visionforge.exporting.formats import load_artifact
    from visionforge.exporting.predictor import ArtifactPredictor

    return ArtifactPredictor(load_artifact(options.model))


# --- the stream


def _predict(
    options: argparse.Namespace,
    predictor: "Predictor",
    listed: Sequence[PictureFiles | ArchiveImages],
    out: Path,
    interruption: Interruption,
) -> None:
    import torch

    from visionforge.engine.failure import is_out_of_memory
    from visionforge.evaluation.picture_table import columns_of, table_rows

    spec = predictor.spec
    if options.num_threads is not None:
        torch.set_num_threads(options.num_threads)
    threads = min(MOST_THREADS, options.num_threads or os.cpu_count() or 1)
    total, failed = sum(map(len, listed)), 0
    errors = _errors_of(out)
    batches = picture_batches(listed, spec.resolution, spec.channels, options.batch_size, threads)
    try:
        with contextlib.ExitStack() as stack:
            stack.enter_context(folder_for(out.absolute().parent))
            table = stack.enter_context(open_table(out, columns_of(spec)))
            error_table: TableWriter | None = None
            progress = stack.enter_context(_progress())
            task = progress.add_task("predict", total=total)
            for batch in stack.enter_context(contextlib.closing(batches)):
                interruption.check()
                if batch.failures:
                    if error_table is None:  # most folders need none
                        error_table = stack.enter_context(open_table(errors, _ERROR_COLUMNS))
                    error_table.write(batch.failures)
                    _warn(batch.failures[: max(0, WARNINGS - failed)])
                    failed += len(batch.failures)
                if batch.names:
                    table.write(table_rows(predictor, batch))
                progress.advance(task, len(batch.names) + len(batch.failures))
            if failed == total:
                raise RunError(f"--images: none of the {total:,} files could be read, so nothing was written")
        if not failed and _is_error_table(errors):  # of the table that was replaced
            errors.unlink()
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise RunError(f"--batch_size: out of memory with {options.batch_size} pictures at once; set fewer") from error
    except OSError as error:
        raise RunError(f"--out: {shown(out)} cannot be written ({describe(error)})") from error
    line = f"{total - failed:,} predictions: {shown(out)}"
    if failed:
        line += f"; {failed:,} of {total:,} files could not be read: {shown(errors)}"
    say(line)


def _warn(failures: Sequence[tuple[str, str]]) -> None:
    for name, reason in failures:
        warn(f"warning: {name}: {reason}")


def _progress() -> Progress:
    """Return a bar on a terminal, and nothing elsewhere."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=plain_console(stderr=True), transient=True, disable=not sys.stderr.isatty())
