"""Confident learning: which labels are likely to be wrong, and how many.

Northcutt, Jiang and Chuang (2021), "Confident Learning: Estimating Uncertainty in Dataset Labels", JAIR 70,
arXiv:1911.00068. An image counts as confidently of a class if its probability reaches the mean that this class has
among the images labelled with it. Counting given labels against confident classes gives the confident joint; scaled to
the number of given labels of each class it estimates how many labels of each class belong to which other one.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from visionforge.evaluation.intervals import Interval

LEAST_CASES = 5  # images of a class below which nothing is said of its labels: each fold would have learnt from fewer
RESAMPLES, CONFIDENCE = 500, 0.95
_LOWEST_THRESHOLD = 1e-5  # a class that is never recognised would otherwise be confident everywhere
_ROUNDING = 1e-6  # of probabilities that went through a text, by which one may miss the mean of equal ones
Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class LabelNoise:
    """What is estimated of labels (N,) of K classes.

    Attributes:
        joint: (K, K) number of images with each given label (rows) that are of each true class (columns); rows add up
            to the number of given labels.
        suspicious: (N,) whether a label is likely to be wrong.
        suggested: (N,) the likeliest class.
        quality: (N,) from 0, certainly wrong, to 1: the normalised margin.
        judged: (K,) whether a class has enough images.
        rate: Estimated share of wrong labels.
        rate_interval: Its interval.
        class_rates: (K,) the same of the labels of each class; nan for a class that is not judged.
        class_intervals: Its intervals; None for a class that is not judged.
    """

    joint: Integers
    suspicious: Mask
    suggested: Integers
    quality: Floats
    judged: Mask
    rate: float
    rate_interval: Interval | None
    class_rates: Floats
    class_intervals: Sequence[Interval | None]


def label_noise(
    labels: Integers, probabilities: Floats, resamples: int = RESAMPLES, confidence: float = CONFIDENCE, seed: int = 0
) -> LabelNoise:
    """Estimate the noise of labels, and find those that are likely to be wrong.

    Args:
        labels: (N,) given classes, 0 to K - 1.
        probabilities: (N, K) of networks that were not trained on the image they speak of; rows add up to 1.
        resamples: Bootstrap resamples of the images, stratified by given label; 0 gives no intervals.
        confidence: Share of the resamples that an interval holds.
        seed: Seed of the draws.

    >>> given = np.array([0] * 10 + [1] * 10)
    >>> said = np.where(np.arange(20)[:, None] < 9, [0.9, 0.1], [0.1, 0.9])  # the tenth looks like the other class
    >>> found = label_noise(given, said, resamples=0)
    >>> found.suspicious.nonzero()[0].tolist(), found.joint.tolist()
    ([9], [[9, 1], [0, 10]])
    """
    classes = probabilities.shape[1]
    given = np.bincount(labels, minlength=classes)
    judged = given >= LEAST_CASES
    counts = confident_joint(labels, probabilities, judged)
    joint = calibrated_joint(counts, given)
    rate, class_rates = noise_rates(joint, judged)
    whole, of_classes = _intervals(labels, probabilities, judged, counts, resamples, confidence, seed)
    return LabelNoise(
        joint=rounded_rows(joint),
        suspicious=prune_by_noise_rate(labels, probabilities, rounded_rows(joint)) & judged[labels],
        suggested=np.asarray(np.where(judged, probabilities, -1.0).argmax(axis=1), np.int64),
        quality=normalised_margin(labels, probabilities),
        judged=judged,
        rate=rate,
        rate_interval=whole,
        class_rates=class_rates,
        class_intervals=of_classes,
    )


# --- the joint


def class_thresholds(labels: Integers, probabilities: Floats, judged: Mask) -> Floats:
    """Return (K,) the mean probability of each class among the images labelled with it; infinity if not judged."""
    classes = probabilities.shape[1]
    own = probabilities[np.arange(len(labels)), labels]
    sums = np.bincount(labels, own, minlength=classes)
    means = sums / np.maximum(np.bincount(labels, minlength=classes), 1)
    return np.where(judged, np.maximum(means, _LOWEST_THRESHOLD), np.inf)


def confident_joint(labels: Integers, probabilities: Floats, judged: Mask) -> Integers:
    """Return (K, K) how many images with each given label (rows) are confidently of each class (columns).

    Of several classes that reach their thresholds the likeliest is taken, and images of which none does are not
    counted; equation 1 of the paper. At least one image of every class is taken to be labelled rightly.
    """
    classes = probabilities.shape[1]
    reached = probabilities >= class_thresholds(labels, probabilities, judged) - _ROUNDING
    likeliest = np.where(reached, probabilities, -1.0).argmax(axis=1)
    counted = reached.any(axis=1)
    cells = labels[counted] * classes + likeliest[counted]
    joint = np.bincount(cells, minlength=classes * classes).reshape(classes, classes).astype(np.int64)
    np.fill_diagonal(joint, np.maximum(joint.diagonal(), 1))
    return joint


def calibrated_joint(counts: Integers, given: Integers) -> Floats:
    """Return the confident joint with rows scaled to the number of images with each given label.

    Args:
        counts: (K, K) the confident joint.
        given: (K,) number of images with each given label.
    """
    return np.asarray(counts / counts.sum(axis=1, keepdims=True) * given[:, None], np.float64)


def noise_rates(joint: Floats, judged: Mask) -> tuple[float, Floats]:
    """Return the share of wrong labels, and (K,) that of the labels of each class; nan for one that is not judged."""
    of_judged = joint[judged]
    right, given = joint.diagonal(), joint.sum(axis=1)
    rate = 1 - float(right[judged].sum() / of_judged.sum()) if of_judged.size else float("nan")
    return rate, np.where(judged, 1 - right / np.maximum(given, 1), np.nan)


def rounded_rows(joint: Floats) -> Integers:
    """Return whole numbers with the same sums of rows: the largest remainders are rounded up."""
    whole = np.floor(joint + 1e-9)
    missing = np.rint(joint.sum(axis=1) - whole.sum(axis=1)).astype(np.int64)
    for row, count in enumerate(missing.tolist()):
        raised = np.argsort(-(joint[row] - whole[row]), kind="stable")[:count]
        whole[row, raised] += 1
    return whole.astype(np.int64)


# --- single labels


def self_confidence(labels: Integers, probabilities: Floats) -> Floats:
    """Return (N,) the probability of the given label."""
    return probabilities[np.arange(len(labels)), labels]


def normalised_margin(labels: Integers, probabilities: Floats) -> Floats:
    """Return (N,) the probability of the given label less that of the likeliest other one, scaled to [0, 1]."""
    others = probabilities.copy()
    others[np.arange(len(labels)), labels] = -1
    return np.asarray((self_confidence(labels, probabilities) - others.max(axis=1) + 1) / 2)


def prune_by_noise_rate(labels: Integers, probabilities: Floats, joint: Integers) -> Mask:
    """Return (N,) which labels are likely to be wrong.

    Of the images with the label i as many are taken as the joint has of the true class j, for each other j: those whose
    probability of j exceeds that of i most. A label that is the likeliest class is never taken.

    Args:
        labels: (N,) given classes.
        probabilities: (N, K).
        joint: (K, K) whole numbers, given labels in rows.
    """
    taken = np.zeros(len(labels), dtype=bool)
    for given, row in enumerate(joint.tolist()):
        members = np.flatnonzero(labels == given)
        for true, count in enumerate(row):
            if true != given and count:
                margin = probabilities[members, true] - probabilities[members, given]
                taken[members[np.argsort(-margin, kind="stable")[:count]]] = True
    return np.asarray(taken & (self_confidence(labels, probabilities) < probabilities.max(axis=1)), bool)


def prune_by_class(labels: Integers, probabilities: Floats, joint: Integers) -> Mask:
    """Return (N,) the same, by the lowest probability of the given label: as many of each class as are wrong in all.

    Args:
        labels: (N,) given classes.
        probabilities: (N, K).
        joint: (K, K) whole numbers, given labels in rows.
    """
    own = self_confidence(labels, probabilities)
    taken = np.zeros(len(labels), dtype=bool)
    for given, count in enumerate((joint.sum(axis=1) - joint.diagonal()).tolist()):
        members = np.flatnonzero(labels == given)
        taken[members[np.argsort(own[members], kind="stable")[:count]]] = True
    return np.asarray(taken & (own < probabilities.max(axis=1)), bool)


# --- intervals


def _intervals(
    labels: Integers,
    probabilities: Floats,
    judged: Mask,
    counts: Integers,
    resamples: int,
    confidence: float,
    seed: int,
) -> tuple[Interval | None, list[Interval | None]]:
    """Return the intervals of the share of wrong labels, and of that of each class: percentiles over resamples.

    Where no label of a class is confidently of another one, resamples have none either; the interval is then that of
    Clopper and Pearson for nothing found.
    """
    classes = probabilities.shape[1]
    given = np.bincount(labels, minlength=classes)
    if not resamples or not judged.any():
        return None, [None] * classes
    generator = np.random.default_rng(seed)
    order = np.argsort(labels, kind="stable")
    start, size = np.repeat(np.cumsum(given) - given, given), np.repeat(given, given)
    drawn, drawn_of = np.empty(resamples), np.empty((resamples, classes))
    for place in range(resamples):
        chosen = order[start + (generator.random(len(labels)) * size).astype(np.int64)]
        joint = calibrated_joint(confident_joint(labels[chosen], probabilities[chosen], judged), given)
        drawn[place], drawn_of[place] = noise_rates(joint, judged)
    ends = [(1 - confidence) / 2, (1 + confidence) / 2]
    wrong = counts.sum(axis=1) - counts.diagonal()
    limits: list[Interval | None] = []
    for number in range(classes):
        if not judged[number]:
            limits.append(None)
        elif not wrong[number]:
            limits.append((0.0, _most_unseen(int(counts[number].sum()), confidence)))
        else:
            low, high = np.quantile(drawn_of[:, number], ends).tolist()
            limits.append((low, high))
    if not wrong[judged].any():
        return (0.0, _most_unseen(int(counts[judged].sum()), confidence)), limits
    low, high = np.quantile(drawn, ends).tolist()
    return (low, high), limits


def _most_unseen(cases: int, confidence: float) -> float:
    """Return the largest share of which none among so many cases is still plausible; Clopper and Pearson (1934)."""
    return float(1 - ((1 - confidence) / 2) ** (1 / max(cases, 1)))
