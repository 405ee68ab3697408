"""Anybody's pictures, of any size, on their way through a network that says something of places in them."""

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from visionforge.data.info import TaskSpec
from visionforge.data.picture_sources import ArchiveImages, PictureFiles
from visionforge.data.whole_pictures import WholePicture, whole_pictures
from visionforge.engine.picture_outputs import Failures, Tiles
from visionforge.errors import DataError
from visionforge.evaluation.prediction_table import Filled, headings_of, rows_of
from visionforge.evaluation.table_writers import TableWriter, open_table
from visionforge.runs.signals import Interruption


class Writer(Protocol):
    """Says something of pictures, and writes what there is of it beside the table."""

    def said(self, image: Tensor, picture: WholePicture) -> Any:
        """Return what is said of a picture, at its own size.

        Args:
            image: (C, H, W) uint8, at least as large as the network's square if training pictures were padded to it.
            picture: The picture; its `image` has the size that counts.

        Raises:
            DataError: If it is too large.
        """

    def columns(self, index: int, picture: WholePicture, said: Any) -> list[Filled]:
        """Write what is said of a picture, and return its part of the table."""

    def take(self) -> None:
        """Put what was written into its place: all pictures are predicted."""


@dataclass(frozen=True)
class WholeStream:
    """Pictures of any size on their way into a table.

    Attributes:
        spec: The task.
        writer: Says something of each.
        listed: The pictures.
        tiles: How they are scaled.
        threads: That decode.
        progress: Told how many files are done, and how many there are.
        warn: Told of a picture that could not be read.
    """

    spec: TaskSpec
    writer: Writer
    listed: Sequence[PictureFiles | ArchiveImages]
    tiles: Tiles
    threads: int
    progress: Callable[[int, int], None]
    warn: Callable[[str], None]

    def write(self, out: Path, errors: Path, total: int, interruption: Interruption) -> int:
        """Write tables, and what the writer has, when the last picture is predicted; return how many failed.

        Args:
            out: The table.
            errors: The table of the files that could not be read.
            total: Number of files.
            interruption: Handles the signals; a picture is finished first.

        Raises:
            RunError: If none could be read, or something would be replaced that is not ours.
            Interrupted: If a signal ended it; then nothing was written.
        """
        spec = self.spec
        side = spec.resolution if self.tiles.scaled else None
        pictures = whole_pictures(self.listed, side, spec.channels, self.threads, spec.fit, spec.intensity)
        with contextlib.ExitStack() as stack:
            table: TableWriter | None = None
            failures = Failures(errors, self.warn, stack)
            self.progress(0, total)
            for index, picture in enumerate(stack.enter_context(contextlib.closing(pictures))):
                interruption.check()
                try:
                    said = self._said(picture)
                except DataError as error:
                    failures.add([(picture.name, "; ".join(error.problems))])
                else:
                    columns = self.writer.columns(index, picture, said)
                    if table is None:
                        table = stack.enter_context(open_table(out, headings_of(columns)))
                    table.write(rows_of(columns))
                self.progress(index + 1, total)
            failures.require_any_read(total)
            self.writer.take()
        return failures.count

    def _said(self, picture: WholePicture) -> Any:
        """Return what is said of a picture.

        Raises:
            DataError: If it could not be read, or is too large.
        """
        if picture.image is None:
            raise DataError(picture.reason)
        return self.writer.said(shown_image(self.spec, picture.image), picture)


def shown_image(spec: TaskSpec, pixels: npt.NDArray[np.uint8]) -> Tensor:
    """Return (C, H, W) a whole picture as a network is shown it."""
    image, side = torch.from_numpy(pixels), spec.resolution
    height, width = image.shape[1:]
    if spec.fit == "pad":  # with black, as training pictures were
        return F.pad(image, (0, max(0, side - width), 0, max(0, side - height)))
    return image
