"""Cases that belong together, such as the images of one patient: they were not drawn one by one, and err together."""

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri, stdtrit

from visionforge.scoring.rates import Array, Floats


class Clusters:
    """Groups of cases, which samples take whole.

    Args:
        names: (N,) the group of each case: texts or numbers.

    Attributes:
        codes: (N,) the same as numbers from 0.
        count: Number of groups.

    >>> groups = Clusters(["anna", "ben", "anna"])
    >>> groups.count, groups.codes.tolist()
    (2, [0, 1, 0])
    """

    def __init__(self, names: npt.ArrayLike) -> None:
        found, codes = np.unique(np.asarray(names), return_inverse=True)
        self.codes: npt.NDArray[np.int64] = codes.astype(np.int64).reshape(-1)
        self.count = len(found)

    def totals(self, values: Array) -> Floats:
        """Return (G, …) sums of values (N, …) over the cases of each group."""
        found = np.zeros((self.count, *values.shape[1:]))
        np.add.at(found, self.codes, values)
        return found

    def least_effective(self, marked: Array) -> Floats:
        """Return (K,) of how many cases a share of the marked ones (N, K) is, if all of a group are right or wrong.

        Kish (1965): the square of the sum of the groups' sizes over the sum of their squares.
        """
        sizes = self.totals(marked.astype(np.float64))
        squared = (sizes**2).sum(axis=0)
        return np.asarray(np.where(squared > 0, sizes.sum(axis=0) ** 2 / np.maximum(squared, 1.0), 0.0))

    def present(self, marked: Array) -> Floats:
        """Return (K,) in how many groups there are marked cases (N, K)."""
        return np.asarray((self.totals(marked.astype(np.float64)) > 0).sum(axis=0), dtype=np.float64)

    def means(self, values: Floats) -> Floats:
        """Return (G,) one value for each group, whose mean and standard error are those of the mean of values (N,).

        The mean of all cases is a ratio of two sums over groups, which this is linear in (Taylor's linearisation).
        """
        mean, sizes = values.mean(), np.bincount(self.codes)
        return np.asarray(mean + (self.totals(values) - mean * sizes) * self.count / len(values))

    def strata(self, strata: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Return (G,) within which groups are exchanged: the rarest of the strata (N,) of the cases of each.

        What would be alone in its stratum goes with the groups of the largest one.
        """
        counts = np.bincount(strata)
        rarity = np.argsort(np.argsort(counts, kind="stable"), kind="stable")
        found = np.full(self.count, len(counts), dtype=np.int64)
        np.minimum.at(found, self.codes, rarity[strata])
        sizes = np.bincount(found, minlength=len(counts))
        return np.where(sizes[found] < 2, sizes.argmax(), found)


def narrowed(groups: Floats, confidence: float) -> Floats:
    """Return what cases are multiplied by where the variance of a share is known from so few groups.

    Korn and Graubard (1998): the square of the normal quantile over Student's.
    """
    tail = (1 + confidence) / 2
    with np.errstate(invalid="ignore"):
        return np.asarray(np.where(groups > 1, (ndtri(tail) / stdtrit(np.maximum(groups - 1, 1), tail)) ** 2, 0.0))
