"""The numbers that training watches: accuracy and AUC as MedMNIST defines them, and those that are registered."""

from collections.abc import Collection

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor
from torchmetrics.functional.classification import binary_auroc

from visionforge.config.schema import Task
from visionforge.config.schema.metrics import metrics_of
from visionforge.data.info import TaskSpec
from visionforge.scoring.cases import Cases, Weighted, values_of


def accuracy(probabilities: Tensor, labels: Tensor, task: Task) -> Tensor:
    """Return the share of right predictions; for multi-label data, of right labels at the threshold 0.5.

    Args:
        probabilities: (N, K).
        labels: (N,) int64, or (N, K) 0/1 for multi-label data.
        task: Kind of labels.
    """
    if task == "multi-label":
        return ((probabilities > 0.5) == labels.bool()).float().mean()
    return (probabilities.argmax(dim=1) == labels).float().mean()


def share_hit(probabilities: Tensor, targets: Tensor, task: Task) -> Tensor:
    """Return the mean target share of the predicted class; with hard targets that is the accuracy.

    Args:
        probabilities: (N, K).
        targets: (N,) int64 classes, or (N, K) shares; for multi-label data the agreement per label is averaged.
        task: Kind of labels.
    """
    if task == "multi-label":
        return 1 - ((probabilities > 0.5).float() - targets.float()).abs().mean()
    predicted = probabilities.argmax(dim=1)
    if targets.ndim == 1:
        return (predicted == targets).float().mean()
    return targets.gather(1, predicted[:, None]).mean()


def best_thresholds(probabilities: Tensor, labels: Tensor) -> Tensor:
    """Return (L,) thresholds, each of which maximises its label's F1: a label is set where its probability is above.

    Of equally good thresholds the highest is taken. A threshold lies midway between two probabilities that occur; a
    label without a case keeps 0.5.

    Args:
        probabilities: (N, L).
        labels: (N, L) 0/1.
    """
    ranked, order = probabilities.double().sort(dim=0, descending=True)
    truth = labels.to(ranked.dtype).gather(0, order)
    said = torch.arange(1, len(truth) + 1, dtype=ranked.dtype, device=truth.device)[:, None]
    f1 = 2 * truth.cumsum(dim=0) / (said + truth.sum(dim=0))
    following = torch.cat([ranked[1:], torch.zeros_like(ranked[:1])])
    f1 = torch.where(ranked > following, f1, -1.0)  # no threshold lies between equal probabilities
    best = f1.argmax(dim=0, keepdim=True)
    middle = (ranked.gather(0, best) + following.gather(0, best))[0] / 2
    return torch.where(truth.sum(dim=0) > 0, middle, 0.5).float()


def auc(probabilities: Tensor, labels: Tensor, task: Task) -> Tensor:
    """Return the area under the ROC curve, one-vs-rest, averaged over the classes that can be ranked.

    A class without positives or without negatives in `labels` has no ROC curve and is left out; if none is left, the
    result is NaN. Of binary data it is the area of class 1, as MedMNIST has it: that of class 0 is another one where
    its probabilities are rounded to 1 and tie.

    Args:
        probabilities: (N, K); only their order counts, so they may lie outside [0, 1] by rounding.
        labels: (N,) int64, or (N, K) 0/1 for multi-label data.
        task: Kind of labels.
    """
    truth = labels.long() if task == "multi-label" else F.one_hot(labels, probabilities.shape[1])
    if task == "binary":
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
        labels: (N,) int64, or (N, K) 0/1 for multi-label data.
        spec: The task.
        prefix: `val` or `test`.
        watched: What epochs and trials are compared by, such as ``val/mcc``.
        thresholds: (K,) of multi-label data.

    Raises:
        VisionForgeError: If somebody's own metric fails.
    """
    values = ranking_metrics(probabilities, labels, spec.task, prefix)
    wanted = [
        metric
        for metric in metrics_of(spec.task)
        if f"{prefix}/{metric.name}" not in values and (metric.every_epoch or metric.logged in watched)
    ]
    if not wanted:
        return values
    limits = None if thresholds is None else thresholds.cpu().numpy()
    given = probabilities.float().cpu().numpy(), labels.cpu().numpy()
    weighted = Weighted(Cases(*given, spec.task, limits, spec.positive_index), np.ones((len(labels), 1)))
    for metric in wanted:
        found = values_of(metric, weighted)
        values[f"{prefix}/{metric.name}"] = probabilities.new_tensor(np.nan if found is None else float(found[0]))
    return values


def ranking_metrics(probabilities: Tensor, labels: Tensor, task: Task, prefix: str) -> dict[str, Tensor]:
    """Return accuracy and AUC under the names ``PREFIX/accuracy`` and ``PREFIX/auc``."""
    return {
        f"{prefix}/accuracy": accuracy(probabilities, labels, task),
        f"{prefix}/auc": auc(probabilities, labels, task),
    }
