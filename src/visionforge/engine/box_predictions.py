"""Boxes of anybody's pictures, of any size: a row of the table for each, and the same in the format of COCO."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from visionforge.data.whole_pictures import WholePicture
from visionforge.engine.picture_outputs import COCO_HEAD, Tiles, coco_file
from visionforge.evaluation.box_files import row_columns
from visionforge.evaluation.prediction_table import Filled
from visionforge.evaluation.table_writers import Column
from visionforge.inference.tiling import tiled_boxes
from visionforge.models.box_selection import clipped, wide
from visionforge.runs.files import replacing


class BoxWriter:
    """Boxes of pictures as a file of COCO beside the table; see `visionforge.engine.whole_predictions.Writer`.

    The file is written as pictures come: what is found first, then the list of the pictures.

    Args:
        predictor: Says of tiles (B, C, R, R) uint8 which boxes there are, and has a `spec` and `settings`.
        tiles: How pictures are divided.
        file: Of COCO, at its beginning.
    """

    def __init__(self, predictor: Any, tiles: Tiles, file: IO[bytes]) -> None:
        self._predictor = predictor
        self._tiles = tiles
        self._file = file
        self._images: list[tuple[int, str, int, int]] = []  # number, name, width, height
        self._boxes = 0
        file.write(COCO_HEAD.encode())

    def said(self, image: Tensor, picture: WholePicture) -> Tensor:
        """Return (M, 6) rows [class, score, x1, y1, x2, y2] by falling score, in pixels of the picture as it is."""
        return boxes_of(self._predictor, self._tiles, image, picture)

    def columns(self, index: int, picture: WholePicture, said: Tensor) -> list[Filled]:
        """Write the boxes of a picture, and return its rows of the table; there may be none."""
        height, width = picture.size
        self._images.append((index, picture.name, width, height))
        for kind, score, x1, y1, x2, y2 in said.double().tolist():
            entry = {
                "id": self._boxes + 1,  # 0 is no box in COCO's code
                "image_id": index,
                "category_id": int(kind),
                "bbox": [x1, y1, x2 - x1, y2 - y1],
                "area": (x2 - x1) * (y2 - y1),
                "iscrowd": 0,
                "score": score,
            }
            self._write(entry, first=self._boxes == 0)
            self._boxes += 1
        return [(Column("path"), [picture.name] * len(said)), *row_columns(self._predictor.spec, said.numpy())]

    def take(self) -> None:
        """Write the pictures and the classes, with which the file ends."""
        self._file.write(b'], "images": [')
        for place, (index, name, width, height) in enumerate(self._images):
            self._write({"id": index, "file_name": name, "width": width, "height": height}, first=place == 0)
        classes = self._predictor.spec.classes
        categories = json.dumps([{"id": number, "name": name} for number, name in enumerate(classes)])
        self._file.write(f'], "categories": {categories}}}\n'.encode())

    def _write(self, entry: dict[str, Any], first: bool) -> None:
        self._file.write(("" if first else ",\n").encode() + json.dumps(entry, allow_nan=False).encode())


def boxes_of(predictor: Any, tiles: Tiles, image: Tensor, picture: WholePicture) -> Tensor:
    """Return (M, 6) the boxes of a picture in its own pixels, as `BoxWriter.said` does; see `BoxWriter`."""

    def of_tiles(given: Tensor) -> list[Tensor]:
        found = torch.from_numpy(predictor(given).labels)
        return [rows[rows[:, 0] >= 0] for rows in found]

    assert picture.image is not None
    iou = predictor.settings.detector.nms_iou
    rows = tiled_boxes(of_tiles, image, predictor.spec.resolution, tiles.overlap, iou, tiles.batch_size).cpu()
    (height, width), (own_height, own_width) = picture.image.shape[1:], picture.size
    boxes = clipped(rows[:, 2:], (height, width))  # what it was padded with is left out
    scale = torch.tensor([own_width / width, own_height / height] * 2)
    return torch.cat([rows[:, :2], boxes * scale], dim=1)[wide(boxes)]


@contextlib.contextmanager
def box_writer(predictor: Any, tiles: Tiles, out: Path) -> Iterator[BoxWriter]:
    """Yield what writes boxes beside a table."""
    with replacing(coco_file(out)) as (file, _):
        yield BoxWriter(predictor, tiles, file)
