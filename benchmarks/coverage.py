"""How often do the intervals of metrics hold the truth?

Sets of predictions are drawn from distributions of which the true metrics are known, by a sample so large that it
counts as all there is. The table says in which share of the sets the interval held the truth. Logits of a case are
normal, and those of its own class higher by as much as the wanted accuracy asks for. Differences are those from a
second model, whose logits are the same but for noise, and a little less high.
"""

import argparse
import statistics
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from visionforge.evaluation.bootstrap import estimate, paired_differences
from visionforge.evaluation.scores import Scorer

SETS, RESAMPLES, CONFIDENCE = 500, 500, 0.95
ALL = 1_200_000  # cases that count as all there are
LEAST = 0.93
OTHER, WEAKER = 0.4, 0.9  # noise of the second model, and how high its logits are
Arrays = list[np.ndarray]


@dataclass(frozen=True)
class Scene:
    """From where sets are drawn.

    Attributes:
        task: Kind of labels.
        counts: Cases of each class; of labels the number of images alone.
        shift: By how much the logit of the own class is higher.
    """

    task: str
    counts: tuple[int, ...]
    shift: float

    def draw(self, rng: np.random.Generator, counts: tuple[int, ...], models: int = 1) -> tuple[Arrays, np.ndarray]:
        """Return probabilities of models, and labels, of so many cases of each class."""
        if self.task == "multi-label":
            (images,) = counts
            labels = (rng.random((images, 3)) < (0.5, 0.2, 0.05)).astype(np.int64)
            labels[:3] = np.eye(3)  # each has a case
            own, noise = labels - 0.5, 0.7 * rng.normal(size=(images, 1))
        else:
            classes = len(counts)
            labels = np.repeat(np.arange(classes), counts)
            place = labels[:, None] - np.arange(classes)
            own = -np.abs(place) / 2 if self.task == "ordinal" else (place == 0).astype(float)
            noise = 0.0
        logits = rng.normal(size=own.shape) + noise
        given = [logits + self.shift * own]
        for _ in range(1, models):
            given.append(logits + OTHER * rng.normal(size=own.shape) + WEAKER * self.shift * own)
        return [self._probabilities(each) for each in given], labels

    def _probabilities(self, logits: np.ndarray) -> np.ndarray:
        grown = np.exp(2 * logits)
        return grown / (1 + grown) if self.task == "multi-label" else grown / grown.sum(axis=1, keepdims=True)

    def scorers(self, rng: np.random.Generator, counts: tuple[int, ...], models: int = 1) -> list[Scorer]:
        """Return models with so many cases of each class."""
        probabilities, labels = self.draw(rng, counts, models)
        thresholds = np.array([0.4, 0.4, 0.4]) if self.task == "multi-label" else None
        return [Scorer(each, labels, self.task, thresholds) for each in probabilities]

    def truth(self) -> tuple[dict[str, float], dict[str, np.ndarray], dict[str, float]]:
        """Return metrics of all that there is, with the class frequencies of a set: overall, by class, differences."""
        both = self.scorers(np.random.default_rng(1), (ALL // len(self.counts),) * len(self.counts), 2)
        labels = both[0].labels
        weights = np.ones(len(labels)) if labels.ndim == 2 else np.array(self.counts)[labels].astype(float)
        one, other = (each(weights[:, None]) for each in both)
        overall = {name: float(values[0]) for name, values in one.overall.items()}
        apart = {name: value - float(other.overall[name][0]) for name, value in overall.items()}
        return overall, {name: values[:, 0] for name, values in one.per_class.items()}, apart


def scenes(quick: bool) -> Iterator[Scene]:
    """Yield where sets are drawn from."""
    shifts = (0.0, 1.5, 3.0, 4.5) if quick else (0.0, 1.0, 2.0, 3.0, 4.0, 5.0)
    counts = [(10, 10), (10, 100), (40, 40), (10, 10, 10), (10, 40, 200)]
    if not quick:
        counts += [(100, 10), (10, 1000), (40, 400), (200, 200), (1000, 1000), (10,) * 8, (100,) * 8]
    for each in counts:
        for shift in shifts:
            yield Scene("binary" if len(each) == 2 else "multi-class", each, shift)
    for shift in shifts:
        yield Scene("ordinal", (20, 40, 20, 10), shift)
        yield Scene("multi-label", (60,), shift)
        if not quick:
            yield Scene("multi-label", (400,), shift)


def coverage(scene: Scene, sets: int, resamples: int) -> dict[str, tuple[float, float, float, float]]:
    """Return of each metric the truth, coverage, share of sets with an interval, and mean width.

    Values of a class are listed as ``name[k]``.
    """
    truth, of_classes, apart = scene.truth()
    rng = np.random.default_rng(2)
    held: dict[str, list[bool]] = {}
    widths: dict[str, list[float]] = {}
    asked: dict[str, int] = {}
    truths: dict[str, float] = {}
    for number in range(sets):
        one, other = scene.scorers(rng, scene.counts, 2)
        (found,) = estimate([one], resamples, CONFIDENCE, number)
        given = {name: (ends, truth[name]) for name, ends in found.intervals.items()}
        for name, every in found.class_intervals.items():
            given |= {f"{name}[{k}]": (ends, float(of_classes[name][k])) for k, ends in enumerate(every)}
        gaps = paired_differences([one], [other], resamples, CONFIDENCE, number)
        given |= {f"difference of {name}": (gap.interval, apart[name]) for name, gap in gaps.items() if gap.method}
        for name, (ends, true) in given.items():
            asked[name], truths[name] = asked.get(name, 0) + 1, true
            if ends is not None:
                held.setdefault(name, []).append(bool(ends[0] - 1e-9 <= true <= ends[1] + 1e-9))
                widths.setdefault(name, []).append(ends[1] - ends[0])
    return {
        name: (truths[name], statistics.fmean(hits), len(hits) / asked[name], statistics.fmean(widths[name]))
        for name, hits in held.items()
    }


def main() -> None:
    """Print the least coverage of each metric, and every value below 93 %."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sets", type=int, default=SETS)
    parser.add_argument("--resamples", type=int, default=RESAMPLES)
    parser.add_argument("--quick", action="store_true", help="fewer places to draw from")
    given = parser.parse_args()
    each: dict[str, list[tuple[float, float, float, float, Scene]]] = {}
    for scene in scenes(given.quick):
        for name, row in coverage(scene, given.sets, given.resamples).items():
            each.setdefault(name.partition("[")[0] + (" of a class" if "[" in name else ""), []).append((*row, scene))
        print(f"- {scene.task} {scene.counts}, shift {scene.shift:g}: done", flush=True)
    print("\n| metric | places | coverage: least | median | mean width | of sets with an interval: least |")
    print("|---|---|---|---|---|---|")
    for name, rows in each.items():
        held = sorted(row[1] for row in rows)
        width, share = statistics.fmean(row[3] for row in rows), min(row[2] for row in rows)
        print(f"| {name} | {len(rows)} | {held[0]:.3f} | {statistics.median(held):.3f} | {width:.3f} | {share:.2f} |")
    print(f"\nBelow {LEAST:.0%}:\n")
    for name, rows in each.items():
        for true, held_share, share, width, scene in sorted(rows, key=lambda row: row[1]):
            if held_share < LEAST:
                place = f"{scene.task} {scene.counts}, shift {scene.shift:g}"
                print(
                    f"- {name}: {held_share:.3f} at {true:.4f} ({place}; width {width:.3f}, of {share:.2f} of the sets)"
                )


if __name__ == "__main__":
    main()
