"""Bootstrap resamples per second with all metrics of `Scorer`, against a loop over scikit-learn's functions.

    python benchmarks/evaluation.py [--rounds 5]

The loop computes accuracy, balanced accuracy, macro-F1, one-vs-rest AUC and average precision of each resample; ours
computes these and all others, overall and per class. Also printed: how long the 2,000 resamples of a report take.
"""

import argparse
import statistics
import time

import numpy as np
from sklearn import metrics as sk
from timing import rates, ratio, summary

from visionforge.evaluation.bootstrap import RESAMPLES, estimate, resample_weights, strata_of
from visionforge.evaluation.scores import Scorer

OURS, THEIRS = 100, 10  # resamples per round


def simulated(cases: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, classes, cases)
    logits = rng.normal(size=(cases, classes))
    logits[np.arange(cases), labels] += 1.5
    return (np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)).astype(np.float32), labels


def loop(shown: np.ndarray, labels: np.ndarray) -> int:
    classes = shown.shape[1]
    for weights in resample_weights(strata_of(labels), THEIRS, 0):
        for column in weights.T.astype(int):
            drawn = np.repeat(np.arange(len(labels)), column)
            truth, scores = labels[drawn], shown[drawn]
            said = scores.argmax(axis=1)
            sk.accuracy_score(truth, said)
            sk.balanced_accuracy_score(truth, said)
            sk.f1_score(truth, said, average="macro")
            for k in range(classes):
                sk.roc_auc_score(truth == k, scores[:, k])
                sk.average_precision_score(truth == k, scores[:, k])
    return THEIRS


def ours(scorer: Scorer) -> int:
    for weights in resample_weights(strata_of(scorer.labels), OURS, 0):
        scorer(weights)
    return OURS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    print(f"| cases, classes | ours, resamples/s | scikit-learn in a loop | ours is faster by | {RESAMPLES:,} take |")
    print("|---|---|---|---|---|")
    for cases, classes in ((400, 5), (3_421, 8), (10_000, 8)):
        shown, labels = simulated(cases, classes)
        scorer = Scorer(shown, labels, "multi-class")
        alternatives = {"ours": lambda s=scorer: ours(s), "theirs": lambda s=shown, y=labels: loop(s, y)}
        measured = rates(alternatives, options.rounds)
        seconds = []
        for _ in range(3):
            started = time.perf_counter()
            estimate([scorer])
            seconds.append(time.perf_counter() - started)
        print(
            f"| {cases:,}, {classes} | {summary(measured['ours'])} | {summary(measured['theirs'])} "
            f"| {ratio(measured['ours'], measured['theirs'])} | {statistics.median(seconds):.1f} s |",
            flush=True,
        )


if __name__ == "__main__":
    main()
