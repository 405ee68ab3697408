"""The loss of each task, for hard and for mixed targets."""

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from visionforge.config.schema import Task


def soft_targets(labels: Tensor, classes: int, task: Task) -> Tensor:
    """Return labels as (N, K) float32: one-hot rows, or the label indicators of multi-label data.

    Args:
        labels: (N,) int64, or (N, K) 0/1 for multi-label data.
        classes: Number of classes K.
        task: Kind of labels.
    """
    return labels.float() if task == "multi-label" else F.one_hot(labels, classes).float()


def task_loss(logits: Tensor, targets: Tensor, task: Task, label_smoothing: float = 0.0) -> Tensor:
    """Return the mean loss of a batch.

    Cross-entropy over the classes; for multi-label data, binary cross-entropy averaged over the labels. Smoothing by s
    moves the share s of the target to the uniform distribution (Szegedy et al., 2016); per label, that is t(1-s) + s/2.

    Args:
        logits: (N, K).
        targets: (N,) int64 classes, or (N, K) float probabilities.
        task: Kind of labels.
        label_smoothing: Share s, 0 to 1.
    """
    if task == "multi-label":
        targets = targets.to(logits.dtype) * (1 - label_smoothing) + label_smoothing / 2
        return F.binary_cross_entropy_with_logits(logits, targets)
    return F.cross_entropy(logits, targets, label_smoothing=label_smoothing)


def probabilities(logits: Tensor, task: Task) -> Tensor:
    """Return (N, K) float32 probabilities: softmax over the classes, or a sigmoid per label."""
    return torch.sigmoid(logits.float()) if task == "multi-label" else torch.softmax(logits.float(), dim=1)
