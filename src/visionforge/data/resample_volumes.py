"""Trilinear resampling of volumes by an affine matrix each, fast on CPUs.

torch has a vectorised kernel for images on CPUs, and a scalar one, about four times as slow, for volumes. So the slices
of a volume are put below each other, as one tall image with two channels: a slice, and the next one. Bilinear sampling
gives a value of both, and the position between the slices weighs them. The two channels are views of the same memory.
"""

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

CHUNK_VOXELS = 1 << 18  # voxels that are resampled together on a CPU, so that their coordinates stay in its cache
DEVICE_VOXELS = 1 << 25  # the same elsewhere, where coordinates take 12 bytes a voxel: 400 MB
# A position in the tall image is a float32: with so many slices of so many rows its error is below 1e-3 voxels
MAX_SIDE = 64


def chunk_of(volumes: Tensor) -> int:
    """Return how many volumes (N, C, D, H, W) are worked on together: at least one for each thread of a CPU."""
    voxels = max(1, volumes[0, 0].numel())
    if volumes.device.type != "cpu":
        return max(1, DEVICE_VOXELS // voxels)
    threads = min(torch.get_num_threads(), max(1, DEVICE_VOXELS // voxels))
    return max(threads, CHUNK_VOXELS // voxels)


def resample(volumes: Tensor, theta: Tensor, out: Tensor) -> None:
    """Sample volumes at the places that their matrices say; what lies outside is 0.

    Args:
        volumes: (N, C, D, H, W) uint8.
        theta: (N, 3, 4) matrices from output to input coordinates, in the convention of ``affine_grid`` with
            ``align_corners=False``.
        out: (N, C, D, H, W) float32 for the result, with values from 0 to 255.
    """
    if volumes.device.type == "cpu" and max(volumes.shape[2:4]) <= MAX_SIDE:
        _resample_slices(volumes, theta, out)
    else:
        grid = sampling_grid(theta, volumes.shape[2], volumes.shape[3], volumes.shape[4])
        out.copy_(F.grid_sample(volumes.float(), grid, mode="bilinear", padding_mode="zeros", align_corners=False))


def sampling_grid(theta: Tensor, depth: int, height: int, width: int) -> Tensor:
    """Return (N, D, H, W, 3) input coordinates, the values of ``affine_grid(theta, …, align_corners=False)``.

    A matrix applied to a regular grid is the sum of a term for each axis.
    """
    x, y, z = _axis_terms(theta, depth, height, width)
    grid = theta.new_empty((len(theta), depth, height, width, 3))
    for axis in range(3):
        plane = z[:, axis, :, None] + y[:, axis, None, :]
        torch.add(plane[..., None], x[:, axis, None, None, :], out=grid[..., axis])
    return grid


def _axis_terms(theta: Tensor, depth: int, height: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return (N, 3, W), (N, 3, H) and (N, 3, D), whose sums are the input coordinates; the offset is in the last."""
    x, y, z = (
        theta[:, :, axis, None] * ((torch.arange(size, device=theta.device) * 2 + 1) / size - 1)
        for axis, size in enumerate((width, height, depth))
    )
    return x, y, z + theta[:, :, 3, None]


def _resample_slices(volumes: Tensor, theta: Tensor, out: Tensor) -> None:
    """Sample by way of a tall image: slice s of the volume has the rows after (s + 1)·(H + 1).

    A row of zeros divides two slices, and before and behind the volume are slices of zeros; together with clamped
    coordinates they make that what is outside is 0, and that a value near the border is blended with it.
    """
    count, channels, depth, height, width = volumes.shape
    step = height + 1
    rows = (depth + 2) * step
    slab = max(1, min(depth, CHUNK_VOXELS // (count * height * width)))
    x, y, z = _axis_terms(theta, depth, height, width)
    # z in voxels from the middle slice: the largest numbers, rows from there, are then exact for longest
    middle = depth // 2
    z_low, z_high = -1.0 - middle, float(depth - middle)
    per_row, shift = 2 / rows, (2 * (middle + 1) * step + 3) / rows - 1
    z_scale, z_shift = depth / 2, (depth - 1) / 2 - middle
    y_scale, y_shift = per_row * height / 2, per_row * (height - 1) / 2 + shift
    y_low, y_high = -per_row + shift, per_row * height + shift
    padded = torch.zeros((count, depth + 3, step, width))
    strides = (padded.stride(0), padded.stride(1), width, 1)
    tall = padded.as_strided((count, 2, rows, width), strides)
    for start in range(0, depth, slab):
        part = slice(start, start + slab)
        plane = z[:, :, part, None] + y[:, :, None, :]
        size = (count, plane.shape[2], height, width)
        grid = torch.empty((2, *size))
        torch.add(plane[:, 0, :, :, None], x[:, 0, None, None, :], out=grid[0])
        between = (plane[:, 2] * z_scale + z_shift)[..., None] + (x[:, 2] * z_scale)[:, None, None, :]
        between.clamp_(z_low, z_high)
        slices = between.floor()
        between -= slices
        torch.add((plane[:, 1] * y_scale + y_shift)[..., None], (x[:, 1] * y_scale)[:, None, None, :], out=grid[1])
        grid[1].clamp_(y_low, y_high).add_(slices, alpha=step * per_row)
        places = grid.view(2, count, -1, width).permute(1, 2, 3, 0)
        for channel in range(channels):
            if channels > 1 or start == 0:
                padded[:, 1 : depth + 1, 1:].copy_(volumes[:, channel])
            pair = F.grid_sample(tall, places, mode="bilinear", padding_mode="zeros", align_corners=False)
            pair = pair.view(count, 2, *size[1:])
            torch.lerp(pair[:, 0], pair[:, 1], between, out=out[:, channel, part])
