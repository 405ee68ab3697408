"""A warning where a good average hides a class of which few cases are found.

An average over classes, and an AUC more than others, can be high while one class is hardly ever found: the network
ranks its cases well, and still decides for another class. The rule: accuracy, AUC or another average of the split is at
least 0.9, and of a class less than half of the cases are found for certain, that is, the upper end of the interval of
its recall is below 0.5. Of very few cases that end is high, so that they raise no alarm.
"""

from collections.abc import Sequence

import numpy as np

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


def _upper(recall: float, cases: int) -> float:
    _, high = clopper_pearson(np.array([recall]), np.array([float(cases)]), CONFIDENCE)
    return float(high[0])
