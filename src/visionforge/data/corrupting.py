"""Whole batches of uint8 images on their way through a corruption."""

from collections.abc import Sequence

import torch
from torch import Tensor

from visionforge.config.seeding import derive_seed
from visionforge.data.corruption import Corruption
from visionforge.data.draws import Draws
from visionforge.errors import DataError

CHUNK_VALUES = 100_000  # that are changed together on a CPU, so that what is made of them stays in its cache


def corrupted(images: Tensor, corruption: Corruption, severity: int, positions: Sequence[int], seed: int = 0) -> Tensor:
    """Return corrupted images (B, C, R, R) uint8 on the same device.

    What becomes of an image is a function of (seed, corruption, severity, position), whatever batch it is in.

    Args:
        images: (B, C, R, R) uint8, grey or colour.
        corruption: The corruption.
        severity: 1 to the number of its severities.
        positions: Position of each image in its split.
        seed: Seed of all random numbers.

    Raises:
        DataError: If the images are of another form, or a corruption of somebody's own gives another shape.
    """
    if (
        images.ndim != 4
        or images.dtype != torch.uint8
        or images.shape[1] not in (1, 3)
        or len(positions) != len(images)
    ):
        raise DataError(
            f"images: {tuple(images.shape)} of {images.dtype} at {len(positions)} positions; allowed: uint8 "
            "(B, 1 or 3, R, R), and a position of each"
        )
    if not 1 <= severity <= len(corruption.severities):
        raise DataError(f"severity: {severity} is not allowed; allowed: 1 to {len(corruption.severities)}")
    device = images.device if images.device.type == "cuda" else torch.device("cpu")  # others lack float64
    keys = [derive_seed(seed, "corruption", corruption.name, severity, int(position)) for position in positions]
    strength = corruption.strength(severity, images.shape[-1])
    step = max(1, CHUNK_VALUES // max(1, images[0:1].numel())) if device.type == "cpu" else max(1, len(images))
    parts = [
        _changed(images[start : start + step].to(device), corruption, strength, keys[start : start + step])
        for start in range(0, len(images), step)
    ]
    return torch.cat(parts).to(images.device) if parts else images.clone()


def _changed(images: Tensor, corruption: Corruption, strength: float, keys: Sequence[int]) -> Tensor:
    changed = corruption.apply(images.float() / 255, strength, Draws(keys, images.device))
    if changed.shape != images.shape:
        raise DataError(f"{corruption.name}: gives {tuple(changed.shape)} of images {tuple(images.shape)}")
    return changed.nan_to_num_(0.0).clamp_(0, 1).mul_(255).round_().byte()
