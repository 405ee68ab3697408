"""`visionforge explain --run RUN --images …`: pictures with what the network looked at, as PNG files."""

import csv
import io
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from visionforge.cli.arguments import CommandParser
from visionforge.cli.predict_images import device_of, load_classifier
from visionforge.cli.target import Target, add_target_flags, find_target
from visionforge.config.loading import normalise
from visionforge.config.problems import nearest
from visionforge.data.info import SPLITS
from visionforge.data.picture_sources import list_pictures
from visionforge.data.stream import Batch, picture_batches
from visionforge.errors import RunError, SettingsError
from visionforge.runs.anchors import shown, writable
from visionforge.runs.files import write_atomic

if TYPE_CHECKING:
    from visionforge.training.classifier import ImageClassifier

BATCH = 16
MOST = 1000  # pictures of one call, each of which gives a file
THREADS = 2
TABLE = "explanations.csv"


def run_explain(arguments: list[str]) -> int:
    """Run `visionforge explain …` and return its exit status.

    Args:
        arguments: What follows `explain` on the command line.

    Raises:
        VisionForgeError: For every mistake that the user can mend, and if no picture could be read.
    """
    options = _parser().parse_args(normalise(arguments))
    if not 1 <= options.limit <= MOST:
        raise SettingsError(f"--limit: {options.limit} is not allowed; allowed: 1 to {MOST}")
    target = find_target("explain", options.run, options.ckpt_path)
    folder = options.out or _default_folder(target)
    if folder.exists() and not folder.is_dir():
        raise SettingsError(f"--out: {shown(folder)} is a file; name a folder")
    if (folder / TABLE).exists() and not options.overwrite:
        raise SettingsError(f"--out: {shown(folder)} holds explanations already; name another, or add --overwrite")
    if not writable(folder.absolute()):
        raise RunError(f"--out: {shown(folder)} cannot be written; name another folder")
    listed = list_pictures(options.images, options.split)
    model = load_classifier(target.checkpoint).to(device_of(options.accelerator))
    chosen = _class_of(model, options.target)
    assert model.spec is not None
    batches = picture_batches(listed, model.spec.resolution, model.spec.channels, BATCH, THREADS)
    try:
        rows = _explain(model, batches, folder, chosen, options.limit)
    finally:
        batches.close()
    if not rows:
        raise RunError("--images: none of the files could be read, so nothing was written")
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([["path", "label", "probability", "explained", "overlay"], *rows])
    write_atomic(folder / TABLE, text.getvalue())
    total = sum(map(len, listed))
    more = f" (the first {len(rows):,} of {total:,}; --limit takes more)" if total > options.limit else ""
    sys.stdout.write(f"{len(rows):,} overlays{more}: {shown(folder)}\n")
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
    add("--overwrite", action="store_true", help="replace explanations that are there")
    add("--limit", type=int, default=100, help=f"most pictures, 1 to {MOST}; default 100")
    add("--split", choices=SPLITS, help="part of .npz archives; default test")
    devices = ("auto", "cpu", "gpu", "cuda", "mps")
    add("--accelerator", choices=devices, default="auto", help="device; default auto, the best one present")
    return parser


def _default_folder(target: Target) -> Path:
    if target.run is None:
        return Path("explanations")
    return target.run.path / "evaluations" / f"explain_{target.checkpoint.stem}"


def _class_of(model: "ImageClassifier", text: str | None) -> int | None:
    """Return the number of a class that is given by name or number.

    Raises:
        SettingsError: If there is no such class.
    """
    if text is None:
        return None
    assert model.spec is not None
    classes = model.spec.classes
    if text in classes:
        return classes.index(text)
    if text.isdecimal() and int(text) < len(classes):
        return int(text)
    close = nearest(text, classes) or classes[:10]
    raise SettingsError(
        f"--target: {text} is no class; nearest: {', '.join(close)}; or a number, 0 to {len(classes) - 1}"
    )


def _explain(
    model: "ImageClassifier", batches: Iterable[Batch], folder: Path, chosen: int | None, limit: int
) -> list[list[Any]]:
    """Write an overlay per picture, and return a row of the table for each."""
    import torch

    from visionforge.evaluation.explain import explain, overlay
    from visionforge.evaluation.predictions import cell_text
    from visionforge.evaluation.scores import predicted_labels

    assert model.spec is not None
    classes = model.spec.classes
    rows: list[list[Any]] = []
    for batch in batches:
        for name, reason in batch.failures:
            sys.stderr.write(f"warning: {name}: {reason}\n")
        if not batch.names:
            continue
        images = batch.images[: limit - len(rows)].to(next(model.parameters()).device)
        with torch.inference_mode():
            shown_probabilities = model.predict_probabilities(images, tta=False)[0].cpu()
        targets = shown_probabilities.argmax(dim=1)
        if chosen is not None:
            targets = torch.full_like(targets, chosen)
        maps = explain(model, images, targets)
        said = predicted_labels(shown_probabilities.numpy(), model.spec.task)
        for position, (image, heat) in enumerate(zip(images.cpu().numpy(), maps.numpy(), strict=True)):
            target = int(targets[position])
            name = f"{len(rows):04d}_{_safe(batch.names[position])}_{_safe(classes[target])}.png"
            _write_png(folder / name, overlay(image, heat))
            label = classes[int(said[position])] if said.ndim == 1 else cell_text(said[position])
            probability = f"{float(shown_probabilities[position, target]):.6g}"
            rows.append([batch.names[position], label, probability, classes[target], name])
        if len(rows) >= limit:
            break
    return rows


def _safe(text: str) -> str:
    """Return a text as part of a file name."""
    stem = Path(text.rpartition(":")[2]).with_suffix("").name
    return "".join(c if c.isalnum() or c in "-_" else "-" for c in stem)[:60] or "image"


def _write_png(path: Path, pixels: Any) -> None:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    write_atomic(path, buffer.getvalue())
