"""Pictures with what the network looked at, as PNG files in a folder and a table of them."""

import base64
import contextlib
import csv
import io
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

from visionforge.config.problems import nearest
from visionforge.data.info import Split
from visionforge.data.picture_sources import list_pictures, read_by
from visionforge.data.stream import Batch, picture_batches
from visionforge.errors import RunError, SettingsError
from visionforge.evaluation.table_writers import cell_safe, read_table
from visionforge.inference.loading import Target, device_of, find_target, load_network
from visionforge.printable import LONGEST_LINE, csv_text, printable
from visionforge.runs.files import write_atomic
from visionforge.runs.owned_files import Listed, OwnedFolder, sha256_of
from visionforge.runs.paths import shown

if TYPE_CHECKING:
    import pandas as pd

    from visionforge.training.task_network import TaskNetwork

BATCH = 16
MOST = 1000  # pictures of one call, each of which gives a file
THREADS = 2
TABLE = "explanations.csv"
COLUMNS = ("path", "prediction", "probability", "explained", "overlay", "sha256")
OVERLAY = r"\d{4}_[\w-]+\.png"
_TEXTS = ("path", "prediction", "explained")
_SHOWN = 24  # overlays in a notebook
_NAME_BYTES = 90  # of each part of an overlay's name; file systems take 255 in all


class Explanations:
    """Pictures with what a network looked at, as they lie in a folder.

    Args:
        path: The folder.
        images: How many pictures are explained.
        found: How many there were.
    """

    def __init__(self, path: Path, images: int, found: int) -> None:
        self.path = path
        self.images = images
        self.found = found

    @cached_property
    def table(self) -> "pd.DataFrame":
        """The table `explanations.csv`: a row per picture, with its prediction, the class explained and its overlay.

        Raises:
            RunError: If it is no longer there, or cannot be read.
        """
        return read_table(self.path / TABLE, _TEXTS)

    @property
    def overlays(self) -> list[Path]:
        """The PNG files, in the order of the table."""
        return [self.path / name for name in self.table["overlay"]]

    def as_dict(self) -> dict[str, Any]:
        """Return where the overlays are, and how many of the pictures are explained."""
        return {"path": str(self.path), "table": str(self.path / TABLE), "images": self.images, "found": self.found}

    def __repr__(self) -> str:
        """Return how many pictures are explained, and where."""
        return printable(f"{self.images:,} overlays: {shown(self.path)}", LONGEST_LINE)

    def _repr_html_(self) -> str:
        """Return the first overlays with what is explained, for notebooks."""
        from visionforge.reporting.rendering import render

        overlays = []
        for path, explained, probability in zip(
            self.overlays[:_SHOWN], self.table["explained"], self.table["probability"], strict=False
        ):
            address = f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"
            overlays.append((address, printable(f"{explained}, {probability:.3f}")))
        return render("notebook_overlays.html.j2", headline=repr(self), overlays=overlays)


def explain_pictures(
    pictures: Sequence[Path],
    *,
    run: str | None = None,
    checkpoint: str | None = None,
    target: str | int | None = None,
    out: Path | None = None,
    overwrite: bool = False,
    limit: int = 100,
    split: Split | None = None,
    accelerator: str = "auto",
    warn: Callable[[str], None] = lambda text: None,
) -> Explanations:
    """Show where a network looks: Grad-CAM for feature maps, attention rollout for transformers.

    Args:
        pictures: Folders, picture files and `.npz` archives; of volumes, `.npy` files (R, R, R) uint8, or NIfTI files.
        run: The run, by folder or name.
        checkpoint: `best`, `last` or a file; None is the best of the run.
        target: The class to explain, by name or number; None is the predicted one.
        out: The folder; None is one in the evaluations of the run, or in the working folder for a lone checkpoint.
        overwrite: Replace what an earlier call wrote there.
        limit: Most pictures.
        split: Part of `.npz` archives; None is `test`.
        accelerator: `auto`, `cpu`, `gpu`, `cuda` or `mps`.
        warn: Told of pictures that could not be read.

    Raises:
        VisionForgeError: For every mistake that the user can mend, and if no picture could be read.
    """
    if not 1 <= limit <= MOST:
        raise SettingsError(f"limit: {limit} is not allowed; allowed: 1 to {MOST}")
    network = find_target("explain", run, checkpoint)
    folder = out or _default_folder(network)
    owned = OwnedFolder(folder, TABLE, _listed, OVERLAY)
    owned.require([], overwrite)
    listed = list_pictures(pictures, split)
    model = load_network(network.checkpoint).to(device_of(accelerator))
    chosen = _class_of(model, None if target is None else str(target))
    assert model.spec is not None
    spec = model.spec
    if not spec.kind.explains:
        raise SettingsError(
            f"explain: there are no maps of where a network for {spec.task} looks; `visionforge predict "
            "--images` shows what it says of each place"
        )
    listed = read_by(listed, spec.spatial_dims)
    batches = picture_batches(
        listed, spec.resolution, spec.channels, BATCH, THREADS, spec.spatial_dims, spec.fit, spec.intensity
    )
    with contextlib.closing(batches), owned.writing(overwrite) as staged:
        rows = _explain(model, batches, staged, chosen, limit, warn)
        if not rows:
            raise RunError("pictures: none of the files could be read, so nothing was written")
        write_atomic(staged / TABLE, csv_text([COLUMNS, *rows]))
    return Explanations(folder, len(rows), sum(map(len, listed)))


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


def _class_of(model: "TaskNetwork", text: str | None) -> int | None:
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
        f"target: {text} is no class; nearest: {', '.join(close)}; or a number, 0 to {len(classes) - 1}"
    )


def _explain(
    model: "TaskNetwork",
    batches: Iterable[Batch],
    folder: Path,
    chosen: int | None,
    limit: int,
    warn: Callable[[str], None],
) -> list[list[Any]]:
    """Write an overlay per picture, and return a row of the table for each."""
    import torch

    from visionforge.evaluation.class_names import unique_names
    from visionforge.evaluation.explain import explain, overlay
    from visionforge.inference.predictor import NetworkPredictor

    assert model.spec is not None
    names, predictor = unique_names(model.spec), NetworkPredictor(model)
    rows: list[list[Any]] = []
    for batch in batches:
        for name, reason in batch.failures:
            warn(f"{name}: {reason}")
        if not batch.names:
            continue
        images = batch.images[: limit - len(rows)]
        said = predictor(images)
        calibrated = torch.from_numpy(said.calibrated)
        targets = calibrated.argmax(dim=1) if said.labels.ndim == 2 else torch.from_numpy(said.labels)
        if chosen is not None:
            targets = torch.full_like(targets, chosen)
        maps = explain(model, images.to(next(model.parameters()).device), targets).numpy()
        for path, image, heat, target, value, label in zip(
            batch.names,
            images.numpy(),
            maps,
            targets.tolist(),
            calibrated.gather(1, targets[:, None])[:, 0].tolist(),
            said.labels,
            strict=False,  # the last batch is cut at the limit
        ):
            stem, explained = PurePath(path.rpartition(":")[2]).stem, names[target]
            file = f"{len(rows):04d}_{_safe(stem)}_{_safe(explained)}.png"
            _write_png(folder / file, overlay(image, heat))
            texts = [
                cell_safe(path),
                cell_safe(model.spec.kind.label_text(label, names)),
                f"{value:.9g}",
                cell_safe(explained),
            ]
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
