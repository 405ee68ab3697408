"""Augmentation of whole batches of volumes on the training device: one trilinear resampling, one scale and shift each.

As for images (`augment`), flips, rotation and random resized crop are composed into a single sampling matrix, so a
volume is interpolated once; brightness, contrast and, of colour, saturation are composed with the normalisation. A
volume is turned about each of its three axes, and its crop is a cube, whose share of the volume is uniform.

The axes of a volume are depth, height and width, those of its matrix x (width), y (height) and z (depth).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from visionforge.config.schema import Augmentation
from visionforge.data.augment import (
    MAX_MAGNITUDE,
    AugmentationDraw,
    Draw,
    augment,
    colour_and_normalise,
    draw_augmentation,
    fill_channels,
    fills_unequal,
    normalise_each,
    normalise_float,
    plain_tensor,
)
from visionforge.data.augment import OPERATIONS as OF_IMAGES
from visionforge.data.draws import Draws
from visionforge.data.resample_volumes import chunk_of, resample

# After RandAugment, with the strengths of the images: the pool, in the order in which it is drawn from
SHEARS = tuple((row, column) for row in range(3) for column in range(3) if row != column)
OPERATIONS = (*(f"shear_{r}{c}" for r, c in SHEARS), *(f"{n}_{a}" for n in ("translate", "rotate") for a in "xyz"))
OPERATIONS = (*OPERATIONS, "brightness", "contrast")


@dataclass(frozen=True)
class VolumeDraw(Draw):
    """The random choices for one batch of volumes.

    Attributes:
        flips: (N, 3) bool, whether the volume is mirrored left to right, top to bottom, and front to back.
        theta: (N, 3, 4) float32 matrix from output to input coordinates (x, y, z), all in [-1, 1]; None changes no
            geometry beyond the flips. The flips are part of it.
        colour: (N, 3) float32 factors of brightness, contrast and saturation; None changes no values.
    """

    flips: Tensor
    theta: Tensor | None
    colour: Tensor | None


def draw_volume_augmentation(draws: Draws, settings: Augmentation, parity: Tensor | None = None) -> VolumeDraw:
    """Draw the augmentation of cubic volumes, independently for each.

    Args:
        draws: The random numbers of N volumes, of which nothing was drawn yet; the result is on their device.
        settings: Probabilities and ranges; a preset stands for its values.
        parity: (N,) bool, which volumes are mirrored left to right, instead of a random draw; without effect where
            `hflip` is 0.
    """
    settings = settings.resolved()
    uniform = draws.uniform(13)
    shares = (settings.hflip, settings.vflip, settings.dflip)
    flips = torch.stack([uniform[:, axis] < share for axis, share in enumerate(shares)], dim=1)
    if parity is not None and settings.hflip > 0:
        flips[:, 0] = parity
    theta = colour = None
    random = settings.num_ops > 0 and settings.magnitude > 0
    if settings.rotation_angle > 0 or settings.min_scale < 1 or random:
        angles = (2 * uniform[:, 3:6] - 1) * math.radians(settings.rotation_angle)
        side = (settings.min_scale + (1 - settings.min_scale) * uniform[:, 6]) ** (1 / 3)
        theta = volume_matrix(flips, angles, side, (2 * uniform[:, 7:10] - 1) * (1 - side)[:, None])
    if settings.jitter_val > 0:
        colour = 1 + settings.jitter_val * (2 * uniform[:, 10:13] - 1)
    if theta is not None and random:
        theta, colour = _random_operations(theta, colour, settings, draws)
    return VolumeDraw(flips, theta, colour)


def rotations(angles: Tensor) -> Tensor:
    """Return (N, 3, 3) matrices of a rotation about z, then y, then x, by angles (N, 3) about x, y and z, in radians.

    A positive angle turns from the first to the second of the axes (y, z), (z, x) and (x, y), as the right-hand rule
    says.
    """
    result = torch.eye(3, device=angles.device).expand(len(angles), 3, 3)
    for axis in (2, 1, 0):
        first, second = (axis + 1) % 3, (axis + 2) % 3
        turn = torch.eye(3, device=angles.device).repeat(len(angles), 1, 1)
        cos, sin = torch.cos(angles[:, axis]), torch.sin(angles[:, axis])
        turn[:, first, first] = turn[:, second, second] = cos
        turn[:, first, second], turn[:, second, first] = -sin, sin
        result = result @ turn
    return result


def volume_matrix(flips: Tensor, angles: Tensor, side: Tensor, centre: Tensor) -> Tensor:
    """Compose flips, rotation and crop, in this order, into matrices from output to input coordinates.

    Args:
        flips: (N, 3) bool, along x, y and z.
        angles: (N, 3) radians, about x, y and z.
        side: (N,) side of the cube that is kept, as a share of the volume's.
        centre: (N, 3) its middle, in coordinates from -1 to 1.

    Returns:
        (N, 3, 4) float32.
    """
    turn = rotations(angles) * (1.0 - 2.0 * flips.float())[:, :, None]
    return torch.cat([turn * side[:, None, None], turn @ centre[:, :, None]], dim=2)


def _random_operations(
    theta: Tensor, colour: Tensor | None, settings: Augmentation, draws: Draws
) -> tuple[Tensor, Tensor]:
    """Compose `num_ops` random operations per volume into its matrix and factors (after RandAugment).

    The operations are those of images along and about every axis; saturation, which grey volumes have not, is left out.
    """
    count, level = len(theta), settings.magnitude / MAX_MAGNITUDE
    chosen, sign = draws.below(len(OPERATIONS), settings.num_ops), draws.signs(settings.num_ops)
    limits = [OF_IMAGES["shear_x"]] * 6 + [OF_IMAGES["translate_x"]] * 3 + [OF_IMAGES["rotate"]] * 3
    limit = plain_tensor((*limits, OF_IMAGES["brightness"], OF_IMAGES["contrast"]), theta)
    colour = theta.new_ones((count, 3)) if colour is None else colour.clone()
    for index in range(settings.num_ops):
        strength = theta.new_zeros((count, len(OPERATIONS)))
        picked = chosen[:, index, None]
        strength.scatter_(1, picked, sign[:, index, None] * limit[picked] * level)
        change = torch.eye(4, device=theta.device).repeat(count, 1, 1)
        change[:, :3, :3] = rotations(strength[:, 9:12])
        for position, (row, column) in enumerate(SHEARS):  # one at most is not zero, and with it nothing is turned
            change[:, row, column] += strength[:, position]
        change[:, :3, 3] = strength[:, 6:9]
        theta = theta @ change
        colour[:, :2] *= 1 + strength[:, 12:]
    return theta, colour


def draw_for(
    dims: int, draws: Draws, settings: Augmentation, parity: Tensor | None = None
) -> AugmentationDraw | VolumeDraw:
    """Draw the augmentation of images, or of volumes.

    Args:
        dims: 2 for images, 3 for volumes.
        draws: The random numbers of N of them, of which nothing was drawn yet.
        settings: Probabilities and ranges.
        parity: (N,) bool, which are mirrored left to right, instead of a random draw.
    """
    return (draw_volume_augmentation if dims == 3 else draw_augmentation)(draws, settings, parity)


def apply_draw(
    images: Tensor, draw: AugmentationDraw | VolumeDraw, mean: Sequence[float], std: Sequence[float]
) -> Tensor:
    """Augment a batch of images or volumes as drawn, and normalise it.

    Args:
        images: (N, C, H, W) uint8, or volumes (N, C, R, R, R).
        draw: Random choices for them, on their device.
        mean: Mean per output channel.
        std: Standard deviation per output channel.

    Returns:
        (N, len(mean), H, W) or (N, len(mean), R, R, R) float32.
    """
    if isinstance(draw, VolumeDraw):
        return augment_volumes(images, draw, mean, std)
    return augment(images, draw, mean, std)


def augment_volumes(volumes: Tensor, draw: VolumeDraw, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Apply a draw to a batch and normalise it.

    Args:
        volumes: (N, C, D, H, W) uint8, C is 1 or 3.
        draw: Random choices for the N volumes, on their device.
        mean: Mean per channel of values in [0, 1]; one value per output channel.
        std: Standard deviation per output channel.

    Returns:
        (N, len(mean), D, H, W) float32, normalised. A grey volume fills all output channels.
    """
    if fills_unequal(volumes, mean, std):
        return normalise_each(augment_volumes(volumes, draw, (0.0,), (1.0,)), mean, std)
    out = torch.empty(volumes.shape, dtype=torch.float32, device=volumes.device)
    size = chunk_of(volumes)
    for start in range(0, len(volumes), size):
        part = slice(start, start + size)
        _augment(volumes[part], draw[part], mean, std, out[part])
    return fill_channels(out, len(mean))


def _augment(volumes: Tensor, draw: VolumeDraw, mean: Sequence[float], std: Sequence[float], out: Tensor) -> None:
    """Augment one chunk, (N, C, D, H, W), into `out` of the same shape."""
    if draw.theta is not None:
        resample(volumes, draw.theta, out)
        pixels = out
    else:
        for axis in range(3):  # of bytes, which are faster to move than floats
            if volumes.device.type != "cpu" or bool(draw.flips[:, axis].any()):  # a GPU would be waited for
                flip = draw.flips[:, axis].view(-1, 1, 1, 1, 1)
                volumes = torch.where(flip, volumes.flip(4 - axis), volumes)
        pixels = volumes.float()
    if draw.colour is None:
        normalise_float(pixels, mean, std, out)
    else:
        flat = (*pixels.shape[:3], -1)  # what is done to values asks not where they are
        if volumes.shape[1] > 1 and pixels is out:  # a product of matrices must not be written over what it reads
            pixels = out.clone()
        colour_and_normalise(pixels.reshape(flat), draw.colour, mean, std, out.view(flat))
