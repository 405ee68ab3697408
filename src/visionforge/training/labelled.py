"""A batch of a training as anyone's loader yields it, checked: images and labels of the task, or one clear error."""

from typing import Any

import torch
from torch import Tensor

from visionforge.data.info import TaskSpec
from visionforge.errors import DataError
from visionforge.training.pixels import as_batch


def labelled_batch(batch: Any, spec: TaskSpec) -> tuple[Tensor, Tensor]:
    """Return images (N, C, R, R), uint8 or normalised float, and labels, (N,) int64 or (N, L) uint8.

    Volumes are (N, C, R, R, R).
    The values of labels on a GPU are not looked at, because the step would have to wait for them.

    Args:
        batch: A pair (images, labels). Grey images are given the channels of the task. Labels are integers (N,) or
            (N, 1); of multi-label data, (N, L) zeros and ones of any type.
        spec: The task.

    Raises:
        DataError: If it is something else.
    """
    if not (isinstance(batch, list | tuple) and len(batch) == 2 and all(isinstance(part, Tensor) for part in batch)):
        raise DataError("batch: has to be a pair of tensors (images, labels)")
    images, labels = as_batch(batch[0], spec, "the task's images are"), batch[1]
    if len(labels) != len(images):
        raise DataError(f"labels: {tuple(labels.shape)} for {len(images)} images; allowed: one for every image")
    if spec.task == "multi-label":
        if labels.shape != (len(images), len(spec.classes)):
            raise DataError(
                f"labels: {tuple(labels.shape)}; allowed for multi-label data: ({len(images)}, {len(spec.classes)}), a "
                f"column for each of {', '.join(spec.classes[:20])}"
            )
        _require_values(labels, spec)
        return images, labels.to(torch.uint8)
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1 or labels.is_floating_point() or labels.is_complex():
        raise DataError(
            f"labels: {tuple(labels.shape)} of {labels.dtype}; allowed for {spec.task} data: integers (N,) or (N, 1)"
        )
    _require_values(labels, spec)
    return images, labels.long()


def _require_values(labels: Tensor, spec: TaskSpec) -> None:
    if problem := label_problem(labels, spec):
        raise DataError(problem)


def label_problem(labels: object, spec: TaskSpec) -> str | None:
    """Return what is wrong with the values of labels that lie on the CPU, or None.

    Args:
        labels: Of a batch.
        spec: The task.
    """
    if not isinstance(labels, Tensor) or labels.device.type != "cpu" or not labels.numel() or labels.is_complex():
        return None
    if spec.task == "multi-label":
        wrong = labels[(labels != 0) & (labels != 1)]
        return f"labels: {wrong[0].item()} is not allowed; allowed for multi-label data: 0 or 1" if len(wrong) else None
    last = len(spec.classes) - 1
    labels = labels.double() if labels.is_floating_point() else labels.long()  # few kernels know unsigned integers
    for value in (labels.min().item(), labels.max().item()):
        if not 0 <= value <= last:
            return f"labels: {value} is no class; allowed: 0 to {last} ({', '.join(spec.classes[:20])})"
    return None
