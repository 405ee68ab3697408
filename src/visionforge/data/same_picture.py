"""Pairs of images that are the same picture, found by descriptors or features and verified by their pixels."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch

from visionforge.data.alike import find_candidates
from visionforge.data.duplicates import change_text
from visionforge.data.inspect import NEAR_DIFFERENCE
from visionforge.data.registration import LEAST_CORRELATION, Registration

CERTAIN_CORRELATION = 0.98
_RANK, _SHARE = 8, 0.4  # which neighbour is the usual one; how much of its distance from 1 a copy may have
_SAME = 0.95  # cosine of descriptors from which an image is taken for a copy, where what all share is computed
_ROWS = 1024  # features that are compared at a time
Found = tuple[int, int, Literal["near", "changed"], float, str]


def same_pictures(
    copies: npt.NDArray[np.uint8], digests: Sequence[bytes], features: npt.NDArray[np.float32] | None = None
) -> tuple[list[Found], bool]:
    """Return (first, second, kind, correlation, change) of the pairs, and whether some were not looked at.

    Args:
        copies: (N, S, S) uint8, from `thumbnails`.
        digests: Digests of the images; equal ones are no pairs.
        features: (N, D) by which more pairs are looked at.
    """
    likely = find_candidates(copies)
    first, second, which = likely.first, likely.second, likely.view
    if features is not None:
        more = nearest_by_features(features, 0.9)
        first = np.concatenate([first, np.array([pair[0] for pair in more], np.int64)])
        second = np.concatenate([second, np.array([pair[1] for pair in more], np.int64)])
        which = np.concatenate([which, np.zeros(len(more), np.int64)])
        _, unique = np.unique(np.stack([first, second]), axis=1, return_index=True)
        first, second, which = first[unique], second[unique], which[unique]
    differ = np.array([digests[a] != digests[b] for a, b in zip(first, second, strict=True)], bool)
    first, second, which = first[differ], second[differ], which[differ]
    distinct = np.ones(len(copies), np.bool_)
    distinct[likely.second[likely.cosine >= _SAME]] = False
    if distinct.sum() < len(copies) / 2:  # they are not copies, but all of one kind
        distinct[:] = True
    fits = Registration(copies, distinct).fits(first, second, which)
    found: list[Found] = []
    for k in np.flatnonzero(_stands_out(first, second, fits.correlation, len(copies))):
        one, two = (copies[each[k]].astype(np.float32) for each in (first, second))
        change = change_text(
            int(which[k]), fits.moved[k].tolist(), float(fits.scale[k]), float(two.mean() - one.mean()), fits.gain[k]
        )
        near = not change and float(np.abs(one - two).mean()) <= NEAR_DIFFERENCE
        kind: Literal["near", "changed"] = "near" if near else "changed"
        found.append((int(first[k]), int(second[k]), kind, float(fits.correlation[k]), change))
    return found, likely.left_out


def _stands_out(
    first: npt.NDArray[np.int64], second: npt.NDArray[np.int64], correlation: npt.NDArray[np.float32], count: int
) -> npt.NDArray[np.bool_]:
    """Return which pairs correlate so much more than either image does with its eighth best, that they are copies.

    Trousers correlate with many other trousers; a copy has to be much closer than those. What hardly differs is a copy
    in any case, as in a film of equal pictures.
    """
    images, values = np.concatenate([first, second]), np.concatenate([correlation, correlation])
    order = np.lexsort((-values, images))
    images, values = images[order], values[order]
    starts = np.searchsorted(images, np.arange(count))
    enough = np.bincount(images, minlength=count) >= _RANK
    usual = np.zeros(count, np.float32)
    usual[enough] = values[starts[enough] + _RANK - 1].clip(0)
    allowed = _SHARE * (1 - np.maximum(usual[first], usual[second]))
    copies = (correlation >= LEAST_CORRELATION) & (1 - correlation <= allowed)
    return np.asarray(copies | (correlation >= CERTAIN_CORRELATION), np.bool_)


def nearest_by_features(features: npt.NDArray[np.float32], least: float) -> list[tuple[int, int, float]]:
    """Return (first, second, cosine) of images that are each other's nearest by their features.

    Args:
        features: (N, D); their mean is taken off.
        least: Smallest cosine.
    """
    values = torch.from_numpy(np.asarray(features, np.float32))
    values = values - values.mean(dim=0)
    values = values / values.norm(dim=1, keepdim=True).clamp(min=1e-6)
    cosines, nearest = [], []
    for start in range(0, len(values), _ROWS):
        each = values[start : start + _ROWS] @ values.T
        each[torch.arange(len(each)), torch.arange(len(each)) + start] = -2.0
        best = each.max(dim=1)
        cosines.append(best.values)
        nearest.append(best.indices)
    cosine, other = torch.cat(cosines), torch.cat(nearest)
    here = torch.arange(len(values))
    mutual = (other[other] == here) & (here < other) & (cosine >= least)
    return [(k, int(other[k]), float(cosine[k])) for k in torch.nonzero(mutual)[:, 0].tolist()]
