"""How far apart subgroups are, and how far they would be by chance.

The gap of a metric is its largest value less its smallest over the subgroups. It is never below 0, and the more and
the smaller the subgroups are, the larger it is by chance alone. So its interval is that of the largest of all
differences, which hold together (Šidák, 1967, Journal of the American Statistical Association 62:626), each from the
intervals of its two subgroups (MOVER: Zou and Donner, 2008, Statistics in Medicine 27:1693); and p is the share of
permutations, which exchange images of the same class, or whole groups of images, with a gap as large.
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from visionforge.evaluation.bootstrap import Scorer
from visionforge.evaluation.intervals import Interval
from visionforge.scoring.rates import Floats

Codes = npt.NDArray[np.int64]
_CHUNK_VALUES = 100_000  # weights of one part, as of resamples
_SAME = 1e-12  # sums of the same values in another order differ by less


def pair_confidence(confidence: float, subgroups: int) -> float:
    """Return the confidence of each of the differences of all pairs, so that all hold with the given one (Šidák).

    >>> round(pair_confidence(0.95, 2), 4), round(pair_confidence(0.95, 4), 4)
    (0.95, 0.9915)
    """
    return float(confidence ** (1 / max(1, subgroups * (subgroups - 1) // 2)))


def gap_interval(values: Sequence[float], intervals: Sequence[Interval]) -> Interval:
    """Return the limits of the largest difference of independent values.

    Args:
        values: Of each subgroup, at least two.
        intervals: Of each value, with the confidence of `pair_confidence`.

    >>> [round(end, 3) for end in gap_interval([0.9, 0.7], [(0.85, 0.93), (0.6, 0.78)])]
    [0.106, 0.304]
    """
    value = np.array(values)
    low, high = np.array(intervals).T
    below, above = value - low, high - value
    difference = value[:, None] - value
    first = difference - np.sqrt(below[:, None] ** 2 + above**2)
    last = difference + np.sqrt(above[:, None] ** 2 + below**2)
    apart = ~np.eye(len(value), dtype=bool)
    return max(0.0, float(first[apart].max())), float(last[apart].max())


def permuted_gaps(
    scorer: Scorer,
    codes: Codes,
    compared: Mapping[str, Sequence[int]],
    strata: Codes,
    blocks: Codes | None,
    count: int,
    seed: int,
) -> dict[str, Floats]:
    """Return the gap of each metric (P,) in permutations; NaN where fewer than two subgroups have a value.

    Args:
        scorer: Computes the metrics of all images.
        codes: (N,) subgroups; -1 is none.
        compared: Metric → the subgroups that are compared.
        strata: (N,) within which images are exchanged.
        blocks: (N,) groups of images that stay together, of which each lies in one subgroup; None exchanges images.
        count: Number of permutations.
        seed: What they are a function of.
    """
    used = sorted({code for some in compared.values() for code in some})
    parts: dict[str, list[Floats]] = {name: [] for name in compared}
    for drawn in _permutations(codes, strata, blocks, count, seed):
        scores = {code: scorer((drawn == code).T.astype(np.float64)).overall for code in used}
        for name, some in compared.items():
            parts[name].append(_spread(np.stack([scores[code][name] for code in some])))
    return {name: np.concatenate(each) if each else np.empty(0) for name, each in parts.items()}


def _spread(values: Floats) -> Floats:
    """Return the largest value less the smallest of (G, B); NaN where one is undefined."""
    spread: Floats = values.max(axis=0) - values.min(axis=0)
    return spread


def _permutations(
    codes: Codes, strata: Codes, blocks: Codes | None, count: int, seed: int
) -> Iterator[npt.NDArray[np.int64]]:
    """Yield parts (B, N) of subgroups that are permuted within strata."""
    unit = np.arange(len(codes)) if blocks is None else np.unique(blocks, return_inverse=True)[1]
    units = int(unit.max()) + 1
    _, place, sizes = np.unique(strata, return_inverse=True, return_counts=True)
    rarity = np.argsort(np.argsort(sizes, kind="stable"), kind="stable")
    of_unit, stratum = np.full(units, -1, np.int64), np.full(units, len(sizes), np.int64)
    of_unit[unit] = codes
    np.minimum.at(stratum, unit, rarity[place])  # of a block, its rarest
    places = np.argsort(stratum, kind="stable")
    generator = np.random.default_rng(seed)
    step = max(1, _CHUNK_VALUES // len(codes))
    for begin in range(0, count, step):
        rows = min(step, count - begin)
        order = np.argsort(stratum + generator.random((rows, units)), axis=1)
        drawn = np.empty((rows, units), np.int64)
        drawn[:, places] = of_unit[order]
        yield drawn[:, unit]


def permutation_p(gap: float, permuted: Floats) -> float:
    """Return the share of permutations with a gap that is as large, the observed one among them.

    A permutation without a gap counts as one.

    >>> permutation_p(0.2, np.array([0.1, 0.2, 0.05]))
    0.5
    """
    return (1 + int((~(permuted < gap - _SAME)).sum())) / (1 + len(permuted))
