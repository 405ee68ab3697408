"""How good a network is where it may say that it does not know: its sets of classes, and the risk at every coverage."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from visionforge.scoring.clusters import Clusters
from visionforge.scoring.limits import clopper_pearson, grouped_cases

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]
SHARES = (0.8, 0.9, 1.0)  # of the images, the surest ones, at which the accuracy is told
SURE = 0.95  # confidence of the interval of an empirical coverage


@dataclass(frozen=True)
class RiskCoverage:
    """Share of mistakes among the images that a network is surest of (Geifman and El-Yaniv, 2017, arXiv:1705.08500).

    Attributes:
        coverage: (N,) share of the images that are answered, from 1/N to 1.
        risk: (N,) share of mistakes among these; of equally sure images each stands for their mean.
        best: (N,) the same if every mistake were less sure than everything that is right.
    """

    coverage: Floats
    risk: Floats
    best: Floats

    @property
    def aurc(self) -> float:
        """Return the mean risk over all coverages."""
        return float(self.risk.mean())

    @property
    def excess(self) -> float:
        """Return what AURC is above that of the best order (Geifman et al., 2019, arXiv:1805.08206)."""
        return float(self.risk.mean() - self.best.mean())

    def accuracy(self, share: float) -> float:
        """Return the accuracy of the surest images, a share of all."""
        place = int(np.ceil(round(share * len(self.risk), 9))) - 1
        return float(1 - self.risk[max(place, 0)])


def risk_coverage(confidence: Array, right: Array) -> RiskCoverage:
    """Return the curve of risk over coverage.

    Args:
        confidence: (N,) probability of the predicted class, N from 1 on.
        right: (N,) booleans, whether that is true.

    >>> import numpy as np
    >>> curve = risk_coverage(np.array([0.9, 0.8, 0.6]), np.array([True, False, True]))
    >>> curve.risk.round(3).tolist(), round(curve.aurc, 4), round(curve.excess, 4)
    ([0.0, 0.5, 0.333], 0.2778, 0.1667)
    """
    _, groups = np.unique(-confidence.astype(np.float64), return_inverse=True)
    wrong = (~right.astype(bool)).astype(np.float64)
    sizes = np.bincount(groups)
    each = np.bincount(groups, wrong) / sizes
    answered = np.arange(1, len(wrong) + 1)
    mistakes = np.repeat(each, sizes).cumsum()
    fewest = np.maximum(answered - (len(wrong) - wrong.sum()), 0.0)
    return RiskCoverage(answered / len(wrong), mistakes / answered, fewest / answered)


def coverage_of(held: Array, groups: Array | None = None) -> dict[str, Any]:
    """Return in which share of the images the set held the true class, with the interval of Clopper and Pearson.

    Args:
        held: (N,) booleans.
        groups: (N,) which images belong together; the interval is then that of the effective number of images, and
            None of one group alone.
    """
    if not len(held):
        return {"images": 0, "coverage": None, "interval": None}
    share = float(held.mean())
    cases = float(len(held)) if groups is None else grouped_cases(held, Clusters(groups), SURE)
    low, high = clopper_pearson(np.array([share]), np.array([cases]), SURE)
    interval = [float(low[0]), float(high[0])] if cases > 0 else None
    return {"images": len(held), "coverage": share, "interval": interval}


def sets_numbers(sets: Array, labels: Array, classes: tuple[str, ...], groups: Array | None = None) -> dict[str, Any]:
    """Return what `metrics.json` says of sets of classes.

    Args:
        sets: (N, K) booleans.
        labels: (N,) true classes.
        classes: Their names.
        groups: (N,) which images belong together.
    """
    of_class = [labels == k for k in range(len(classes))]
    held, sizes = sets[np.arange(len(labels)), labels], sets.sum(axis=1)
    return {
        **coverage_of(held, groups),
        "mean_size": float(sizes.mean()),
        "one_class": float((sizes == 1).mean()),
        "empty": float((sizes == 0).mean()),
        "per_class": {
            name: coverage_of(held[of], None if groups is None else groups[of])
            for name, of in zip(classes, of_class, strict=True)
        },
    }


def selective_numbers(curve: RiskCoverage) -> dict[str, Any]:
    """Return what `metrics.json` says of the risk at every coverage."""
    at = {f"{share:g}": curve.accuracy(share) for share in SHARES}
    return {"aurc": curve.aurc, "excess_aurc": curve.excess, "accuracy_at_coverage": at}


def abstaining_numbers(columns: Mapping[str, Array], right: Array) -> dict[str, Any] | None:
    """Return how often a network abstains, and how often it is right where it does not; None if it never may.

    Args:
        columns: What is said of each image, by name.
        right: (N,) booleans, whether the predicted class is the true one.
    """
    if "abstain" not in columns:
        return None
    answered = ~columns["abstain"]
    accuracy = float(right[answered].mean()) if answered.any() else None
    return {"share": float(columns["abstain"].mean()), "accuracy_of_the_others": accuracy}
