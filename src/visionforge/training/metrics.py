"""The numbers that training watches: accuracy and AUC as MedMNIST defines them, and those that are registered."""

from collections.abc import Collection, Sequence

import numpy as np
import torch
from torch import Tensor
from torchmetrics.functional.classification import binary_auroc

from visionforge.config.schema import TaskName
from visionforge.config.schema.metrics import Metric, metrics_of
from visionforge.config.schema.tasks import task_named
from visionforge.data.info import TaskSpec
from visionforge.scoring.cases import AnyWeighted, Cases, Weighted, values_of


def auc(probabilities: Tensor, labels: Tensor, task: TaskName) -> Tensor:
    """Return the area under the ROC curve, one-vs-rest, averaged over the classes that can be ranked.

    A class without positives or without negatives in `labels` has no ROC curve and is left out; if none is left, the
    result is NaN. Of two classes it is the area of class 1, as MedMNIST has it: that of class 0 is another one where
    its probabilities are rounded to 1 and tie.

    Args:
        probabilities: (N, K); only their order counts, so they may lie outside [0, 1] by rounding.
        labels: (N,) int64, or (N, K) 0/1 where an image may have several.
        task: Kind of labels.
    """
    kind = task_named(task)
    truth = kind.targets(labels, probabilities.shape[1]).long()
    if kind.has_positive:
        probabilities, truth = probabilities[:, 1:], truth[:, 1:]
    positives = truth.sum(dim=0)
    rankable = torch.nonzero((positives > 0) & (positives < len(truth))).flatten().tolist()
    if not rankable:
        return probabilities.new_tensor(float("nan"))
    return torch.stack([binary_auroc(_ranks(probabilities[:, k]), truth[:, k]) for k in rankable]).mean()


def _ranks(scores: Tensor) -> Tensor:
    """Return (N,) ranks in [0, 1), equal ones of equal scores.

    torchmetrics takes scores of which any lies outside [0, 1] for logits and sends all through a sigmoid, in which
    small differences disappear.
    """
    places: Tensor = torch.unique(scores, return_inverse=True)[1]
    return places.float() / len(places)  # exact for 16 million scores; Apple's GPUs have no float64


def split_metrics(
    probabilities: Tensor,
    labels: Tensor,
    spec: TaskSpec,
    prefix: str,
    watched: Collection[str] = (),
    thresholds: Tensor | None = None,
) -> dict[str, Tensor]:
    """Return ``PREFIX/NAME`` → value of the metrics that are logged of a whole split.

    They are accuracy and AUC, computed on the device; those that are cheap enough for every epoch; and what is watched.

    Args:
        probabilities: (N, K).
        labels: (N,) int64, or (N, K) 0/1 where an image may have several.
        spec: The task.
        prefix: `val` or `test`.
        watched: What epochs and trials are compared by, such as ``val/mcc``.
        thresholds: (K,) of labels.

    Raises:
        VisionForgeError: If somebody's own metric fails.
    """
    values = ranking_metrics(probabilities, labels, spec.task, prefix)
    wanted = [each for each in wanted_metrics(spec.task, watched) if f"{prefix}/{each.name}" not in values]
    if not wanted:
        return values
    limits = None if thresholds is None else thresholds.cpu().numpy()
    given = probabilities.float().cpu().numpy(), labels.cpu().numpy()
    weighted = Weighted(Cases(*given, spec.task, limits, spec.positive_index), np.ones((len(labels), 1)))
    return values | metric_values(wanted, weighted, prefix, probabilities)


def wanted_metrics(task: TaskName, watched: Collection[str]) -> list[Metric]:
    """Return the registered metrics that are cheap enough for every epoch, and those that are watched."""
    return [metric for metric in metrics_of(task) if metric.every_epoch or metric.logged in watched]


def metric_values(metrics: Sequence[Metric], cases: AnyWeighted, prefix: str, like: Tensor) -> dict[str, Tensor]:
    """Return ``PREFIX/NAME`` → value, NaN where it is undefined.

    Args:
        metrics: Which.
        cases: Those of a split, as (N, 1) weights count them.
        prefix: `val` or `test`.
        like: On what device and in what precision the values are to be.

    Raises:
        VisionForgeError: If somebody's own metric fails.
    """
    values = {}
    for metric in metrics:
        found = values_of(metric, cases)
        values[f"{prefix}/{metric.name}"] = like.new_tensor(np.nan if found is None else float(found[0]))
    return values


def ranking_metrics(probabilities: Tensor, labels: Tensor, task: TaskName, prefix: str) -> dict[str, Tensor]:
    """Return accuracy and AUC under the names ``PREFIX/accuracy`` and ``PREFIX/auc``."""
    return {
        f"{prefix}/accuracy": task_named(task).hits(probabilities, labels),
        f"{prefix}/auc": auc(probabilities, labels, task),
    }
