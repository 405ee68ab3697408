"""Masks of anybody's pictures, of any size: a PNG for each, which the table names."""

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from visionforge.data.whole_pictures import WholePicture
from visionforge.engine.picture_outputs import Tiles, mask_folder
from visionforge.errors import RunError
from visionforge.evaluation.mask_files import mask_columns, palette, write_mask
from visionforge.evaluation.prediction_table import Filled
from visionforge.evaluation.table_writers import Column
from visionforge.inference.mask_predictor import MaskPrediction
from visionforge.inference.tiling import predict_tiled
from visionforge.runs.own_pictures import is_own_picture
from visionforge.runs.owned_files import folder_for
from visionforge.runs.paths import shown
from visionforge.runs.staging import staging

_OURS = re.compile(r"[0-9]{6,}_[A-Za-z0-9._-]+\.png")  # names that `mask_name` makes
_HALF = re.compile(rf"\.{_OURS.pattern}\.[a-z0-9_]{{8}}\.tmp")  # of masks that are being written
_NAME = 60  # characters of a picture's name in that of its mask


class MaskWriter:
    """Masks of pictures as PNG files in a folder beside the table; see `visionforge.engine.whole_predictions.Writer`.

    Args:
        predictor: Gives `outputs` (B, K, R, R) for tiles (B, C, R, R) uint8, has a `spec`, and says whether it
            `averages` test-time views.
        tiles: How pictures are divided.
        folder: Of the masks.
        staged: Where they lie until all are there.
    """

    def __init__(self, predictor: Any, tiles: Tiles, folder: Path, staged: Path) -> None:
        self._predictor = predictor
        self._tiles = tiles
        self._folder = folder
        self._staged = staged
        self._colours = palette(predictor.spec)

    def said(self, image: Tensor, picture: WholePicture) -> MaskPrediction:
        """Return the mask of a picture at its own size.

        Raises:
            DataError: If it is too large.
        """
        return mask_of(self._predictor, self._tiles, image, picture)

    def columns(self, index: int, picture: WholePicture, said: MaskPrediction) -> list[Filled]:
        """Write a mask, and return its row of the table.

        Raises:
            RunError: If it would replace what is not ours.
        """
        name = mask_name(index, picture.name)
        _require_own(self._folder / name)  # told before there is more work to lose
        write_mask(self._staged / name, said.labels[0], self._colours)
        keys: list[Filled] = [(Column("path"), [picture.name]), (Column("mask"), [f"{self._folder.name}/{name}"])]
        return mask_columns(self._predictor.spec, said, keys)

    def take(self) -> None:
        """Move the masks into their folder; none of them if one would replace what is not ours."""
        _take(self._staged, self._folder)


@contextlib.contextmanager
def mask_writer(predictor: Any, tiles: Tiles, out: Path) -> Iterator[MaskWriter]:
    """Yield what writes masks beside a table.

    Raises:
        LockedError: If somebody else writes there.
    """
    folder = mask_folder(out)
    with staging(folder.absolute(), _is_own) as staged:
        yield MaskWriter(predictor, tiles, folder, staged)


def mask_of(predictor: Any, tiles: Tiles, image: Tensor, picture: WholePicture) -> MaskPrediction:
    """Return the mask of a picture at its own size; see `MaskWriter`.

    Raises:
        DataError: If it is too large.
    """
    assert picture.image is not None
    height, width = picture.image.shape[1:]
    form = predictor.spec.resolution, tiles.overlap, tiles.batch_size
    blended = predict_tiled(predictor.outputs, image, *form)[:, :height, :width]
    return _decided(blended.cpu(), picture.size, predictor.averages)


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
