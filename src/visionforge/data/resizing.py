"""Images brought to the size that a network reads: whole batches, on the device, in front of the network.

An interpolation is a matrix along each axis, which gives every output pixel its weights of the input's. So it is exact
and separable, the same on every device, deterministic, and made of operations that every export format has.
"""

from collections.abc import Callable, Sequence
from typing import Self

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from visionforge.config.schema import Resize, ResizeMode
from visionforge.data.info import TaskSpec

CUBIC = -0.5  # the parameter a of Keys (1981), as Pillow has it, and torch where it is antialiased
_RADIUS: dict[ResizeMode, float] = {"bilinear": 1.0, "bicubic": 2.0}  # pixels that a kernel reaches to either side


def resize_matrix(source: int, target: int, mode: ResizeMode) -> Tensor:
    """Return (target, source) float64 weights of the pixels of a line in those of the resized line; rows add up to 1.

    Pixels are squares whose middles are at halves, as in Pillow and torchvision. Where the size is reduced, the kernel
    is stretched by the factor, which is the antialiasing; at the border it is cut and divided by what is left of it.

    Args:
        source: Length of the line in pixels.
        target: That of the resized line.
        mode: `bilinear` or `bicubic` (Keys, 1981, doi:10.1109/TASSP.1981.1163711, with a = -1/2).

    >>> resize_matrix(2, 4, "bilinear").tolist()
    [[1.0, 0.0], [0.75, 0.25], [0.25, 0.75], [0.0, 1.0]]
    """
    scale = source / target
    centres = (torch.arange(target, dtype=torch.float64) + 0.5) * scale
    distance = torch.arange(source, dtype=torch.float64) + 0.5 - centres[:, None]
    x = (distance / max(scale, 1.0)).abs()
    if mode == "bilinear":
        weights = (1 - x).clamp(min=0)
    else:
        inner = ((CUBIC + 2) * x - (CUBIC + 3)) * x**2 + 1
        outer = CUBIC * (((x - 5) * x + 8) * x - 4)
        weights = torch.where(x < 1, inner, torch.where(x < _RADIUS[mode], outer, torch.zeros_like(x)))
    return weights / weights.sum(dim=1, keepdim=True)


def resize(images: Tensor, matrix: Tensor) -> Tensor:
    """Return images (N, C, S, S) or volumes (N, C, S, S, S) interpolated to T pixels along each axis.

    Args:
        images: Of floats.
        matrix: (T, S), as of `resize_matrix`, of the same type and device.
    """
    for axis in range(2, images.ndim - 1):  # the last one is a single large product, and leaves memory in order
        resized = torch.matmul(matrix, images.flatten(axis + 1))
        images = resized.reshape(*resized.shape[:-1], *images.shape[axis + 1 :])
    return torch.matmul(images, matrix.T)


class Resizing(nn.Module):
    """Brings normalised images to the size that a network reads; it has nothing to learn, and nothing is stored of it.

    Args:
        settings: The size, and the way there.
        resolution: Height and width S of the images, and depth of volumes.
        mean: Mean per channel by which they are normalised; black is 0 before.
        std: Standard deviation per channel.
        spatial_dims: 2 for images, 3 for volumes.
    """

    constant: Tensor  # the matrix, or of `pad` the black frame (1, C, T, T) around zeros

    def __init__(
        self, settings: Resize, resolution: int, mean: Sequence[float], std: Sequence[float], spatial_dims: int
    ) -> None:
        super().__init__()
        assert settings.size is not None, "there is no size to bring them to"
        self.size, self._pads = settings.size, settings.mode == "pad"
        before = (self.size - resolution) // 2
        self._resolution = resolution
        self._margins = (before, self.size - resolution - before) * spatial_dims
        if self._pads:
            self._exact = self._frame(mean, std, spatial_dims)
        else:
            self._exact = resize_matrix(resolution, self.size, settings.mode)
        self.register_buffer("constant", self._exact.float(), persistent=False)

    @classmethod
    def of(cls, spec: TaskSpec) -> Self | None:
        """Return what a task's images go through; None if the network reads them as they are."""
        if spec.network_resolution == spec.resolution:
            return None
        return cls(spec.resize, spec.resolution, spec.mean, spec.std, spec.spatial_dims)

    def _frame(self, mean: Sequence[float], std: Sequence[float], spatial_dims: int) -> Tensor:
        black = -torch.tensor(mean, dtype=torch.float64) / torch.tensor(std, dtype=torch.float64)
        frame = black.view(1, -1, *(1,) * spatial_dims).repeat(1, 1, *(self.size,) * spatial_dims)
        self._middle(frame).zero_()
        return frame

    def _middle(self, padded: Tensor) -> Tensor:
        """Return the part (N, C, S, S) of (N, C, T, T) that is the image; likewise of volumes."""
        for axis in range(2, padded.ndim):
            padded = padded.narrow(axis, self._margins[0], self._resolution)
        return padded

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Follow the network to its device, but not into half precision, which would move pixels."""
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self.constant = self._exact.float().to(self.constant.device)
        return self

    def forward(self, images: Tensor) -> Tensor:
        """Return images (N, C, T, T), or volumes (N, C, T, T, T), of normalised ones (N, C, S, S); at least float32."""
        if images.dtype.itemsize < torch.float32.itemsize:
            images = images.float()
        if torch.is_autocast_enabled(images.device.type):
            with torch.autocast(images.device.type, enabled=False):
                return self._resized(images)
        return self._resized(images)

    def _resized(self, images: Tensor) -> Tensor:
        channels, constant = images.shape[1], self.constant.to(images.dtype)
        if channels > 1 and images.stride(1) == 0:  # a grey image fills all channels: one is enough
            images = images[:, :1]
        resized = F.pad(images, self._margins) + constant if self._pads else resize(images, constant)
        return resized.expand(-1, channels, *resized.shape[2:])

    def undone(self, maps: Tensor, mode: str) -> Tensor:
        """Return maps (N, 1, h, w) of what the network has seen as maps (N, 1, S, S) of the images; likewise volumes.

        Args:
            maps: Of any size.
            mode: `bilinear` for images, `trilinear` for volumes.
        """
        sides = maps.ndim - 2
        if not self._pads:
            return F.interpolate(maps, size=(self._resolution,) * sides, mode=mode, align_corners=False)
        whole = F.interpolate(maps, size=(self.size,) * sides, mode=mode, align_corners=False)
        return self._middle(whole)
