"""Splits of whole groups, such as patients, whose shares of images and of every class are near to those asked for."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

MOST_COUNTS = 20_000_000  # counts of images by group and class that are looked at; the rarest classes are left out
MOST_PAIRS = 600  # groups of which pairs are exchanged: of more, moving single ones comes as near
FEW, STARTS = 60, 8  # groups of which the best of some divisions is taken
MOST_STEPS = 2_000
_LEAST = 1e-9  # by which a step has to make it better; below lies rounding

Counts = npt.NDArray[np.float64]


def divide_groups(
    labels: npt.NDArray[np.integer], groups: npt.NDArray[np.str_], shares: Sequence[float], seed: int
) -> npt.NDArray[np.int64]:
    """Return (N,) the split of each image, from 0: those of a group are in the same one.

    Groups are divided at random; then, as long as that brings the splits nearer to what is asked for, a group moves to
    another split or two change places. How far they are is Pearson's χ² of the images of every class, and of all
    images, in every split.

    Args:
        labels: (N,) class of each image, or (N, L) labels 0/1.
        groups: (N,) group of each image.
        shares: Of the images that each split is to have; they sum to 1.
        seed: Of the division.

    Raises:
        ValueError: If there are fewer groups than splits.

    >>> groups = np.repeat(np.array([f"p{number}" for number in range(10)]), 3)
    >>> found = divide_groups(np.zeros(30, dtype=np.int64), groups, (0.7, 0.1, 0.2), seed=0)
    >>> np.bincount(found).tolist()
    [21, 3, 6]
    """
    names, member = np.unique(groups, return_inverse=True)
    if len(names) < len(shares):
        raise ValueError(f"{len(names)} groups cannot be spread over {len(shares)} splits")
    counts, draw = _counts(labels, member, len(names)), np.random.default_rng(seed)
    tried = [_Division(counts, np.asarray(shares), draw) for _ in range(STARTS if len(names) <= FEW else 1)]
    return min(tried, key=_Division.improve).split[member]


def _counts(labels: npt.NDArray[np.integer], member: npt.NDArray[np.integer], groups: int) -> Counts:
    """Return (G, 1 + K) images of each group, in all and by class."""
    images = np.bincount(member, minlength=groups)
    if labels.ndim == 1:
        present, label = np.unique(labels, return_inverse=True)
        totals = np.bincount(label)
    else:
        present, label = np.flatnonzero(labels.any(axis=0)), labels
        totals = labels[:, present].sum(axis=0)
    kept = np.argsort(-totals, kind="stable")[: max(1, MOST_COUNTS // groups)]
    if labels.ndim == 1:
        columns = [np.bincount(member[label == each], minlength=groups) for each in kept]
    else:
        columns = [np.bincount(member, weights=labels[:, present[each]], minlength=groups) for each in kept]
    return np.stack([images, *columns], axis=1).astype(np.float64)


class _Division:
    """Groups in splits.

    Args:
        counts: (G, K) images of each group, by what is to be divided evenly.
        shares: (S,) what each split is to have.
        draw: Makes the division that is improved, and decides which of equal steps is taken.
    """

    def __init__(self, counts: Counts, shares: Counts, draw: np.random.Generator) -> None:
        self._order = draw.permutation(len(counts))
        counts = counts[self._order]
        self._counts = counts
        self._wanted = shares[:, None] * counts.sum(axis=0)
        self._weights = 1 / np.maximum(self._wanted, _LEAST)
        self._squares = counts**2 @ self._weights.T  # (G, S): what a group adds to a split by itself
        size = np.maximum(1, np.rint(shares * len(counts)).astype(np.int64))
        size[np.argmax(size)] += len(counts) - size.sum()
        self._split = np.repeat(np.arange(len(shares)), size)

    @property
    def split(self) -> npt.NDArray[np.int64]:
        """Return (G,) the split of each group."""
        return self._split[np.argsort(self._order)]

    def improve(self) -> float:
        """Let groups move and change places until that makes nothing better, and return how far it is then."""
        for _ in range(MOST_STEPS):
            there = np.zeros_like(self._wanted)
            np.add.at(there, self._split, self._counts)
            beside = there - self._wanted
            slopes = 2 * self._counts @ (self._weights * beside).T  # (G, S): of a group that comes
            if not self._move(slopes) and not (len(self._counts) <= MOST_PAIRS and self._exchange(slopes)):
                break
        return float((self._weights * beside**2).sum())

    def _move(self, slopes: Counts) -> bool:
        """Put the group elsewhere that makes it the best; return whether there is one."""
        every, own = np.arange(len(self._counts)), self._split
        change = slopes + self._squares + (self._squares[every, own] - slopes[every, own])[:, None]
        change[every, own] = 0.0
        change[np.bincount(own, minlength=len(self._wanted))[own] == 1] = 0.0  # no split becomes empty
        group, split = np.unravel_index(np.argmin(change), change.shape)
        if change[group, split] > -_LEAST:
            return False
        self._split[group] = split
        return True

    def _exchange(self, slopes: Counts) -> bool:
        """Let the two groups change places that make it the best; return whether there are any."""
        best, chosen = -_LEAST, None
        for one in range(len(self._wanted)):
            for two in range(one):
                here, there = np.flatnonzero(self._split == one), np.flatnonzero(self._split == two)
                weights = self._weights[one] + self._weights[two]
                left, right = self._counts[here] * np.sqrt(weights), self._counts[there] * np.sqrt(weights)
                apart = (left**2).sum(axis=1)[:, None] + (right**2).sum(axis=1) - 2 * left @ right.T
                leaving = (slopes[here, two] - slopes[here, one])[:, None]
                coming = slopes[there, one] - slopes[there, two]
                change = leaving + coming + apart
                place = np.unravel_index(np.argmin(change), change.shape)
                if change[place] < best:
                    best, chosen = change[place], (here[place[0]], there[place[1]], one, two)
        if chosen is None:
            return False
        group, other, one, two = chosen
        self._split[group], self._split[other] = two, one
        return True
