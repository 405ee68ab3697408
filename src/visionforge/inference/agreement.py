"""How far what one predictor says is from what another says of the same images."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment

from visionforge.scoring.assignment import NONE

Array = npt.NDArray[Any]
PARTNERS = 0.01  # two boxes of a class are the same if places, in sides of the image, and scores are that close


@dataclass(frozen=True)
class Agreement:
    """How far two predictions of images are apart.

    Attributes:
        largest: Largest deviation, of probabilities; of boxes of scores, and of places in sides of the image.
        mean: Mean deviation.
        same: (N,) share of each image that is predicted the same: all of it or nothing, but of masks the share of the
            pixels, and of boxes that of the boxes that both have.
    """

    largest: float
    mean: float
    same: npt.NDArray[np.float64]


def of_probabilities(one: Any, other: Any, pixels: bool = False) -> Agreement:
    """Return how far probabilities are apart.

    Args:
        one: A prediction with `calibrated` probabilities and `labels`.
        other: Another one of the same images.
        pixels: Labels are of pixels, each of which counts.
    """
    deviation = np.abs(other.calibrated.astype(np.float64) - one.calibrated)
    same = (one.labels == other.labels).reshape(len(one.labels), -1)
    each = same.mean(axis=1) if pixels else same.all(axis=1).astype(np.float64)
    return Agreement(float(deviation.max()), float(deviation.mean()), each)


def of_boxes(one: Array, other: Array, side: int) -> Agreement:
    """Return how far boxes are apart, each from the nearest of its class, no box being the nearest of two.

    Args:
        one: (N, D, 6) rows [class, score, x1, y1, x2, y2] in pixels, class -1 in rows without a box.
        other: (N, D, 6) of the same images.
        side: Height and width of the images in pixels.

    >>> import numpy as np
    >>> one = np.array([[[0, 0.9, 2, 2, 8, 8], [0, 0.5, 1, 1, 4, 4]]])
    >>> other = np.array([[[0, 0.5, 1, 1, 4, 4], [0, 0.901, 2, 2, 8, 8.01]]])
    >>> found = of_boxes(one, other, 10)
    >>> round(found.largest, 6), found.same.tolist()
    (0.001, [1.0])
    """
    scale = np.array([1.0, side, side, side, side])
    deviations: list[float] = []
    same = np.ones(len(one))
    for place, (left, right) in enumerate(zip(one, other, strict=True)):
        here, there = (rows[rows[:, 0] != NONE].astype(np.float64) for rows in (left, right))
        if not len(here) and not len(there):
            continue
        apart = np.abs((here[:, None, 1:] - there[None, :, 1:]) / scale).max(axis=2, initial=0.0)
        apart[here[:, None, 0] != there[None, :, 0]] = 2.0
        rows, columns = linear_sum_assignment(np.minimum(apart, 2.0))
        pairs = apart[rows, columns]
        partners = pairs[pairs <= PARTNERS]
        deviations += partners.tolist()
        same[place] = 2 * len(partners) / (len(here) + len(there))
    return Agreement(max(deviations, default=0.0), float(np.mean(deviations)) if deviations else 0.0, same)
