"""How often do the intervals hold the truth where several images are of one patient?

Patients have some images each (1 and more, 8 on average) and an effect of their own on the logits of their images.
Either all images of a patient are of one class, or the classes are mixed within patients. The truth is that of 40,000
patients. Beside intervals that count patients stands that of the accuracy by counting images.
"""

import argparse
import itertools
import statistics

import numpy as np

from visionforge.evaluation.bootstrap import estimate, paired_differences
from visionforge.evaluation.scores import Scorer
from visionforge.scoring.clusters import Clusters

SETS, RESAMPLES, ALL, IMAGES = 300, 300, 40_000, 8
GROUPS, CLASSES, SHIFTS, EFFECTS = (10, 20, 50, 100), (2, 3), (1.5, 3.5), (0.0, 1.0)
NAMES = (
    "accuracy",
    "balanced_accuracy",
    "sensitivity",
    "auc",
    "average_precision",
    "f1_macro",
    "mcc",
    "brier",
    "log_loss",
)
Drawn = tuple[list[np.ndarray], np.ndarray, np.ndarray]


def draw(rng: np.random.Generator, groups: int, classes: int, shift: float, effect: float, mixed: bool) -> Drawn:
    """Return probabilities of two models, labels, and the patient of each image."""
    codes = np.repeat(np.arange(groups), 1 + rng.poisson(IMAGES - 1, groups))
    labels = rng.integers(0, classes, len(codes)) if mixed else rng.permutation(np.arange(groups) % classes)[codes]
    own = (labels[:, None] == np.arange(classes)).astype(float)
    common = rng.normal(size=own.shape) + effect * rng.normal(size=(groups, classes))[codes]
    apart = 0.4 * rng.normal(size=own.shape) + 0.3 * effect * rng.normal(size=(groups, classes))[codes]
    logits = (common + shift * own, common + apart + 0.9 * shift * own)
    return [np.exp(2 * each) / np.exp(2 * each).sum(axis=1, keepdims=True) for each in logits], labels, codes


def coverage(
    groups: int, classes: int, shift: float, effect: float, mixed: bool, sets: int
) -> tuple[dict[str, list[bool]], list[bool]]:
    """Return name → whether an interval held the truth, for each set that has one; and that of images' accuracy."""
    rng, task = np.random.default_rng(1), "binary" if classes == 2 else "multi-class"
    given, labels, _ = draw(rng, ALL, classes, shift, effect, mixed)
    one, other = (Scorer(each, labels, task)(np.ones((len(labels), 1))).overall for each in given)
    truth = {name: float(one[name][0]) for name in NAMES}
    apart = {name: truth[name] - float(other[name][0]) for name in NAMES}
    held: dict[str, list[bool]] = {}
    alone: list[bool] = []
    for number in range(sets):
        given, labels, codes = draw(rng, groups, classes, shift, effect, mixed)
        scorers = [Scorer(each, labels, task, clusters=Clusters(codes)) for each in given]
        (found,) = estimate(scorers[:1], RESAMPLES, 0.95, number)
        told = {name: (found.intervals[name], truth[name]) for name in NAMES}
        gaps = paired_differences(scorers[:1], scorers[1:], RESAMPLES, 0.95, number)
        told |= {f"difference of {name}": (gaps[name].interval, apart[name]) for name in NAMES if name in gaps}
        for name, (ends, true) in told.items():
            if ends is not None:
                held.setdefault(name, []).append(bool(ends[0] - 1e-9 <= true <= ends[1] + 1e-9))
        (found,) = estimate([Scorer(given[0], labels, task)], 2, 0.95, number)
        low, high = found.intervals["accuracy"] or (1.0, 0.0)
        alone.append(bool(low <= truth["accuracy"] <= high))
    return held, alone


def main() -> None:
    """Print least and median coverage for each number of patients."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sets", type=int, default=SETS)
    given = parser.parse_args()
    print("| patients | metric | places | least | median |\n|---|---|---|---|---|")
    for groups in GROUPS:
        rows: dict[str, list[float]] = {}
        for classes, shift, effect, mixed in itertools.product(CLASSES, SHIFTS, EFFECTS, (False, True)):
            held, alone = coverage(groups, classes, shift, effect, mixed, given.sets)
            for name, each in held.items():
                if len(each) >= 0.5 * given.sets:  # of few sets, those with an interval are not like the others
                    rows.setdefault(name, []).append(statistics.fmean(each))
            rows.setdefault(f"accuracy, images counted, effect {effect:g}", []).append(statistics.fmean(alone))
        for name, shares in rows.items():
            print(
                f"| {groups} | {name} | {len(shares)} | {min(shares):.3f} | {statistics.median(shares):.3f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
