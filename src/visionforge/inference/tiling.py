"""Pictures larger than a network's resolution: predicted tile by tile, and what was said of the tiles put together.

Tiles overlap, because a network knows least of what lies at the edge of its picture. Masks are blended by a window that
falls towards the edge of a tile, boxes merged by non-maximum suppression. A picture that is smaller than a tile is
continued by its mirror image, and what is said of that is left out.
"""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision.ops import batched_nms

from visionforge.errors import DataError

MOST_OVERLAP = 0.75  # a pixel is then in 16 tiles; beyond, time grows and nothing else
TILES_AT_ONCE = 16
_FLOOR = 0.01  # of the window, at the edge of a tile
_MOST_VALUES = 1 << 30  # of a blended prediction: 4 GiB
_AT_EDGE = 1 / 50  # of a tile's side: a box that ends as near to an edge has likely been cut there
_CUT_RANK = 0.5  # by how much a cut box ranks lower than a whole one of the same score
_COVERED = 0.7  # share of a cut box within another one from which on it is a part of the same object
BOX_COLUMNS = 6  # class, score, x1, y1, x2, y2


@dataclass(frozen=True)
class _Span:
    """One tile along one axis.

    Attributes:
        outer: Pixels of the picture that the tile shows.
        inner: The same as pixels of the tile; the others continue the picture.
        source: (R,) which of `outer` each pixel of the tile shows; None has them all, in their order.
        offset: What is added to a coordinate in the tile to have it in the picture.
        cut: Whether the tile's first, and its last edge, lies inside the picture.
        share: (outer,) weight of the tile at each pixel, of all tiles 1.
    """

    outer: slice
    inner: slice
    source: Tensor | None
    offset: int
    cut: tuple[bool, bool]
    share: Tensor


