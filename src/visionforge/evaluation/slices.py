"""Volumes as pictures: their middle slices, side by side."""

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


def middle_slices(volume: Array, line: float) -> Array:
    """Return the middle slices of a cube across depth, height and width (axial, coronal, sagittal of a CT).

    Args:
        volume: (..., R, R, R).
        line: Value of the columns that divide the slices.

    Returns:
        (..., R, 3 R + 2).
    """
    middle = volume.shape[-1] // 2
    column = np.full((*volume.shape[:-2], 1), line, dtype=volume.dtype)
    slices = (volume[..., middle, :, :], volume[..., :, middle, :], volume[..., :, :, middle])
    return np.concatenate([slices[0], column, slices[1], column, slices[2]], axis=-1)


def as_picture(image: Array, line: float = 255) -> Array:
    """Return an image (C, H, W) as (H, W, C), and a volume (C, R, R, R) as its middle slices (R, 3 R + 2, C).

    Args:
        image: The image or volume.
        line: White, as its values have it: 255, or 1.
    """
    plane = middle_slices(image, line) if image.ndim == 4 else image
    return plane.transpose(1, 2, 0)
