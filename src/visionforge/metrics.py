"""The metrics as functions of probabilities and labels, of masks and of boxes, with intervals, for use in any project.

Arrays of NumPy and tensors are taken alike. Errors are `ValueError`.

>>> import numpy as np
>>> from visionforge import metrics
>>> given = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.3, 0.7]])
>>> metrics.classification_metrics(given, [0, 1, 1, 1])["auc"]
1.0
"""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch

from visionforge.config.schema import TaskName
from visionforge.config.schema.tasks import task_named, usual_task
from visionforge.evaluation import bootstrap
from visionforge.evaluation import metrics as _metrics
from visionforge.evaluation.arguments import ArrayLike, as_array, check_bootstrap
from visionforge.evaluation.bootstrap import CONFIDENCE, RESAMPLES, SEED, Difference, Estimate
from visionforge.evaluation.detection import detection_intervals, detection_metrics
from visionforge.evaluation.scores import HIGHER_IS_BETTER, Scorer
from visionforge.evaluation.segmentation import (
    instance_average_precision,
    instances,
    segmentation_intervals,
    segmentation_metrics,
)
from visionforge.scoring.clusters import Clusters
from visionforge.training import calibration

__all__ = [
    "HIGHER_IS_BETTER",
    "Difference",
    "Estimate",
    "best_thresholds",
    "calibrated",
    "classification_intervals",
    "classification_metrics",
    "detection_intervals",
    "detection_metrics",
    "fit_temperature",
    "instance_average_precision",
    "instances",
    "medmnist_metrics",
    "paired_differences",
    "segmentation_intervals",
    "segmentation_metrics",
]


def classification_metrics(
    probabilities: ArrayLike,
    labels: ArrayLike,
    task: TaskName | None = None,
    *,
    thresholds: ArrayLike | None = None,
    positive: int = 1,
) -> Mapping[str, float | None]:
    """Return all metrics by name; one that is undefined, such as the AUC of a single class, is None.

    `visionforge.evaluation.scores.Scorer` says what each of them is; `HIGHER_IS_BETTER` has their names.

    Args:
        probabilities: (N, K), 0 to 1, of the classes, or of each label.
        labels: (N,) classes 0 to K-1, or (N, K) 0/1 where an image may have several.
        task: Name of a task, as data sets have it; None follows from the form of the labels and the number of classes.
        thresholds: (K,) of labels; adds the metrics at these.
        positive: Of two classes, the one that is to be found.

    Raises:
        ValueError: If shapes or values do not fit.

    >>> found = classification_metrics([[0.8, 0.1, 0.1], [0.3, 0.4, 0.3], [0.2, 0.2, 0.6]], [0, 1, 1])
    >>> round(found["accuracy"], 3), round(found["mcc"], 3)
    (0.667, 0.612)
    """
    given, truth, kind = _checked(probabilities, labels, task)
    limits = None if thresholds is None else as_array(thresholds)
    if limits is not None and (not task_named(kind).several or limits.shape != given.shape[1:]):
        raise ValueError(
            f"thresholds: {limits.shape}; allowed: {given.shape[1:]}, where an image may have several labels"
        )
    _check_positive(positive, given)
    return _metrics.classification_metrics(given, truth, kind, limits, positive)


