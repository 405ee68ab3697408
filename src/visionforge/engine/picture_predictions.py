"""Anybody's pictures classified, as a stream, into a table."""

import contextlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from visionforge.data.info import Split
from visionforge.data.picture_sources import ArchiveImages, PictureFiles, list_pictures, read_by
from visionforge.data.stream import Batch, picture_batches
from visionforge.engine.out_of_memory import is_out_of_memory
from visionforge.engine.picture_network import arithmetic_of, check_artifact, predictor_of
from visionforge.engine.picture_outputs import (
    MOST_OVERLAP,
    OVERLAP,
    Failures,
    Tiles,
    check_beside,
    errors_of,
    is_error_table,
    mask_folder,
    require_errors,
    require_place,
)
from visionforge.errors import RunError, SettingsError
from visionforge.evaluation.prediction_table import TEXTS, Filled, headings_of, prediction_columns, rows_of
from visionforge.evaluation.table_writers import Column, TableWriter, open_table, read_table, require_format, with_texts
from visionforge.inference.loading import FULL, Target, find_target
from visionforge.inference.predictions import UNLIKE
from visionforge.printable import LONGEST_LINE, printable
from visionforge.runs.owned_files import folder_for
from visionforge.runs.paths import shown
from visionforge.runs.signals import Interruption
from visionforge.runs.workspace import describe

if TYPE_CHECKING:
    import pandas as pd

    from visionforge.data.info import TaskSpec
    from visionforge.inference.predictions import Predictor

_MANY = 0.2  # of pictures that are unlike those of the training: of such that are not, one in twenty is called so
MOST_THREADS = 8  # that decode; more wait for each other


class PicturePredictions:
    """What a network says of pictures, as it lies in a table.

    Args:
        path: The table.
        errors: The table of the files that could not be read; None if all could.
        images: How many pictures were classified.
        failed: How many files could not be read.
        unlike: How many pictures are farther from those of the training than 95 % of the validation images; None where
            the network does not know.
    """

    def __init__(self, path: Path, errors: Path | None, images: int, failed: int, unlike: int | None = None) -> None:
        self.path = path
        self.errors = errors
        self.images = images
        self.failed = failed
        self.unlike = unlike

    @cached_property
    def table(self) -> "pd.DataFrame":
        """A row per picture, with its prediction, the probabilities and the uncertainty.

        Raises:
            RunError: If the table is no longer there, or cannot be read.
        """
        import pandas as pd

        suffix = self.path.suffix.lower()
        try:
            if suffix == ".parquet":
                return pd.read_parquet(self.path)
            if suffix == ".xlsx":
                table = pd.read_excel(self.path, dtype=dict.fromkeys(TEXTS, str), keep_default_na=False)
                return with_texts(table, TEXTS)
            if suffix == ".jsonl":
                with self.path.open(encoding="utf-8") as file:
                    return pd.DataFrame([json.loads(line) for line in file])
        except (OSError, ValueError) as error:
            raise RunError(f"{self.path}: cannot be read as a table ({error})") from error
        return read_table(self.path, TEXTS)

    def as_dict(self) -> dict[str, Any]:
        """Return where the tables are, and how many pictures were classified."""
        errors = None if self.errors is None else str(self.errors)
        counts = {"images": self.images, "failed": self.failed, "unlike_training": self.unlike}
        return {"path": str(self.path), "errors": errors, **counts}

    def __repr__(self) -> str:
        """Return how many pictures were classified, and where the tables are."""
        line = f"{self.images:,} predictions: {shown(self.path)}"
        if self.errors is not None:
            total = self.images + self.failed
            line += f"; {self.failed:,} of {total:,} files could not be read: {shown(self.errors)}"
        if self.unlike is not None and self.unlike > _MANY * self.images:
            line += f"; {self.unlike:,} of {self.images:,} are unlike the training images (`{UNLIKE}`)"
        return printable(line, LONGEST_LINE)


