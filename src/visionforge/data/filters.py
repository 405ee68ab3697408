"""Blurring kernels and their convolution with images, and resampling by area.

Borders are reflected, and the outermost pixel is not repeated.
"""

import math

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

_TRUNCATE = 4.0  # standard deviations, as in SciPy
_SUBSAMPLES = 9  # along each side of a pixel that the edge of a disc crosses


def gaussian_blur(images: Tensor, sigma: float) -> Tensor:
    """Return square images (B, C, R, R) blurred by a Gaussian of a standard deviation in pixels.

    Rows and columns are multiplied by a matrix, which is ten times as fast as convolving single channels.
    """
    side = images.shape[-1]
    radius = min(max(1, int(_TRUNCATE * sigma + 0.5)), side - 1)
    places = torch.arange(-radius, radius + 1, device=images.device, dtype=torch.float32)
    weights = torch.exp(-(places**2) / (2 * sigma**2))
    weights = weights / weights.sum()
    padded = F.pad(torch.eye(side, device=images.device)[None], (radius, radius), mode="reflect")[0]
    matrix = padded.unfold(1, side, 1).transpose(1, 2) @ weights  # (R, R), from input to output
    return matrix.T @ images @ matrix


def disc(radius: float, most: int, device: torch.device) -> Tensor:
    """Return (k, k) weights of a disc, what an unfocused lens makes of a point; each is the share of its pixel within.

    Args:
        radius: In pixels.
        most: The largest half-width of the kernel; pixels beyond are left out.
        device: Where it is made.
    """
    reach = min(math.ceil(radius - 0.5), most)
    side = 2 * reach + 1
    cut = (torch.arange(side * _SUBSAMPLES, device=device) + 0.5) / _SUBSAMPLES - side / 2
    within = (cut[:, None] ** 2 + cut[None] ** 2 <= radius**2).float()
    shares = F.avg_pool2d(within[None], _SUBSAMPLES)[0]
    return shares / shares.sum()


def segments(length: float, angles: Tensor, most: int) -> Tensor:
    """Return (B, k, k) weights of straight lines through the middle, what motion makes of a point.

    Args:
        length: Of the lines, in pixels.
        angles: (B,) their directions, in radians.
        most: The largest half-width of a kernel.
    """
    reach = min(math.ceil(length / 2), most)
    along = torch.linspace(-length / 2, length / 2, 4 * math.ceil(length) + 1, device=angles.device)
    places = torch.arange(-reach, reach + 1, device=angles.device, dtype=torch.float32)

    def near(step: Tensor) -> Tensor:  # (B, T, k) bilinear shares of the points on the line
        return (1 - (step[:, None, None] * along[None, :, None] - places).abs()).clamp(min=0)

    kernels = torch.einsum("btu,btv->buv", near(torch.sin(angles)), near(torch.cos(angles)))
    return kernels / kernels.sum(dim=(1, 2), keepdim=True)


def filtered(images: Tensor, kernels: Tensor) -> Tensor:
    """Return images (B, C, H, W) convolved with a kernel (k, k), or with one for each, (B, k, k)."""
    count, channels, height, width = images.shape
    radius = kernels.shape[-1] // 2
    padded = F.pad(images, (radius,) * 4, mode="reflect")
    if kernels.ndim == 2:
        planes = padded.reshape(count * channels, 1, *padded.shape[2:])
        return F.conv2d(planes, kernels[None, None]).view(count, channels, height, width)
    each = kernels.repeat_interleave(channels, dim=0)[:, None]
    planes = padded.reshape(1, count * channels, *padded.shape[2:])
    return F.conv2d(planes, each, groups=count * channels).view(count, channels, height, width)


def area_weights(rows: int, columns: int, device: torch.device) -> Tensor:
    """Return (rows, columns) weights that resample a line of `columns` pixels to `rows`, each the mean of its area."""
    low = torch.arange(rows, device=device)[:, None] * (columns / rows)
    places = torch.arange(columns, device=device)
    overlap = torch.minimum(low + columns / rows, places + 1) - torch.maximum(low, places)
    return overlap.clamp(min=0) * (rows / columns)
