"""Masks and boxes of pictures of any size, one picture after the other; the only part that needs torch."""

import base64
import io
from collections.abc import Sequence
from typing import Any

from visionforge.data.pictures import SUFFIXES, read_whole
from visionforge.data.whole_pictures import WholePicture, with_own_channels
from visionforge.engine.picture_outputs import OVERLAP, Tiles
from visionforge.engine.whole_predictions import shown_image
from visionforge.errors import DataError
from visionforge.evaluation.class_names import unique_names
from visionforge.serving.answers import Answer, table_answers
from visionforge.serving.reading import Picture


class PlaceReader:
    """Masks or boxes of pictures, which are scaled and divided into tiles as `predict` does.

    Args:
        predictor: Says something of tiles.
        batch_size: Tiles at once.
    """

    def __init__(self, predictor: Any, batch_size: int) -> None:
        self._predictor = predictor
        self._tiles = Tiles(True, OVERLAP, batch_size)
        self._answer = self._mask if predictor.spec.kind.dense else self._boxes
        self.suffixes = tuple(sorted(SUFFIXES))

    def read(self, name: str, content: bytes, max_pixels: int) -> Picture:
        """Read a whole picture, its shorter side scaled to the network's resolution."""
        spec = self._predictor.spec
        image, size = read_whole(io.BytesIO(content), spec.resolution, spec.fit, spec.intensity, max_pixels)
        return Picture(name, WholePicture(name, with_own_channels(image, spec.channels), size))

    def answers(self, pictures: Sequence[Picture]) -> list[Answer]:
        """Return what is said of each; one that is too large is told so."""
        found: list[Answer] = []
        for picture in pictures:
            whole: WholePicture = picture.pixels
            height, width = whole.size
            try:
                said = self._answer(whole)
            except DataError as error:
                found.append({"name": picture.name, "error": "; ".join(error.problems)})
            else:
                found.append({"name": picture.name, "width": width, "height": height, **said})
        return found

    def _mask(self, whole: WholePicture) -> Answer:
        from visionforge.engine.mask_predictions import mask_of
        from visionforge.evaluation.mask_files import SAID, mask_columns, mask_png, palette

        assert whole.image is not None
        spec = self._predictor.spec
        said = mask_of(self._predictor, self._tiles, shown_image(spec, whole.image), whole)
        homes = {f"{SAID}_{name}": (SAID, name) for name in unique_names(spec)}
        (answer,) = table_answers(mask_columns(spec, said, []), homes)
        return {**answer, "mask": base64.b64encode(mask_png(said.labels[0], palette(spec))).decode("ascii")}

    def _boxes(self, whole: WholePicture) -> Answer:
        from visionforge.engine.box_predictions import boxes_of
        from visionforge.evaluation.box_files import row_columns

        assert whole.image is not None
        spec = self._predictor.spec
        rows = boxes_of(self._predictor, self._tiles, shown_image(spec, whole.image), whole)
        return {"boxes": table_answers(row_columns(spec, rows.numpy()), {})}