def predict_pictures(
    pictures: Sequence[Path],
    interruption: Interruption,
    *,
    run: str | None = None,
    checkpoint: str | None = None,
    artifact: Path | None = None,
    out: Path | None = None,
    overwrite: bool = False,
    split: Split | None = None,
    tta: bool | None = None,
    batch_size: int = 128,
    accelerator: str = "auto",
    num_threads: int | None = None,
    scale: Literal["fit", "native"] | None = None,
    overlap: float | None = None,
    precision: str = FULL,
    progress: Callable[[int, int], None] = lambda done, total: None,
    warn: Callable[[str], None] = lambda text: None,
) -> PicturePredictions:
    """Classify pictures and write what the network says of each.

    Args:
        pictures: Folders, picture files and `.npz` archives; of volumes, `.npy` files (R, R, R) uint8, or NIfTI files.
        interruption: Handles the signals; a batch is finished first, and nothing is left behind.
        run: The run, by folder or name.
        checkpoint: `best`, `last` or a file; None is the best of the run.
        artifact: An exported `.onnx` or `.safetensors` file, in the place of a run.
        out: The table, `.csv`, `.parquet`, `.jsonl` or `.xlsx`; None is `predictions.csv` in a folder of its own in the
            evaluations of the run, or in the working folder for a lone checkpoint.
        overwrite: Replace a table that exists.
        split: Part of `.npz` archives; None is `test`.
        tta: Average over test-time views; None is as the network is set.
        batch_size: Pictures per batch; of masks and boxes tiles of a picture.
        accelerator: `auto`, `cpu`, `gpu`, `cuda` or `mps`.
        num_threads: CPU threads of the network, and of reading pictures; torch keeps them.
        scale: Of masks and boxes: `fit` scales a picture's shorter side to the network's resolution, as training
            pictures were, and what is said of it back; `native` keeps its size. Either way it is predicted in tiles if
            it is larger than the network's square; None is `fit`.
        overlap: Of masks and boxes: smallest share of a tile that is also in the next one, 0 to 0.75; None is 0.25.
        precision: What layers multiply in: `32-true`; `bf16-mixed`, whose numbers have 8 bits, on whatever the network
            was trained; `auto` is that where the device is faster in it.
        progress: Told how many files are done, and how many there are.
        warn: Told of the first pictures that could not be read.

    Raises:
        VisionForgeError: For every mistake that the user can mend, and if no picture could be read.
        Interrupted: If a signal ended it.
    """
    for name, number in (("batch_size", batch_size), ("num_threads", num_threads)):
        whole = isinstance(number, int) and not isinstance(number, bool)
        if number is not None and not (whole and number >= 1):
            raise SettingsError(f"{name}: {number!r} is not allowed; allowed: whole numbers from 1")
    if out is not None:
        _check_output(out, overwrite, made=False)
    if artifact is not None:
        check_artifact(run is not None or checkpoint is not None, tta, accelerator, precision)
    target = None if artifact is not None else find_target("predict", run, checkpoint)
    table = _default_output(target, overwrite) if out is None else out
    _check_output(table, overwrite, made=out is None)
    listed = list_pictures(pictures, split, own=mask_folder(table))
    if split is not None and not any(isinstance(source, ArchiveImages) for source in listed):
        raise SettingsError("split: chooses a part of .npz archives; `pictures` names none")
    predictor = predictor_of(target, artifact, tta, accelerator, num_threads, arithmetic_of(precision, accelerator))
    _check_tiles(predictor.spec, scale, overlap)
    check_beside(table, predictor.spec, overwrite)
    listed = read_by(listed, predictor.spec.spatial_dims)
    threads = min(MOST_THREADS, num_threads or os.cpu_count() or 1)
    located = predictor.spec.kind.located
    tiles = Tiles(scale != "native", OVERLAP if overlap is None else overlap, batch_size) if located else None
    stream = _Stream(predictor, listed, batch_size, threads, progress, warn, tiles)
    with interruption.deferred():  # a batch is finished first, so that no file is caught half open
        return stream.write(table, interruption)


# --- where the table goes


def _default_output(target: Target | None, overwrite: bool) -> Path:
    """Return where a table goes that nobody has named: a folder of its own, unless tables may be replaced."""
    if target is None or target.run is None:
        return Path("predictions.csv")
    name, number = f"predict_{target.checkpoint.stem}_images", 1
    folder = first = target.run.path / "evaluations" / name
    while not overwrite and (folder / "predictions.csv").is_file():
        number += 1
        folder = first.with_name(f"{name}_{number}")
    return folder / "predictions.csv"


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
    try:
        out.lstat()
    except OSError as error:  # the system knows no such name
        if not isinstance(error, FileNotFoundError | NotADirectoryError | PermissionError):
            raise SettingsError(f"out: {shown(out)} is not allowed ({describe(error)}); name another file") from error
    for path in (out, errors_of(out)):
        if path.is_dir():
            raise SettingsError(f"out: {shown(path)} is a folder; name a file in it")
        if os.path.lexists(path) and not overwrite:
            raise SettingsError(f"out: {shown(path)} exists already; name another file, or add `overwrite`")
    require_errors(out, "out", "predict")
    require_place(out, "out", made)