def classification_intervals(
    probabilities: ArrayLike,
    labels: ArrayLike,
    task: TaskName | None = None,
    *,
    positive: int = 1,
    groups: ArrayLike | None = None,
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
    seed: int = SEED,
) -> Estimate:
    """Return all metrics, overall and per class, with intervals that stay open without a mistake.

    Shares have exact binomial limits (Clopper and Pearson, 1934), and what is no share those of
    `visionforge.scoring.limits`; `methods` of the result says which. Where they need resamples, the cases of each
    class are drawn anew with replacement (Efron and Tibshirani, 1993).

    Args:
        probabilities: As in `classification_metrics`.
        labels: As there.
        task: As there.
        positive: As there.
        groups: (N,) of what each case is, such as a patient: cases of a group are not independent, so groups are drawn
            whole, and intervals are wider; None: each case stands for itself.
        resamples: Number of resamples; 0 gives no intervals.
        confidence: Least share of samples of which an interval holds the truth, between 0 and 1.
        seed: Seed of the draws.

    Raises:
        ValueError: If shapes or values do not fit.

    >>> import numpy as np
    >>> labels = np.arange(60) % 2
    >>> given = np.where(np.arange(60) % 7 > 1, labels, 1 - labels) * 0.6 + 0.2
    >>> found = classification_intervals(np.stack([1 - given, given], axis=1), labels, resamples=500)
    >>> low, high = found.intervals["accuracy"]
    >>> low < found.overall["accuracy"] < high
    True
    """
    given, truth, kind = _checked(probabilities, labels, task)
    _check_positive(positive, given)
    check_bootstrap(resamples, confidence)
    scorer = Scorer(given, truth, kind, None, positive, clusters=_clusters(groups, len(given)))
    (found,) = bootstrap.estimate([scorer], resamples, confidence, seed)
    return found


def paired_differences(
    one: ArrayLike,
    other: ArrayLike,
    labels: ArrayLike,
    task: TaskName | None = None,
    *,
    positive: int = 1,
    groups: ArrayLike | None = None,
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
    seed: int = SEED,
) -> Mapping[str, Difference]:
    """Return by how much each metric of one model is above that of another, with interval and p-value.

    The cases are the same, so they are paired; see `visionforge.evaluation.differences`.

    Args:
        one: (N, K) probabilities of a model.
        other: Those of the other.
        labels: As in `classification_metrics`.
        task: As there.
        positive: As there.
        groups: As in `classification_intervals`.
        resamples: Number of resamples, at least 1.
        confidence: Share of the resamples that an interval holds, between 0 and 1.
        seed: Seed of the draws.

    Raises:
        ValueError: If shapes or values do not fit.

    >>> import numpy as np
    >>> labels = np.arange(40) % 2
    >>> sure, guess = np.eye(2)[labels] * 0.8 + 0.1, np.full((40, 2), 0.5)
    >>> paired_differences(sure, guess, labels, resamples=200)["accuracy"].value
    0.5
    """
    mine, truth, kind = _checked(one, labels, task)
    theirs, _, _ = _checked(other, labels, kind)
    if mine.shape != theirs.shape:
        raise ValueError(f"other: {theirs.shape}; allowed: {mine.shape}, as of the other model")
    _check_positive(positive, mine)
    check_bootstrap(resamples, confidence, least=1)
    clusters = _clusters(groups, len(mine))
    pair = [Scorer(given, truth, kind, None, positive, clusters=clusters) for given in (mine, theirs)]
    return bootstrap.paired_differences(pair[:1], pair[1:], resamples, confidence, seed)


def medmnist_metrics(
    probabilities: ArrayLike, labels: ArrayLike, task: TaskName | None = None
) -> Mapping[str, float | None]:
    """Return accuracy and AUC as MedMNIST's evaluator defines them (Yang et al., 2023, arXiv:2110.14795).

    Args:
        probabilities: As in `classification_metrics`.
        labels: As there.
        task: As there.

    Raises:
        ValueError: If shapes or values do not fit.

    >>> medmnist_metrics([[0.7, 0.3], [0.4, 0.6]], [0, 1])
    {'accuracy': 1.0, 'auc': 1.0}
    """
    return _metrics.medmnist_metrics(*_checked(probabilities, labels, task))


def best_thresholds(probabilities: ArrayLike, labels: ArrayLike) -> npt.NDArray[np.float32]:
    """Return (L,) thresholds that maximise the F1 of each label; 0.5 for a label without a case.

    Args:
        probabilities: (N, L), 0 to 1.
        labels: (N, L) 0/1.

    Raises:
        ValueError: If shapes or values do not fit.

    >>> best_thresholds([[0.25], [0.5], [0.75]], [[0], [1], [1]]).tolist()
    [0.375]
    """
    given, truth, kind = _checked(probabilities, labels, usual_task(True, 2, own=True))
    found = task_named(kind).thresholds(torch.from_numpy(given), torch.from_numpy(truth))
    assert found is not None, "labels have thresholds"
    thresholds: npt.NDArray[np.float32] = found.numpy()
    return thresholds