def tile_starts(length: int, tile: int, overlap: float) -> list[int]:
    """Return where the tiles of an axis begin: the first at 0, the last flush with the end, the others evenly between.

    Args:
        length: Pixels of the axis.
        tile: Pixels of a tile; an axis that is not longer has one tile.
        overlap: Smallest share of a tile that is also in the next one, 0 to 0.75; they are spread evenly, so it is
            often more.

    Raises:
        ValueError: If an argument is out of its range.

    >>> tile_starts(100, 40, 0.25)
    [0, 30, 60]
    """
    if length < 1 or tile < 1:
        raise ValueError(f"length, tile: {length}, {tile}; allowed: at least 1 pixel each")
    if not 0 <= overlap <= MOST_OVERLAP:
        raise ValueError(f"overlap: {overlap} is not allowed; allowed: 0 to {MOST_OVERLAP}, a share of a tile")
    rest = length - tile
    if rest <= 0:
        return [0]
    step = max(1, math.floor(tile * (1 - overlap)))
    gaps = -(-rest // step)
    return [number * rest // gaps for number in range(gaps + 1)]


def tile_window(tile: int) -> Tensor:
    """Return (R,) float64 weights along a tile: a raised cosine, 1 in the middle, never below 0.01.

    Args:
        tile: Pixels of a tile.
    """
    place = (torch.arange(tile, dtype=torch.float64) + 0.5) / tile
    return _FLOOR + (1 - _FLOOR) * torch.sin(math.pi * place) ** 2


def mirrored(length: int, size: int) -> Tensor:
    """Return (size,) which pixel of an axis is shown at each place when it is continued evenly to both sides.

    The mirror stands on the outermost pixel, as in `numpy.pad(mode="reflect")`, and as often as needed; a single pixel
    is repeated.

    Args:
        length: Pixels of the axis.
        size: Pixels that are needed; at least `length`.

    >>> mirrored(3, 7).tolist()
    [2, 1, 0, 1, 2, 1, 0]
    """
    place = torch.arange(size) - (size - length) // 2
    if length == 1:
        return torch.zeros_like(place)
    period = 2 * (length - 1)
    place = place % period
    return torch.minimum(place, period - place)


def _spans(length: int, tile: int, overlap: float) -> list[_Span]:
    starts = tile_starts(length, tile, overlap)
    shown = min(length, tile)
    before = (tile - shown) // 2
    source = mirrored(length, tile) if length < tile else None
    window = tile_window(tile)[before : before + shown]
    total = torch.zeros(length, dtype=torch.float64)
    for start in starts:
        total[start : start + shown] += window
    return [
        _Span(
            outer=slice(start, start + shown),
            inner=slice(before, before + shown),
            source=source,
            offset=start - before,
            cut=(start > 0, start + shown < length),
            share=window / total[start : start + shown],
        )
        for start in starts
    ]


def _tiles(
    image: Tensor, resolution: int, overlap: float, batch_size: int
) -> Iterator[tuple[list[tuple[_Span, _Span]], Tensor]]:
    """Yield places (row, column) of some tiles, and the tiles (B, C, R, R)."""
    if image.ndim != 3 or not image.numel() or image.dtype != torch.uint8:
        raise ValueError(f"image: {tuple(image.shape)} {image.dtype}; allowed: (C, H, W) uint8, at least one pixel")
    if batch_size < 1:
        raise ValueError(f"batch_size: {batch_size} is not allowed; allowed: at least 1 tile")
    rows, columns = (_spans(length, resolution, overlap) for length in image.shape[1:])
    places = itertools.product(rows, columns)
    while batch := list(itertools.islice(places, batch_size)):
        yield batch, torch.stack([_cut(image, row, column) for row, column in batch])


def _cut(image: Tensor, row: _Span, column: _Span) -> Tensor:
    tile = image[:, row.outer, column.outer]
    for axis, span in ((1, row), (2, column)):
        if span.source is not None:
            tile = tile.index_select(axis, span.source.to(tile.device))
    return tile


@torch.no_grad()
def predict_tiled(
    predict: Callable[[Tensor], Tensor],
    image: Tensor,
    resolution: int,
    overlap: float,
    batch_size: int = TILES_AT_ONCE,
) -> Tensor:
    """Return what is said of every pixel of a picture of any size, blended from overlapping tiles.

    The weights of the tiles add up to 1 at every pixel, so that probabilities stay probabilities. Blend probabilities
    rather than logits: the mean of logits is the prediction of no tile where one of them is far surer than the others.
    A picture of the network's resolution is one tile, and the result exactly what `predict` returns. In memory are one
    batch of tiles and the result.

    Args:
        predict: Gives float outputs (B, K, R, R) for tiles (B, C, R, R) uint8, which are where `image` is.
        image: (C, H, W) uint8.
        resolution: Side R of a tile in pixels.
        overlap: Smallest share of a tile that is also in the next one, 0 to 0.75.
        batch_size: Tiles that are predicted at once.

    Returns:
        (K, H, W) where `image` is; float32, or float64 if the outputs are.

    Raises:
        ValueError: If an argument is out of its range, or the outputs are not for every pixel of the tiles.
        DataError: If the result is too large to hold.
    """
    blended: Tensor | None = None
    for places, tiles in _tiles(image, resolution, overlap, batch_size):
        outputs = predict(tiles)
        expected = (len(tiles), resolution, resolution)
        fits = outputs.ndim == 4 and (outputs.shape[0], *outputs.shape[2:]) == expected and outputs.is_floating_point()
        if not fits or (blended is not None and outputs.shape[1] != blended.shape[0]):
            form = f"({len(tiles)}, K, {resolution}, {resolution})"
            raise ValueError(f"predict: gives {tuple(outputs.shape)} {outputs.dtype}; allowed: {form} float")
        if blended is None:
            blended = _empty(image, outputs)
        for (row, column), output in zip(places, outputs.to(image.device, blended.dtype), strict=True):
            share = torch.outer(row.share, column.share).to(image.device, blended.dtype)
            blended[:, row.outer, column.outer] += output[:, row.inner, column.inner] * share
    assert blended is not None  # there is always a tile
    return blended


def _empty(image: Tensor, outputs: Tensor) -> Tensor:
    """Return zeros for the blended outputs."""
    classes, (height, width) = outputs.shape[1], image.shape[1:]
    if classes * height * width > _MOST_VALUES:
        raise DataError(
            f"a picture of {width} × {height} pixels and {classes} classes is too large to predict at once; allowed: "
            f"{_MOST_VALUES // classes:,} pixels; divide it, or make it smaller"
        )
    kind = torch.float64 if outputs.dtype == torch.float64 else torch.float32
    return torch.zeros(classes, height, width, dtype=kind, device=image.device)


@torch.no_grad()
def tiled_boxes(
    predict_boxes: Callable[[Tensor], Sequence[Tensor]],
    image: Tensor,
    resolution: int,
    overlap: float,
    nms_iou: float,
    batch_size: int = TILES_AT_ONCE,
) -> Tensor:
    """Return the boxes of a picture of any size, merged from overlapping tiles.

    Boxes are moved to the picture and clipped to it. What is said of a single tile stays so. Of several, non-maximum
    suppression within each class removes what more than one has found, and a box that ends at an edge of its tile is
    removed if most of it lies in another one of its class: it shows the part of an object that its tile had. An object
    that is larger than the overlap may be whole in no tile, and then stays in parts; so choose the overlap by the
    largest object.

    Args:
        predict_boxes: Gives for tiles (B, C, R, R) uint8 one tensor (M, 6) each, of rows class, score, x1, y1, x2, y2,
            in pixels of the tile, from its upper left corner.
        image: (C, H, W) uint8.
        resolution: Side R of a tile in pixels.
        overlap: Smallest share of a tile that is also in the next one, 0 to 0.75.
        nms_iou: IoU above which the box of the lower score goes, 0 to 1.
        batch_size: Tiles that are predicted at once.

    Returns:
        (M, 6) float32 where `image` is, in pixels of the picture, by falling score.

    Raises:
        ValueError: If an argument is out of its range, or what `predict_boxes` gives does not fit.
    """
    if not 0 <= nms_iou <= 1:
        raise ValueError(f"nms_iou: {nms_iou} is not allowed; allowed: 0 to 1")
    found, cut = [image.new_zeros((0, BOX_COLUMNS), dtype=torch.float32)], [image.new_zeros(0, dtype=torch.bool)]
    for places, tiles in _tiles(image, resolution, overlap, batch_size):
        said = predict_boxes(tiles)
        if len(said) != len(tiles):
            raise ValueError(f"predict_boxes: gives boxes of {len(said)} tiles; allowed: of {len(tiles)}")
        for (row, column), rows in zip(places, said, strict=True):
            boxes, at_edge = _moved(rows.to(image.device, torch.float32), row, column, resolution, image)
            found.append(boxes)
            cut.append(at_edge)
    if len(found) == 2:  # one tile: the network has merged its boxes itself
        return found[1]
    return _merged(torch.cat(found), torch.cat(cut), nms_iou)


def _moved(rows: Tensor, row: _Span, column: _Span, resolution: int, image: Tensor) -> tuple[Tensor, Tensor]:
    """Return boxes (M, 6) in pixels of the picture, those outside of it left out, and (M,) which have been cut."""
    if rows.ndim != 2 or rows.shape[1] != BOX_COLUMNS:
        raise ValueError(f"predict_boxes: gives {tuple(rows.shape)}; allowed: (M, {BOX_COLUMNS}) for each tile")
    if not bool((torch.isfinite(rows).all(dim=1) & (rows[:, :2] >= 0).all(dim=1)).all()):
        raise ValueError("predict_boxes: gives rows that are not finite, or classes or scores below 0")
    near = resolution * _AT_EDGE
    (left, right), (top, bottom) = column.cut, row.cut
    x1, y1, x2, y2 = rows[:, 2:].unbind(dim=1)
    cut = torch.zeros(len(rows), dtype=torch.bool, device=rows.device)
    for is_inside, distance in ((left, x1), (top, y1), (right, resolution - x2), (bottom, resolution - y2)):
        if is_inside:
            cut |= distance <= near
    height, width = image.shape[1:]
    x1, x2 = ((x + column.offset).clamp(0, width) for x in (x1, x2))
    y1, y2 = ((y + row.offset).clamp(0, height) for y in (y1, y2))
    kept = (x2 > x1) & (y2 > y1)
    return torch.cat([rows[:, :2], torch.stack([x1, y1, x2, y2], dim=1)], dim=1)[kept], cut[kept]


def _merged(rows: Tensor, cut: Tensor, nms_iou: float) -> Tensor:
    """Return boxes (M, 6) without those that show what another one shows, by falling score."""
    scores = torch.where(cut, rows[:, 1] * _CUT_RANK, rows[:, 1])
    kept = batched_nms(rows[:, 2:], scores, rows[:, 0].long(), nms_iou)
    rows, cut = rows[kept], cut[kept]
    size = (rows[:, 4:] - rows[:, 2:4]).prod(dim=1)
    is_part = torch.zeros_like(cut)
    for number in torch.nonzero(cut).flatten().tolist():  # one at a time: all pairs could be too many
        box = rows[number]
        low, high = torch.maximum(box[2:4], rows[:, 2:4]), torch.minimum(box[4:], rows[:, 4:])
        common = (high - low).clamp(min=0).prod(dim=1)
        is_part[number] = ((common >= _COVERED * size[number]) & (rows[:, 0] == box[0]) & (size > size[number])).any()
    rows = rows[~is_part]
    return rows[torch.argsort(rows[:, 1], descending=True, stable=True)]
