"""Images as people have them, as the batch that a network takes."""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from visionforge.data.info import TaskSpec
from visionforge.errors import DataError


def as_batch(images: Tensor | npt.NDArray[Any], spec: TaskSpec, told: str = "the network was trained on") -> Tensor:
    """Return images as (N, C, H, W), uint8 or normalised float.

    Args:
        images: A tensor (N, C, H, W), or uint8 (N, H, W); or a uint8 array of NumPy, (N, H, W) or (N, H, W, C) with C 1
            or 3.
        spec: What the network was trained on.
        told: Begins what an error says of the form that is expected.

    Raises:
        DataError: If they have another form, another size than the network was trained with, or colours where it takes
            grey.
    """
    wanted = f"(N, {spec.channels}, {spec.resolution}, {spec.resolution})"
    if isinstance(images, np.ndarray):
        if images.dtype != np.uint8:
            raise DataError(f"images: a NumPy array of {images.dtype}; allowed: uint8 pixels")
        batch = torch.from_numpy(np.ascontiguousarray(images))
        batch = batch.permute(0, 3, 1, 2) if batch.ndim == 4 else batch
    else:
        batch = images
    if batch.ndim == 3 and batch.dtype == torch.uint8:
        batch = batch[:, None]
    if batch.ndim != 4 or not (batch.dtype == torch.uint8 or batch.is_floating_point()):
        raise DataError(
            f"images: {tuple(images.shape)} of {images.dtype}; allowed: uint8 or normalised float {wanted}, uint8 "
            "(N, H, W), or a NumPy array (N, H, W, C)"
        )
    if batch.shape[1] == 1 and spec.channels == 3:
        batch = batch.expand(-1, 3, -1, -1)
    if tuple(batch.shape[1:]) != (spec.channels, spec.resolution, spec.resolution):
        raise DataError(f"images: {tuple(images.shape)}; {told} {wanted}")
    return batch
