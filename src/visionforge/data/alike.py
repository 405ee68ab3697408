"""Which images of many may be copies of each other: neighbours by a perceptual descriptor, also turned.

The descriptor is that of a perceptual hash with its signs kept as numbers: the low frequencies of the discrete cosine
transform of a small grey copy (pHash; Zauner, 2010, "Implementation and benchmarking of perceptual image hash
functions"). Of a copy that is mirrored or turned they only change signs and places, so all eight ways are compared
without another transform. What all images of a data set have in common is taken off first, and every frequency divided
by its deviation, or pictures of one kind (chests, eyes) would all be neighbours.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from visionforge.data.registration import warp
from visionforge.data.thumbnails import VIEWS

FREQUENCIES = 8  # along each axis
HIGHEST = 6  # sum of both frequencies
LEAST_COSINE = 0.6
MOST_NEIGHBOURS = 16  # of an image, among those after it
LEAST_DEVIATION = 2.0  # of the grey values of a copy, of 255; plain images are compared by equality only
MOST_CANDIDATES = 400_000  # that is verified in minutes
MOST_WINDOWED = 6_000  # images up to which parts of each are compared with the others, too; that takes 34 times as long
LEAST_WINDOW_COSINE = 0.75
MOST_WINDOW_NEIGHBOURS = 3
WINDOWS = (  # right and down, in halves of a side, and size
    *((x * 0.14, y * 0.14, 1.0) for x in (-1, 0, 1) for y in (-1, 0, 1) if x or y),
    *((x * 0.1, y * 0.1, 0.9) for x in (-1, 0, 1) for y in (-1, 0, 1)),
)
_INVERSE = np.array([0, 1, 2, 3, 4, 6, 5, 7])  # which view undoes one
_PRIOR = 16  # images; mean and deviation of a handful are drawn to those of any picture
_ROWS, _COLUMNS = 256, 16_384  # descriptors that are compared at a time


@dataclass(frozen=True)
class Candidates:
    """Pairs that are worth a closer look, the most alike first.

    Attributes:
        first: (M,) positions.
        second: (M,) later positions.
        view: (M,) how the first has to be turned to look like the second, a place in `VIEWS`.
        cosine: (M,) cosine of the descriptors.
        left_out: Whether there were more neighbours than are kept.
    """

    first: npt.NDArray[np.int64]
    second: npt.NDArray[np.int64]
    view: npt.NDArray[np.int64]
    cosine: npt.NDArray[np.float32]
    left_out: bool


@dataclass(frozen=True)
class _Common:
    """What the images of a data set have in common, frequency by frequency (8, 8)."""

    mean: npt.NDArray[np.float64]
    deviation: npt.NDArray[np.float64]


def descriptors(copies: npt.NDArray[np.uint8]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    """Return (N, 8, 8) descriptors of unit length, and (N,) which images have some contrast.

    Args:
        copies: (N, S, S) uint8, from `thumbnails`.
    """
    found, contrast = _frequencies(copies)
    return _relative(found, _common(found[contrast])), contrast


def _frequencies(copies: npt.NDArray[np.generic]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    """Return (N, 8, 8) the low frequencies of images of even brightness and contrast, and (N,) which have some."""
    basis = _cosines(copies.shape[1])
    found = np.empty((len(copies), FREQUENCIES, FREQUENCIES), np.float32)
    contrast = np.empty(len(copies), np.bool_)
    for start in range(0, len(copies), _COLUMNS):
        grey = copies[start : start + _COLUMNS].astype(np.float32)
        deviation = grey.std(axis=(1, 2))
        grey = (grey - grey.mean(axis=(1, 2), keepdims=True)) / np.maximum(deviation, 1e-3)[:, None, None]
        found[start : start + _COLUMNS] = basis @ grey @ basis.T
        contrast[start : start + _COLUMNS] = deviation >= LEAST_DEVIATION
    return found, contrast


def _relative(found: npt.NDArray[np.float32], common: _Common) -> npt.NDArray[np.float32]:
    kept = _kept()
    found = (found - common.mean) / np.maximum(common.deviation, 0.05 * common.deviation[kept].max()) * kept
    length = np.sqrt(np.square(found).sum(axis=(1, 2), keepdims=True))
    return np.asarray(found / np.maximum(length, 1e-6), np.float32)


def _kept() -> npt.NDArray[np.bool_]:
    """Return (8, 8) which frequencies are compared; not the first, the brightness."""
    rows, columns = np.indices((FREQUENCIES, FREQUENCIES))
    return np.asarray((rows + columns > 0) & (rows + columns <= HIGHEST))


def _cosines(size: int) -> npt.NDArray[np.float32]:
    """Return (8, size) the first rows of the orthonormal discrete cosine transform."""
    angles = np.pi * np.arange(FREQUENCIES)[:, None] * (np.arange(size) + 0.5) / size
    scale = np.full((FREQUENCIES, 1), np.sqrt(2 / size))
    scale[0] = np.sqrt(1 / size)
    return np.asarray(scale * np.cos(angles), np.float32)


def _common(found: npt.NDArray[np.float32]) -> _Common:
    """Return mean and deviation of every frequency, the same for each of the eight ways to turn the images."""
    rows, columns = np.indices((FREQUENCIES, FREQUENCIES))
    mean = found.sum(axis=0, dtype=np.float64) / (len(found) + _PRIOR)
    mean = np.where((rows % 2 == 0) & (columns % 2 == 0), (mean + mean.T) / 2, 0)
    squares = np.square(found - mean).sum(axis=0)
    prior = 1 / np.maximum(1, rows**2 + columns**2)  # of pictures in general
    prior *= max(1e-3, float(squares.sum())) / max(1, len(found)) / prior.sum()
    variance = (squares + _PRIOR * prior) / (len(found) + _PRIOR)
    return _Common(mean, np.sqrt((variance + variance.T) / 2))


def _turned(found: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return (8, N, 8, 8) the descriptors of turned and mirrored images: a mirror changes the signs of odd rows."""
    signs = np.where(np.arange(FREQUENCIES) % 2, -1, 1).astype(np.float32)
    out = []
    for which in range(len(VIEWS)):
        each = found.swapaxes(1, 2) if which & 4 else found
        each = each * signs[:, None] if which & 2 else each
        out.append(each * signs if which & 1 else each)
    return np.stack(out)


