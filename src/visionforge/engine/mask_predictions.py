"""Masks of anybody's pictures, of any size: a PNG for each, and a table of them."""

import contextlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from visionforge.data.picture_sources import ArchiveImages, PictureFiles
from visionforge.data.whole_pictures import WholePicture, whole_pictures
from visionforge.engine.mask_tables import ERROR_COLUMNS, Tiles, mask_folder
from visionforge.errors import DataError, RunError
from visionforge.evaluation.mask_files import mask_columns, palette, write_mask
from visionforge.evaluation.prediction_table import Filled, headings_of, rows_of
from visionforge.evaluation.table_writers import Column, TableWriter, open_table
from visionforge.inference.mask_predictor import MaskPrediction
from visionforge.inference.tiling import predict_tiled
from visionforge.runs.own_pictures import is_own_picture
from visionforge.runs.owned_files import folder_for
from visionforge.runs.paths import shown
from visionforge.runs.signals import Interruption
from visionforge.runs.staging import staging

_OURS = re.compile(r"[0-9]{6,}_[A-Za-z0-9._-]+\.png")  # names that `mask_name` makes
_HALF = re.compile(rf"\.{_OURS.pattern}\.[a-z0-9_]{{8}}\.tmp")  # of masks that are being written
_NAME = 60  # characters of a picture's name in that of its mask


@dataclass(frozen=True)
class MaskStream:
    """Pictures on their way through a network that says something of every pixel.

    Attributes:
        predictor: Gives `outputs` (B, K, R, R) for tiles (B, C, R, R) uint8, has a `spec`, and says whether it
            `averages` test-time views.
        listed: The pictures.
        tiles: How pictures are scaled and divided.
        batch_size: Tiles at once.
        threads: That decode.
        progress: Told how many files are done, and how many there are.
        warn: Told of a picture that could not be read.
    """

    predictor: Any
    listed: Sequence[PictureFiles | ArchiveImages]
    tiles: Tiles
    batch_size: int
    threads: int
    progress: Callable[[int, int], None]
    warn: Callable[[str], None]

    def write(self, out: Path, errors: Path, total: int, warnings: int, interruption: Interruption) -> int:
        """Write masks and tables, all of them when the last picture is predicted, and return how many failed.

        Args:
            out: The table.
            errors: The table of the files that could not be read.
            total: Number of files.
            warnings: How many of them are told of.
            interruption: Handles the signals; a picture is finished first.

        Raises:
            RunError: If none could be read, somebody else writes there, or a mask would replace what is not ours.
            Interrupted: If a signal ended it; then nothing was written.
        """
        spec, done, failed = self.predictor.spec, 0, 0
        side = spec.resolution if self.tiles.scaled else None
        pictures = whole_pictures(self.listed, side, spec.channels, self.threads, spec.fit)
        folder, colours = mask_folder(out), palette(spec)
        with contextlib.ExitStack() as stack:
            staged = stack.enter_context(staging(folder.absolute(), _is_own))
            table: TableWriter | None = None
            error_table: TableWriter | None = None
            self.progress(0, total)
            for index, picture in enumerate(stack.enter_context(contextlib.closing(pictures))):
                interruption.check()
                said = self._said(picture)
                if isinstance(said, str):
                    if error_table is None:  # most folders need none
                        error_table = stack.enter_context(open_table(errors, ERROR_COLUMNS))
                    error_table.write([(picture.name, said)])
                    failed += 1
                    if failed <= warnings:
                        self.warn(f"{picture.name}: {said}")
                else:
                    name = mask_name(index, picture.name)
                    _require_own(folder / name)  # told before there is more work to lose
                    write_mask(staged / name, said.labels[0], colours)
                    keys: list[Filled] = [
                        (Column("path"), [picture.name]),
                        (Column("mask"), [f"{folder.name}/{name}"]),
                    ]
                    columns = mask_columns(spec, said, keys)
                    if table is None:
                        table = stack.enter_context(open_table(out, headings_of(columns)))
                    table.write(rows_of(columns))
                done += 1
                self.progress(done, total)
            if failed == total:
                raise RunError(f"pictures: none of the {total:,} files could be read, so nothing was written")
            _take(staged, folder)
        return failed

    def _said(self, picture: WholePicture) -> MaskPrediction | str:
        """Return the mask of a picture at its own size, or why there is none."""
        if picture.image is None:
            return picture.reason
        image, spec = torch.from_numpy(picture.image), self.predictor.spec
        height, width = image.shape[1:]
        if spec.fit == "pad":  # with black, as training pictures were
            image = F.pad(image, (0, max(0, spec.resolution - width), 0, max(0, spec.resolution - height)))
        tiles = (spec.resolution, self.tiles.overlap, self.batch_size)
        try:
            blended = predict_tiled(self.predictor.outputs, image, *tiles)[:, :height, :width]
        except DataError as error:  # it is too large
            return "; ".join(error.problems)
        return _decided(blended.cpu(), picture.size, self.predictor.averages)


def _decided(probabilities: Tensor, size: tuple[int, int], averaged: bool) -> MaskPrediction:
    """Return the most probable classes (1, H, W) of probabilities (K, h, w), scaled to a size one class at a time."""
    best, mask = torch.zeros(size), torch.zeros(size, dtype=torch.uint8)
    for number, each in enumerate(probabilities):
        if each.shape != torch.Size(size):
            each = F.interpolate(each[None, None], size, mode="bilinear", align_corners=False)[0, 0]
        better = each > best
        mask[better] = number
        best = torch.where(better, each, best)
    return MaskPrediction(mask[None].numpy(), np.array([float(best.mean())], np.float32), None, averaged)


def mask_name(index: int, picture: str) -> str:
    """Return what the mask of a picture is called: its number, and the name without what file systems may refuse.

    >>> mask_name(7, "scans/knee one.jpg")
    '000007_knee_one.png'
    """
    stem = re.sub(r"[^A-Za-z0-9._-]+", "_", Path(picture).stem)[:_NAME].strip("._") or "picture"
    return f"{index:06d}_{stem}.png"


def _take(staged: Path, folder: Path) -> None:
    """Move masks into their folder; none of them if one would replace what is not ours."""
    names = sorted(path.name for path in staged.iterdir())
    for name in names:
        _require_own(folder / name)
    with folder_for(folder):
        for name in names:
            (staged / name).replace(folder / name)
    for path in folder.iterdir():  # of an earlier call: no row names them any more
        if path.name not in names and _OURS.fullmatch(path.name) and not path.is_symlink() and is_own_picture(path):
            path.unlink()


def _require_own(path: Path) -> None:
    """Refuse to replace what was not written by visionforge.

    Raises:
        RunError: If something else lies there.
    """
    if (path.exists() or path.is_symlink()) and not (not path.is_symlink() and is_own_picture(path)):
        raise RunError(f"out: {shown(path)} would be replaced, and was not written by predict; name another table")


def _is_own(path: Path) -> bool:
    """Return whether a file among masks that are not in their places yet is one, or what there is of one."""
    if _HALF.fullmatch(path.name) and path.stat().st_size == 0:
        return True
    return bool((_OURS.fullmatch(path.name) or _HALF.fullmatch(path.name)) and is_own_picture(path))