def fit_temperature(probabilities: ArrayLike, labels: ArrayLike, task: TaskName | None = None) -> float | None:
    """Return the temperature, 0.05 to 20, under which labels are most probable (Guo et al., 2017, arXiv:1706.04599).

    Fit it on a validation split and apply it to others with `calibrated`. None if the labels do not fix it, as where
    every prediction is right.

    Args:
        probabilities: As in `classification_metrics`.
        labels: As there.
        task: As there.

    Raises:
        ValueError: If shapes or values do not fit.

    >>> too_sure = [[0.99, 0.01]] * 10
    >>> temperature = fit_temperature(too_sure, [0] * 8 + [1] * 2)
    >>> calibrated(too_sure[:1], temperature).round(2).tolist()
    [[0.8, 0.2]]
    """
    given, truth, kind = _checked(probabilities, labels, task)
    return calibration.fit_temperature(torch.from_numpy(given), torch.from_numpy(truth), kind)


def calibrated(
    probabilities: ArrayLike, temperature: float | None, *, multi_label: bool = False
) -> npt.NDArray[np.float64]:
    """Return probabilities (N, K) float64 whose logits are divided by a temperature; None leaves them as they are.

    Args:
        probabilities: (N, K), 0 to 1.
        temperature: Above 1 makes them less sure.
        multi_label: They are of labels that do not exclude each other.

    Raises:
        ValueError: If shapes or values do not fit.
    """
    if temperature is not None and not 0 < temperature < float("inf"):
        raise ValueError(f"temperature: {temperature} is not allowed; allowed: a number above 0, or None")
    task = usual_task(multi_label, 3, own=True)
    found: npt.NDArray[np.float64] = calibration.scale(
        torch.from_numpy(_shares(probabilities)), temperature, task
    ).numpy()
    return found


def _shares(values: ArrayLike) -> npt.NDArray[np.float64]:
    given = as_array(values)
    if given.ndim != 2 or not given.size or given.shape[1] < 1:
        raise ValueError(f"probabilities: {given.shape}; allowed: (N, K), at least one case")
    given = given.astype(np.float64)
    tolerance = 1e-6  # rounding of float32, by which a mean over views may be above 1
    if not ((given >= -tolerance) & (given <= 1 + tolerance)).all():  # also of NaN
        raise ValueError("probabilities: a value is not between 0 and 1; give probabilities, not logits")
    return given.clip(0, 1)


def _checked(
    probabilities: ArrayLike, labels: ArrayLike, task: TaskName | None
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64], TaskName]:
    given, truth = _shares(probabilities), as_array(labels)
    count, classes = given.shape
    name = task or usual_task(truth.ndim == 2, classes, own=True)
    kind = task_named(name)
    wanted = kind.label_shapes(count, classes)[-1]
    if truth.shape != wanted:
        raise ValueError(f"labels: {truth.shape}; allowed for {name} data: {wanted}")
    if kind.class_count not in (None, classes):
        raise ValueError(f"probabilities: {given.shape}; allowed for {name} data: ({count}, {kind.class_count})")
    last = kind.highest_label(classes)
    if not np.isin(truth, np.arange(last + 1)).all():
        raise ValueError(f"labels: allowed for {name} data: whole numbers, 0 to {last}")
    return given, truth.astype(np.int64), name


def _clusters(groups: ArrayLike | None, count: int) -> Clusters | None:
    if groups is None:
        return None
    names = as_array(groups)
    if names.shape != (count,):
        raise ValueError(f"groups: {names.shape}; allowed: ({count},), one for each case")
    return Clusters(names)


def _check_positive(positive: int, given: npt.NDArray[np.float64]) -> None:
    if not 0 <= positive < given.shape[1]:
        raise ValueError(f"positive: {positive} is no class; allowed: 0 to {given.shape[1] - 1}")
