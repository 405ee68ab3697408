"""Metrics of decisions and rankings, for classes and for labels."""

from collections.abc import Callable

import numpy as np

from visionforge.config.schema.metrics import Compute, Metric, register_metric
from visionforge.scoring.behind import agreement, hits, means, positive_or_means, recalls, share
from visionforge.scoring.cases import Weighted
from visionforge.scoring.limits import Behind
from visionforge.scoring.rates import Floats, correlation, mean


def _accuracy(weighted: Weighted) -> Floats:
    """Share of right predictions; of labels averaged over them."""
    cases = weighted.cases
    if cases.of_labels:
        share: Floats = (cases.predicted == cases.labels).mean(axis=1) @ weighted.weights / weighted.total
        return share
    return np.asarray(weighted.hits.sum(axis=0) / weighted.total)


def _balanced_accuracy(weighted: Weighted) -> Floats:
    """Mean recall of the classes; of labels, mean of (sensitivity + specificity) / 2."""
    rates = weighted.rates
    if weighted.cases.of_labels:
        return mean((rates["sensitivity"] + rates["specificity"]) / 2)
    return mean(rates["sensitivity"])


def _about(weighted: Weighted, values: Floats) -> Floats:
    """Return what is about the positive class (B,) of values (K, B) of two classes, and else their mean."""
    return values[weighted.cases.positive] if weighted.cases.task.has_positive else mean(values)


def _auc(weighted: Weighted) -> Floats:
    """Area under the ROC curve: of the positive class, or one-vs-rest, averaged."""
    return _about(weighted, weighted.area)


def _average_precision(weighted: Weighted) -> Floats:
    """Average precision: of the positive class, or one-vs-rest, averaged."""
    return _about(weighted, weighted.average_precision)


def _f1_macro(weighted: Weighted) -> Floats:
    """Mean F1 of the classes or labels."""
    return mean(weighted.rates["f1"])


def _present(weighted: Weighted, name: str) -> Floats:
    values = weighted.rates[name]
    if weighted.cases.of_labels:
        return mean(values)
    return _about(weighted, np.where(weighted.support > 0, values, np.nan))


def _sensitivity(weighted: Weighted) -> Floats:
    """Recall: of the positive class, or averaged."""
    return _present(weighted, "sensitivity")


def _specificity(weighted: Weighted) -> Floats:
    """Recall of the others: of the positive class, or averaged."""
    return _present(weighted, "specificity")


def _mcc(weighted: Weighted) -> Floats:
    """Matthews' correlation coefficient, for several classes Gorodkin's (2004); of labels averaged."""
    hits, support, said, total = weighted.hits, weighted.support, weighted.said, weighted.total
    if not weighted.cases.of_labels:
        return correlation(hits.sum(axis=0), support, said, total)
    kinds = np.stack([support, total - support]), np.stack([said, total - said])
    right = hits + (total - support - said + hits)
    return mean(correlation(right, *kinds, total))


def _add(
    compute: Compute,
    name: str,
    label: str,
    behind: Callable[[Weighted], Behind | None],
    every_epoch: bool = False,
    of_positive: bool = False,
) -> None:
    metric = Metric(
        behind=behind,
        name=name,
        label=label,
        compute=compute,
        every_epoch=every_epoch,
        of_positive=of_positive,
        shared=True,
        position=10,
    )
    register_metric(metric)


_add(_accuracy, "accuracy", "accuracy", share(hits), every_epoch=True)
_add(_balanced_accuracy, "balanced_accuracy", "balanced accuracy", recalls)
_add(_auc, "auc", "AUC", positive_or_means("auc"), every_epoch=True)
_add(
    _average_precision,
    "average_precision",
    "average precision",
    positive_or_means("average_precision", biased=True),
    of_positive=True,
)
_add(_f1_macro, "f1_macro", "macro-F1", means("f1"))
_add(_sensitivity, "sensitivity", "sensitivity", positive_or_means("sensitivity"), of_positive=True)
_add(_specificity, "specificity", "specificity", positive_or_means("specificity"), of_positive=True)
_add(_mcc, "mcc", "MCC", agreement)
