"""Warnings where numbers look better than they are: one answer for all, and a class that a good average hides.

An average over classes, and an AUC more than others, can be high while one class is hardly ever found: the network
ranks its cases well, and still decides for another class. The rule: accuracy, AUC or another average of the split is at
least 0.9, and of a class less than half of the cases are found for certain, that is, the upper end of the interval of
its recall is below 0.5. Of very few cases that end is high, so that they raise no alarm.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from visionforge.evaluation.bootstrap import CONFIDENCE, Estimate
from visionforge.evaluation.metric_names import metric_name
from visionforge.scoring.limits import clopper_pearson

GOOD, FOUND = 0.9, 0.5
AVERAGES = ("auc", "accuracy", "average_precision", "f1_macro", "balanced_accuracy")
_SHOWN = 5  # classes of a line


def hidden_classes(
    classes: Sequence[str], cases: Sequence[int], found: Estimate, positive: str | None = None
) -> list[str]:
    """Return a line about the classes that a good average hides, the worst first; none if there is none.

    Args:
        classes: Their names.
        cases: Number of cases of each.
        found: Metrics, and the recall of each class; an interval that it lacks is that of a share of its cases.
        positive: Of two classes, the one that is to be found.
    """
    good = [(found.overall[name], name) for name in AVERAGES if (found.overall.get(name) or 0.0) >= GOOD]
    name = "sensitivity_tuned" if "sensitivity_tuned" in found.per_class else "sensitivity"
    recalls, ends = found.per_class.get(name, []), found.class_intervals.get(name)
    hidden = []
    for k, recall in enumerate(recalls):
        if recall is None or not recall < FOUND:
            continue
        high = _upper(recall, cases[k]) if ends is None or (end := ends[k]) is None else end[1]
        if high < FOUND:
            hidden.append((recall, f"{recall:.1%} of the {cases[k]:,} cases of {classes[k]} (at most {high:.1%})"))
    if not good or not hidden:
        return []
    texts = [text for _, text in sorted(hidden)]
    more = f" and {len(texts) - _SHOWN} classes more" if len(texts) > _SHOWN else ""
    value, average = max(good, key=lambda each: each[0] or 0.0)
    return [
        f"a good average hides what is not found: {metric_name(average, positive)} is {value:.3f}, but found are only "
        f"{', '.join(texts[:_SHOWN])}{more}"
    ]


def only_answer(
    classes: Sequence[str], predicted: npt.NDArray[np.integer], labels: npt.NDArray[np.integer]
) -> list[str]:
    """Return a line where every image is predicted as the same class, and not all are of it; none elsewhere.

    The best of few epochs can be one in which nothing was learnt: an AUC of few validation images is a matter of luck.

    Args:
        classes: Their names.
        predicted: (N,) class of each image; (N, L) of several labels, of which nothing is said.
        labels: The same, as they are.
    """
    if (only := only_class(classes, predicted, labels)) is None:
        return []
    others = int((labels != predicted[0]).sum())
    return [
        f"all {len(labels):,} images are predicted as {only}, {others:,} of them are of other classes: the "
        "network decides for nothing else; more epochs or another learning rate may help"
    ]


def only_class(
    classes: Sequence[str], predicted: npt.NDArray[np.integer], labels: npt.NDArray[np.integer]
) -> str | None:
    """Return the class as which every image is predicted, though not all are of it; None elsewhere.

    Args:
        classes: Their names.
        predicted: (N,) class of each image; (N, L) of several labels, of which nothing is said.
        labels: The same, as they are.
    """
    if labels.ndim > 1 or not len(labels) or (predicted != predicted[0]).any() or (labels == predicted[0]).all():
        return None
    return classes[int(predicted[0])]


def _upper(recall: float, cases: int) -> float:
    _, high = clopper_pearson(np.array([recall]), np.array([float(cases)]), CONFIDENCE)
    return float(high[0])
