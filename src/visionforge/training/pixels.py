"""Images as people have them, as the batch that a network takes."""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from visionforge.data.augment import fill_channels
from visionforge.data.info import TaskSpec
from visionforge.errors import DataError


def as_batch(images: Tensor | npt.NDArray[Any], spec: TaskSpec, told: str = "the network was trained on") -> Tensor:
    """Return images as (N, C, H, W), or volumes as (N, C, D, H, W), uint8 or normalised float.

    Args:
        images: A tensor (N, C, H, W), or uint8 (N, H, W); or a uint8 array of NumPy, (N, H, W) or (N, H, W, C) with C 1
            or 3. Of volumes, D stands in front of H.
        spec: What the network was trained on.
        told: Begins what an error says of the form that is expected.

    Raises:
        DataError: If they have another form, another size than the network was trained with, or colours where it takes
            grey.
    """
    sides = (spec.resolution,) * spec.spatial_dims
    shape = (spec.channels, *sides)
    wanted = f"(N, {', '.join(map(str, shape))})"
    if isinstance(images, np.ndarray):
        if images.dtype != np.uint8:
            raise DataError(f"images: a NumPy array of {images.dtype}; allowed: uint8 pixels")
        batch = torch.from_numpy(np.ascontiguousarray(images))
        batch = batch.movedim(-1, 1) if batch.ndim == 2 + len(sides) else batch
    else:
        batch = images
    if batch.ndim == 1 + len(sides) and batch.dtype == torch.uint8:
        batch = batch[:, None]
    if batch.ndim != 2 + len(sides) or not (batch.dtype == torch.uint8 or batch.is_floating_point()):
        named = "H, W" if spec.spatial_dims == 2 else "D, H, W"
        raise DataError(
            f"images: {tuple(images.shape)} of {images.dtype}; allowed: uint8 or normalised float {wanted}, uint8 "
            f"(N, {named}), or a NumPy array (N, {named}, C)"
        )
    if batch.shape[1] == 1 and spec.channels == 3:
        batch = fill_channels(batch, 3)
    if tuple(batch.shape[1:]) != shape:
        raise DataError(f"images: {tuple(images.shape)}; {told} {wanted}")
    return batch
