"""Boxes of pictures, checked, and which predicted box is which true one: greedy by score, as COCO has it."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from visionforge.scoring.rates import Array, Floats

Flags = npt.NDArray[np.bool_]
Numbers = npt.NDArray[np.int64]
NONE = -1  # class of a row that only fills the array up
MOST_CLASSES = 1 << 12  # each has a row in every table of results
_FARTHEST = 1e9  # pixels; areas stay numbers
_SURE = 1 - 1e-10  # IoU of equal boxes, up to rounding
_PART_CELLS = 1 << 18  # pairs of boxes that are compared together, times thresholds: 2 MB a table
_ROWS = {"truth": "[class, x1, y1, x2, y2]", "predicted": "[class, score, x1, y1, x2, y2]"}


@dataclass(frozen=True)
class Boxes:
    """The R boxes of all pictures, without the rows that fill up.

    Attributes:
        pictures: (R,) number of the picture.
        places: (R,) row within the picture.
        classes: (R,) 0 to K-1.
        scores: (R,) 0 to 1; of true boxes 1.
        corners: (R, 4) x1, y1, x2, y2 in pixels.
    """

    pictures: Numbers
    places: Numbers
    classes: Numbers
    scores: Floats
    corners: Floats

    def rows(self, which: Numbers) -> "Boxes":
        """Return some of the boxes, in the order of their numbers in `which`."""
        return Boxes(
            self.pictures[which], self.places[which], self.classes[which], self.scores[which], self.corners[which]
        )

    def by_picture(self) -> "Boxes":
        """Return the boxes by picture, class and falling score; equal scores stay in their order."""
        return self.rows(np.lexsort((-self.scores, self.classes, self.pictures)))

    @property
    def groups(self) -> Numbers:
        """Return (R,) a number of each one's picture and class."""
        return self.pictures * MOST_CLASSES + self.classes


def read_boxes(name: str, given: Array, classes: int | None = None) -> Boxes:
    """Return the boxes of padded rows, in their order.

    Args:
        name: ``truth``, or ``predicted``, whose rows have a score.
        given: (N, M, 5) or (N, D, 6), a row `_ROWS` a box; the other numbers of a row of class -1 are not read.
        classes: Number of classes K; None allows any up to a bound.

    Raises:
        ValueError: If a shape, a type or a value does not fit.
    """
    width = 5 if name == "truth" else 6
    if given.ndim != 3 or given.shape[2] != width or not len(given):
        letter = "M" if name == "truth" else "D"
        raise ValueError(f"{name}: {given.shape}; allowed: (N, {letter}, {width}), rows {_ROWS[name]} of N pictures")
    if given.dtype.kind not in "fiu":
        raise ValueError(f"{name}: {given.dtype}; allowed: numbers, rows {_ROWS[name]}")
    kinds = given[..., 0].astype(np.float64)
    last = (MOST_CLASSES if classes is None else classes) - 1
    wrong = ~((kinds >= NONE) & (kinds <= last) & (np.floor(kinds) == kinds))
    if wrong.any():
        raise ValueError(
            f"{name}: has the class {kinds[wrong][0]:g}; allowed: 0 to {last}, or -1 in rows without a box"
        )
    pictures, places = np.nonzero(kinds != NONE)
    return checked_boxes(name, pictures, places, given[pictures, places].astype(np.float64))


def checked_boxes(name: str, pictures: Numbers, places: Numbers, rows: Floats) -> Boxes:
    """Return boxes whose numbers can be scored; their pictures and classes are checked by whoever has them.

    Args:
        name: As in `read_boxes`.
        pictures: (R,) number of the picture of each.
        places: (R,) where it stands, for the message.
        rows: (R, 5) or (R, 6), a row `_ROWS` a box.

    Raises:
        ValueError: If a number is not finite, a box has no area, or a score is not between 0 and 1.
    """
    corners = rows[:, -4:]
    wild = ~(np.abs(rows).max(axis=1) <= _FARTHEST)  # also NaN
    _check(name, f"has a number that is not finite, or beyond {_FARTHEST:g}", wild, pictures, places)
    sides = corners[:, 2:] - corners[:, :2]
    flat = (sides <= 0).any(axis=1) | (sides.prod(axis=1) <= 0)
    _check(name, "has no area; allowed: x1 < x2 and y1 < y2, in pixels", flat, pictures, places)
    scores = np.ones(len(rows)) if name == "truth" else rows[:, 1]
    _check(name, "has a score that is not between 0 and 1", (scores < 0) | (scores > 1), pictures, places)
    return Boxes(pictures, places, rows[:, 0].astype(np.int64), scores, corners)


def _check(name: str, problem: str, wrong: Flags, pictures: Numbers, places: Numbers) -> None:
    if wrong.any():
        first = int(wrong.argmax())
        raise ValueError(f"{name}: row {places[first]} of picture {pictures[first]} {problem}")


def check_count(truth: Array, predicted: Array) -> None:
    """Check that truth and predictions are of as many pictures.

    Raises:
        ValueError: If they are not.
    """
    if len(truth) != len(predicted):
        raise ValueError(f"predicted: {len(predicted)} pictures; allowed: {len(truth)}, as of the truth")


