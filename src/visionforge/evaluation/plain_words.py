"""What a result means, in words and in numbers of a hundred, for readers who know no metrics."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from visionforge.evaluation.evaluation import SplitEvaluation

Ends = tuple[float, float] | Sequence[float] | None
SINGLE = {"classes", "grades"}  # forms of labels of which an image has one


def in_words(evaluation: "SplitEvaluation") -> str | None:
    """Return a result in a few sentences; None of labels of which an image may have several, of masks and of boxes.

    How many of a hundred cases of a class are missed is one minus its sensitivity, with the interval of that.
    """
    estimate, classes = evaluation.best.estimate, evaluation.spec.classes
    accuracy, missed = estimate.overall.get("accuracy"), estimate.per_class.get("sensitivity")
    if not SINGLE & {*evaluation.task.forms} or accuracy is None or missed is None:
        return None
    images = len(evaluation.labels)
    said = [
        f"On {images:,} {evaluation.split} {'image' if images == 1 else 'images'} the network is right in "
        f"{100 * accuracy:.0f} %{_between(estimate.intervals.get('accuracy'), ' %')}."
    ]
    ends = estimate.class_intervals.get("sensitivity", [None] * len(classes))
    told = [k for k in range(len(classes)) if evaluation.support[k] and missed[k] is not None]
    if len(classes) > 2 and len(told) > 2:  # the extremes say most
        by_share = sorted(told, key=lambda k: (missed[k] or 0.0, k))
        told = [by_share[0], by_share[-1]]
    elif evaluation.positive in classes:
        told.sort(key=lambda k: classes[k] != evaluation.positive)
    for place, k in enumerate(told):
        share, limits = 1 - (missed[k] or 0.0), ends[k]
        turned = None if limits is None else (1 - limits[1], 1 - limits[0])
        of = "Of a hundred" if place == 0 else "of a hundred"
        cases = f"{evaluation.support[k]:,} {'case' if evaluation.support[k] == 1 else 'cases'}"
        said.append(f"{of} {classes[k]} it misses about {round(100 * share)}{_between(turned)} ({cases})")
    return f"{said[0]} {'; '.join(said[1:])}." if said[1:] else said[0]


def _between(ends: Ends, unit: str = "") -> str:
    """Return the ends of an interval of shares as numbers of a hundred; nothing where there is none."""
    if ends is None:
        return ""
    low, high = (round(100 * end) for end in ends)
    return f", between {low} and {high}{unit}" if low < high else ""
