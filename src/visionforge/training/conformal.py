"""Sets of classes that hold the true one of a chosen share of the images, whatever the network is (conformal sets).

Every class of an image has a score; the lower, the more likely it is. The threshold is the quantile of the scores of
the true classes of the validation images that covers the chosen share of the next image, too, as long as it is drawn
like these: the ⌈(n + 1)·coverage⌉-th smallest of n (Vovk et al., 2005). Nothing here is drawn at random.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

Method = Literal["split", "class", "aps", "raps"]
METHODS: tuple[str, ...] = get_args(Method)
PENALTY, RANK = 0.1, 2  # λ and k_reg of RAPS: every class after the second costs as much as 10 % of probability
_EXACT = 1e-9  # of products like 10 · 0.9, which is to be 9


def class_scores(probabilities: Tensor, method: str, penalty: float = PENALTY, rank: int = RANK) -> Tensor:
    """Return (N, K) the score of every class of an image; the lower, the more likely it is.

    - `split` and `class`: 1 - p (Sadinle et al., 2019, arXiv:1609.00451).
    - `aps`: the probability of all classes that are more probable (Romano et al., 2020, arXiv:2006.02544, without its
      random part); the most probable class has 0, so that no set is empty.
    - `raps`: the same, and λ for every class beyond the k_reg most probable (Angelopoulos et al., 2021,
      arXiv:2009.14193).

    Of equally probable classes the first counts as more probable. Every operation is one that ONNX has.

    Args:
        probabilities: (N, K) as they are stated.
        method: One of `METHODS`.
        penalty: λ of RAPS.
        rank: k_reg of RAPS.
    """
    if method in ("split", "class"):
        return 1 - probabilities
    ordered, order = probabilities.sort(dim=1, descending=True, stable=True)
    above = ordered.cumsum(dim=1) - ordered
    if method == "raps":
        places = torch.arange(1, probabilities.shape[1] + 1, device=above.device, dtype=above.dtype)
        above = above + penalty * (places - rank).clamp(min=0)
    return torch.zeros_like(above).scatter(1, order, above)


def place_of(images: int, coverage: float) -> int:
    """Return which of the sorted scores of so many images is the threshold, from 1; beyond them, they are too few."""
    return math.ceil((images + 1) * coverage - _EXACT)


def least_images(coverage: float) -> int:
    """Return of how many images a threshold can be had.

    >>> least_images(0.9), least_images(0.95), least_images(0.999)
    (9, 19, 999)
    """
    return math.ceil(coverage / (1 - coverage) - _EXACT)


@dataclass(frozen=True)
class ConformalSets:
    """Which classes belong to the set of an image.

    Attributes:
        method: How classes are scored; `class` is `split` with a threshold for every class.
        coverage: Least share of the images whose set holds the true class; with `class` of the images of every class.
        images: Number of validation images.
        thresholds: The largest score of a member: one for all classes, or one for each; None lets a class be in every
            set, because it had too few images.
        penalty: λ of RAPS.
        rank: k_reg of RAPS.
    """

    method: str
    coverage: float
    images: int
    thresholds: tuple[float | None, ...]
    penalty: float = PENALTY
    rank: int = RANK

    def members(self, probabilities: Tensor) -> Tensor:
        """Return (N, K) booleans, the sets of images.

        Args:
            probabilities: (N, K) as they are stated: calibrated, and over the test-time views if they were.
        """
        given = [math.inf if each is None else each for each in self.thresholds]
        limits = torch.tensor(given, dtype=probabilities.dtype, device=probabilities.device)
        return class_scores(probabilities, self.method, self.penalty, self.rank) <= limits

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "ConformalSets":
        """Return what `dataclasses.asdict` has written.

        Raises:
            ValueError: If it has written something else.
        """
        found = cls(
            str(values["method"]),
            float(values["coverage"]),
            int(values["images"]),
            tuple(None if each is None else float(each) for each in values["thresholds"]),
            float(values["penalty"]),
            int(values["rank"]),
        )
        numbers = [found.coverage, found.penalty, *(each for each in found.thresholds if each is not None)]
        if found.method not in METHODS or not found.thresholds or not all(map(math.isfinite, numbers)):
            raise ValueError("what it says of conformal sets is none of their methods")
        return found


def fit_sets(probabilities: Tensor, labels: Tensor, method: str, coverage: float) -> ConformalSets | None:
    """Return the sets that hold the true class of a share of the images; None if there are too few to say so.

    Args:
        probabilities: (N, K) of the validation images, as they are stated.
        labels: (N,) int64.
        method: One of `METHODS`.
        coverage: The share, of all images or, with `class`, of those of every class.
    """
    given = probabilities.detach().double().cpu()
    truth = labels.cpu()
    scores = class_scores(given, method).gather(1, truth[:, None])[:, 0].numpy()
    groups = [scores]
    if method == "class":
        groups = [scores[(truth == k).numpy()] for k in range(given.shape[1])]
    thresholds = tuple(_threshold(each, coverage) for each in groups)
    if all(each is None for each in thresholds):
        return None
    return ConformalSets(method, coverage, len(truth), thresholds)


def _threshold(scores: np.ndarray[Any, np.dtype[np.float64]], coverage: float) -> float | None:
    place = place_of(len(scores), coverage)
    return float(np.sort(scores)[place - 1]) if place <= len(scores) else None