def overlaps(one: Floats, other: Floats) -> Floats:
    """Return IoU (…) of boxes (…, 4) with boxes (…, 4), in pixels; shapes are broadcast."""
    sides = np.minimum(one[..., 2:], other[..., 2:]) - np.maximum(one[..., :2], other[..., :2])
    shared = np.where((sides > 0).all(axis=-1), sides[..., 0] * sides[..., 1], 0.0)
    areas = [(boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1]) for boxes in (one, other)]
    found: Floats = shared / (areas[0] + areas[1] - shared)
    return found


def ranks(groups: Numbers) -> Numbers:
    """Return (R,) place of each row among those of its group, from 0; the rows of a group lie together."""
    _, starts, sizes = np.unique(groups, return_index=True, return_counts=True)
    return np.arange(len(groups)) - np.repeat(starts, sizes)


def assign(truth: Boxes, found: Boxes, thresholds: Floats) -> Numbers:
    """Return (R, T) the number of the true box that each predicted one finds at each threshold of IoU; -1 is none.

    In each picture and class, the predicted boxes choose in the order of their scores: the true box that is not taken
    yet and has the highest IoU, if that is at least the threshold; of equal ones the last. That is the matching of
    COCO's own code. Its crowds, true boxes that stand for many objects, do not exist here.

    Args:
        truth: As `Boxes.by_picture` has them.
        found: As well.
        thresholds: (T,) above 0, at most 1.
    """
    chosen = np.full((len(found.scores), len(thresholds)), -1, dtype=np.int64)
    limits = np.minimum(thresholds, _SURE)
    for true_start, true_size, start, size in _parts(truth, found, len(limits)):
        numbers = (true_start + true_size - 1)[:, None] - np.arange(true_size.max())  # backwards: the last comes first
        there = numbers >= true_start[:, None]
        corners = truth.corners[np.where(there, numbers, 0)]
        free = np.repeat(there[:, None], len(limits), axis=1)
        for rank in range(int(size[0])):
            active = int(np.searchsorted(-size, -rank))  # the groups that have so many: the first ones
            rows = start[:active] + rank
            pairs = overlaps(found.corners[rows][:, None], corners[:active])
            open_pairs = np.where(free[:active], pairs[:, None], -1.0)
            best = open_pairs.argmax(axis=2)
            values = np.take_along_axis(open_pairs, best[..., None], axis=2)[..., 0]
            groups, levels = np.nonzero(values >= limits)
            taken = best[groups, levels]
            free[groups, levels, taken] = False
            chosen[rows[groups], levels] = numbers[groups, taken]
    return chosen


def _parts(truth: Boxes, found: Boxes, levels: int) -> Iterator[tuple[Numbers, Numbers, Numbers, Numbers]]:
    """Yield (first true box, number of them, first predicted box, number of them) of pictures and classes with both.

    Those with about as many true boxes come together, and of a part the ones with the most predicted boxes first.
    """
    sides = [np.unique(boxes.groups, return_index=True, return_counts=True) for boxes in (truth, found)]
    (true_groups, true_starts, true_sizes), (groups, starts, sizes) = sides
    _, one, other = np.intersect1d(true_groups, groups, assume_unique=True, return_indices=True)
    order = np.argsort(-true_sizes[one], kind="stable")
    one, other = one[order], other[order]
    begin = 0
    while begin < len(one):
        end = begin + max(1, _PART_CELLS // (int(true_sizes[one[begin]]) * levels))
        within = np.argsort(-sizes[other[begin:end]], kind="stable")
        these, those = one[begin:end][within], other[begin:end][within]
        yield true_starts[these], true_sizes[these], starts[those], sizes[those]
        begin = end


def matched(truth: Array, predicted: Array, iou: float = 0.5) -> tuple[Flags, Flags]:
    """Return which predicted boxes are right, (N, D), and which true boxes are missed, (N, M).

    A predicted box is right if it finds a true box of its class, as `assign` says; every predicted box may, however
    low its score is. A box that is left out before, by class -1, changes nothing for those with a higher score.

    Args:
        truth: (N, M, 5) rows [class, x1, y1, x2, y2] in pixels, class -1 in rows without a box; these are False.
        predicted: (N, D, 6) rows [class, score, x1, y1, x2, y2], the same.
        iou: Least IoU of a box that is found, above 0, at most 1.

    Raises:
        ValueError: If shapes, types or values do not fit.
    """
    if not 0 < iou <= 1:
        raise ValueError(f"iou: {iou} is not allowed; allowed: above 0 to 1")
    true = read_boxes("truth", truth).by_picture()
    found = read_boxes("predicted", predicted).by_picture()
    check_count(truth, predicted)
    chosen = assign(true, found, np.array([iou]))[:, 0]
    right = np.zeros(predicted.shape[:2], dtype=np.bool_)
    right[found.pictures, found.places] = chosen >= 0
    missed = np.zeros(truth.shape[:2], dtype=np.bool_)
    missed[true.pictures, true.places] = True
    hit = chosen[chosen >= 0]
    missed[true.pictures[hit], true.places[hit]] = False
    return right, missed
