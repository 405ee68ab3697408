"""A batch of a training as anyone's loader yields it, checked: images and labels of the task, or one clear error."""

from typing import Any

from torch import Tensor

from visionforge.data.info import TaskSpec
from visionforge.errors import DataError
from visionforge.training.pixels import as_batch


def labelled_batch(batch: Any, spec: TaskSpec) -> tuple[Tensor, Tensor]:
    """Return images (N, C, R, R), uint8 or normalised float, and labels, (N,) int64, (N, L) uint8 or a mask each.

    Volumes are (N, C, R, R, R).
    The values of labels on a GPU are not looked at, because the step would have to wait for them.

    Args:
        batch: A pair (images, labels). Grey images are given the channels of the task. Labels are integers (N,) or
            (N, 1); where an image may have several, (N, L) zeros and ones of any type.
        spec: The task.

    Raises:
        DataError: If it is something else.
    """
    if not (isinstance(batch, list | tuple) and len(batch) == 2 and all(isinstance(part, Tensor) for part in batch)):
        raise DataError("batch: has to be a pair of tensors (images, labels)")
    images, labels = as_batch(batch[0], spec, "the task's images are"), batch[1]
    if len(labels) != len(images):
        raise DataError(f"labels: {tuple(labels.shape)} for {len(images)} images; allowed: one for every image")
    found = spec.kind.batch_labels(labels, len(images), spec.classes)
    if spec.kind.maps_labels and found.shape[1:] != images.shape[2:]:
        raise DataError(f"labels: {tuple(found.shape)}; allowed: {(len(images), *images.shape[2:])}, as the images are")
    if problem := label_problem(labels, spec):
        raise DataError(problem)
    return images, found


def label_problem(labels: object, spec: TaskSpec) -> str | None:
    """Return what is wrong with the values of labels that lie on the CPU, or None.

    Args:
        labels: Of a batch.
        spec: The task.
    """
    if not isinstance(labels, Tensor) or labels.device.type != "cpu" or not labels.numel() or labels.is_complex():
        return None
    return spec.kind.value_problem(labels, spec.classes)