def _check_tiles(spec: "TaskSpec", scale: str | None, overlap: float | None) -> None:
    """Refuse what is out of range, or for another task.

    Raises:
        SettingsError: If it is.
    """
    for name, value in (("scale", scale), ("overlap", overlap)):
        if value is not None and not spec.kind.located:
            raise SettingsError(
                f"{name}: is for networks that predict masks or boxes; this one predicts {spec.kind.nouns[1]}"
            )
    if scale not in (None, "fit", "native"):
        raise SettingsError(f"scale: {scale} is not allowed; allowed: fit, native")
    if overlap is not None and not 0 <= overlap <= MOST_OVERLAP:
        raise SettingsError(f"overlap: {overlap} is not allowed; allowed: 0 to {MOST_OVERLAP}")


# --- the stream


def _columns(predictor: "Predictor", batch: Batch) -> list[Filled]:
    """Return the columns of the table for a batch; none of one without pictures."""
    if not batch.names:
        return []
    return prediction_columns(predictor.spec, predictor(batch.pixels), [(Column("path"), batch.names)])


@dataclass(frozen=True)
class _Stream:
    """Pictures on their way through a network."""

    predictor: "Predictor"
    listed: Sequence[PictureFiles | ArchiveImages]
    batch_size: int
    threads: int
    progress: Callable[[int, int], None]
    warn: Callable[[str], None]
    tiles: Tiles | None = None

    def write(self, out: Path, interruption: Interruption) -> PicturePredictions:
        """Write the table, and that of the files that could not be read if there are any."""
        errors, total = errors_of(out), sum(map(len, self.listed))
        try:
            failed, unlike = self._write(out, errors, total, interruption)
            if not failed and is_error_table(errors):  # of the table that was replaced
                errors.unlink()
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            raise RunError(f"batch_size: out of memory with {self.batch_size} pictures at once; set fewer") from error
        except OSError as error:
            raise RunError(f"out: {shown(out)} cannot be written ({describe(error)})") from error
        return PicturePredictions(out, errors if failed else None, total - failed, failed, unlike)

    def _write_whole(self, tiles: Tiles, out: Path, errors: Path, total: int, interruption: Interruption) -> int:
        """Write what is said of places in pictures; see `_write`."""
        from visionforge.engine.box_predictions import box_writer
        from visionforge.engine.mask_predictions import mask_writer
        from visionforge.engine.whole_predictions import WholeStream

        spec = self.predictor.spec
        writing = mask_writer if spec.kind.dense else box_writer
        with writing(self.predictor, tiles, out) as writer:
            stream = WholeStream(spec, writer, self.listed, tiles, self.threads, self.progress, self.warn)
            return stream.write(out, errors, total, interruption)

    def _write(self, out: Path, errors: Path, total: int, interruption: Interruption) -> tuple[int, int | None]:
        """Write the tables; return how many files could not be read, and how many are unlike the training images."""
        if self.tiles is not None:
            with folder_for(out.absolute().parent):
                return self._write_whole(self.tiles, out, errors, total, interruption), None
        from visionforge.engine.parallel_prediction import predictors_for, said_of

        spec, done = self.predictor.spec, 0
        unlike = None if getattr(self.predictor, "farthest", None) is None else 0
        predictors, size = predictors_for(self.predictor, self.threads, total, self.batch_size)
        batches = picture_batches(
            self.listed, spec.resolution, spec.channels, size, self.threads, spec.spatial_dims, spec.fit, spec.intensity
        )
        with contextlib.ExitStack() as stack:
            stack.enter_context(folder_for(out.absolute().parent))
            table: TableWriter | None = None
            failures = Failures(errors, self.warn, stack)
            self.progress(0, total)
            stack.enter_context(contextlib.closing(batches))
            said = said_of(predictors, batches, _columns)
            for batch, columns in stack.enter_context(contextlib.closing(said)):
                interruption.check()
                failures.add(batch.failures)
                if columns:
                    if table is None:
                        table = stack.enter_context(open_table(out, headings_of(columns)))
                    table.write(rows_of(columns))
                    if unlike is not None:
                        unlike += _unlike(columns)
                done += len(batch.names) + len(batch.failures)
                self.progress(done, total)
            failures.require_any_read(total)
        return failures.count, unlike


def _unlike(columns: Sequence[Filled]) -> int:
    """Return how many pictures are unlike those of the training."""
    return sum(map(bool, next((cells for column, cells in columns if column.name == UNLIKE), ())))