def find_candidates(copies: npt.NDArray[np.uint8]) -> Candidates:
    """Return the pairs of images that look alike, whichever way they are turned.

    Every image is compared with every other, in blocks of bounded memory: 8 × N² / 2 products of 27 numbers. Up to
    6,000 images, moved and cropped parts of each are compared with the others as well.

    Args:
        copies: (N, S, S) uint8, from `thumbnails`.
    """
    found, contrast = _frequencies(copies)
    where = np.flatnonzero(contrast)
    common = _common(found[contrast])
    shown = _relative(found[where], common)
    rows = [_neighbours(shown, shown, MOST_NEIGHBOURS, LEAST_COSINE, later=True)]
    left_out = bool((np.bincount(rows[0][:, 0].astype(np.int64)) == MOST_NEIGHBOURS).any())
    for window in WINDOWS if 0 < len(shown) <= MOST_WINDOWED else ():
        place = torch.tensor([[window[0], window[1], float(np.log(window[2]))]]).expand(len(where), -1)
        parts = warp(torch.from_numpy(copies[where].astype(np.float32))[:, None], place)[0][:, 0].numpy()
        seen = _relative(_frequencies(parts)[0], common)
        rows.append(_neighbours(seen, shown, MOST_WINDOW_NEIGHBOURS, LEAST_WINDOW_COSINE, later=False))
    return _distinct(np.concatenate(rows), where, left_out)


def _distinct(rows: npt.NDArray[np.float64], where: npt.NDArray[np.int64], left_out: bool) -> Candidates:
    """Return rows (first, second, view, cosine) as pairs in order, each once, by its greatest cosine."""
    first, second, which = rows[:, :3].astype(np.int64).T
    earlier = first > second
    first, second, which = (
        np.where(earlier, second, first),
        np.where(earlier, first, second),
        np.where(earlier, _INVERSE[which], which),
    )
    order = np.lexsort((-rows[:, 3], second, first))
    again = np.zeros(len(order), np.bool_)
    again[1:] = (np.diff(first[order]) == 0) & (np.diff(second[order]) == 0)
    order = order[~again]
    order = order[np.argsort(-rows[order, 3], kind="stable")]
    left_out |= len(order) > MOST_CANDIDATES
    order = order[:MOST_CANDIDATES]
    return Candidates(where[first[order]], where[second[order]], which[order], rows[order, 3], left_out)


def _neighbours(
    queries: npt.NDArray[np.float32], shown: npt.NDArray[np.float32], most: int, least: float, later: bool
) -> npt.NDArray[np.float64]:
    """Return (M, 4) query, neighbour, how the query is turned, and cosine.

    Args:
        queries: (N, 8, 8) descriptors of the images, or of parts of them.
        shown: (N, 8, 8) descriptors of the images.
        most: Neighbours of each.
        least: Smallest cosine.
        later: Take only images behind the query.
    """
    kept = _kept()
    flat = torch.from_numpy(np.ascontiguousarray(shown[:, kept]))
    parts = [np.empty((0, 4))]
    for start in range(0, len(queries), _ROWS):
        turned = torch.from_numpy(np.ascontiguousarray(_turned(queries[start : start + _ROWS])[:, :, kept]))
        cosine, other = _nearest(turned, flat, start, most, later)
        row, column = torch.nonzero(cosine >= least, as_tuple=True)
        neighbour = other[row, column]
        ways = torch.einsum("vmd,md->vm", turned[:, row], flat[neighbour]).argmax(dim=0)
        found = torch.stack([row + start, neighbour, ways, cosine[row, column]], dim=1)
        parts.append(found.double().numpy())
    return np.concatenate(parts)


def _nearest(turned: Tensor, flat: Tensor, start: int, most: int, later: bool) -> tuple[Tensor, Tensor]:
    """Return cosines and positions (B, at most `most`) of the images that are most alike to those of a block.

    Args:
        turned: (8, B, D) descriptors of the block, in all ways.
        flat: (N, D) all descriptors.
        start: Position of the block.
        most: How many.
        later: Take only images behind each.
    """
    count = turned.shape[1]
    best, where = torch.empty(count, 0), torch.empty(count, 0, dtype=torch.int64)
    own = torch.arange(count)[:, None] + start
    for begin in range(start if later else 0, len(flat), _COLUMNS):
        part = flat[begin : begin + _COLUMNS]
        cosine = turned[0] @ part.T
        for each in turned[1:]:
            torch.maximum(cosine, each @ part.T, out=cosine)
        if begin < start + count:
            position = torch.arange(len(part)) + begin
            cosine.masked_fill_(position <= own if later else position == own, -2.0)
        near, place = cosine.topk(min(most, len(part)), dim=1)
        best, where = torch.cat([best, near], dim=1), torch.cat([where, place + begin], dim=1)
        best, order = best.topk(min(most, best.shape[1]), dim=1)
        where = where.gather(1, order)
    return best, where
