"""`visionforge explain --run RUN --images …`: pictures with what the network looked at, as PNG files."""

import contextlib
import csv
import io
from collections.abc import Iterable
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

from visionforge.cli.arguments import CommandParser, add_target_flags, say, warn
from visionforge.config.loading import normalise
from visionforge.config.problems import nearest
from visionforge.data.info import SPLITS
from visionforge.data.picture_sources import list_pictures
from visionforge.data.stream import Batch, picture_batches
from visionforge.errors import RunError, SettingsError
from visionforge.evaluation.table_writers import cell_safe
from visionforge.inference.loading import Target, device_of, find_target, load_classifier
from visionforge.runs.anchors import shown
from visionforge.runs.files import write_atomic
from visionforge.runs.owned_files import Listed, OwnedFolder, sha256_of
from visionforge.runs.signals import Interruption

if TYPE_CHECKING:
    from visionforge.training.classifier import ImageClassifier

BATCH = 16
MOST = 1000  # pictures of one call, each of which gives a file
THREADS = 2
TABLE = "explanations.csv"
COLUMNS = ("path", "prediction", "probability", "explained", "overlay", "sha256")
OVERLAY = r"\d{4}_[\w-]+\.png"
_NAME_BYTES = 90  # of each part of an overlay's name; file systems take 255 in all


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
    owned = OwnedFolder(folder, TABLE, _listed, OVERLAY)
    owned.require([], options.overwrite)
    listed = list_pictures(options.images, options.split)
    model = load_classifier(target.checkpoint).to(device_of(options.accelerator))
    chosen = _class_of(model, options.target)
    assert model.spec is not None
    batches = picture_batches(listed, model.spec.resolution, model.spec.channels, BATCH, THREADS)
    with Interruption(), contextlib.closing(batches), owned.writing(options.overwrite) as staged:
        rows = _explain(model, batches, staged, chosen, options.limit)
        if not rows:
            raise RunError("--images: none of the files could be read, so nothing was written")
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([COLUMNS, *rows])
        write_atomic(staged / TABLE, text.getvalue())
    total = sum(map(len, listed))
    more = f" (the first {len(rows):,} of {total:,}; --limit takes more)" if total > options.limit else ""
    say(f"{len(rows):,} overlays{more}: {shown(folder)}")
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
    devices = ("auto", "cpu", "gpu", "cuda", "mps")
    add("--accelerator", choices=devices, default="auto", help="device; default auto, the best one present")
    return parser


def _default_folder(target: Target) -> Path:
    if target.run is None:
        return Path("explanations")
    return target.run.path / "evaluations" / f"explain_{target.checkpoint.stem}"


def _listed(table: str) -> Listed:
    """Return the overlays that a table lists; earlier versions had no SHA-256."""
    rows = csv.DictReader(io.StringIO(table))
    try:
        if rows.fieldnames is None or "overlay" not in rows.fieldnames or "explained" not in rows.fieldnames:
            raise ValueError("no table of explanations")
        return {row["overlay"]: row.get("sha256") for row in rows}
    except csv.Error as error:
        raise ValueError("no table of explanations") from error


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

    from visionforge.evaluation.class_names import label_text, unique_names
    from visionforge.evaluation.explain import explain, overlay
    from visionforge.evaluation.picture_table import NetworkPredictor, chosen_labels

    assert model.spec is not None
    names, predictor = unique_names(model.spec), NetworkPredictor(model, None)
    rows: list[list[Any]] = []
    for batch in batches:
        for name, reason in batch.failures:
            warn(f"warning: {name}: {reason}")
        if not batch.names:
            continue
        images = batch.images[: limit - len(rows)]
        said = predictor(images)
        targets = said.calibrated.argmax(dim=1)
        if chosen is not None:
            targets = torch.full_like(targets, chosen)
        maps = explain(model, images.to(next(model.parameters()).device), targets).numpy()
        for path, image, heat, target, value, label in zip(
            batch.names,
            images.numpy(),
            maps,
            targets.tolist(),
            said.calibrated.gather(1, targets[:, None])[:, 0].tolist(),
            chosen_labels(said, model.spec),
            strict=False,  # the last batch is cut at the limit
        ):
            stem, explained = PurePath(path.rpartition(":")[2]).stem, names[target]
            file = f"{len(rows):04d}_{_safe(stem)}_{_safe(explained)}.png"
            _write_png(folder / file, overlay(image, heat))
            texts = [cell_safe(path), cell_safe(label_text(label, names)), f"{value:.9g}", cell_safe(explained)]
            rows.append([*texts, file, sha256_of(folder / file)])
        if len(rows) >= limit:
            break
    return rows


def _safe(text: str) -> str:
    """Return a text as part of a file name, of at most 90 bytes."""
    safe = "".join(c if c.isalnum() or c in "-_" else "-" for c in text)
    return safe.encode("utf-8", "replace")[:_NAME_BYTES].decode("utf-8", "ignore") or "image"


def _write_png(path: Path, pixels: Any) -> None:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    write_atomic(path, buffer.getvalue())
