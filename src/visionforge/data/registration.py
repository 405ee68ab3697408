"""Whether two images that look alike are the same picture: they are laid over each other, and what is left is compared.

The first is moved and scaled until it fits the second (Gauss-Newton on grey values, coarse to fine; Lucas and Kanade,
1981), with brightness and contrast free. Then what images of this data set have in common, its mean and seven principal
components, is projected out of both, because two eyes or two chests agree in that; copies agree in the rest as well.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from visionforge.data.thumbnails import VIEWS, view

LEAST_CORRELATION = 0.85  # of what is left; chosen by benchmarks/duplicates.py
COARSE_CORRELATION = 0.5  # of halved copies, from which on a pair is looked at more closely
COMPONENTS = 8  # the mean among them
SAMPLED = 2000  # images that they are computed of
LEAST_TEXTURE = 0.05  # share of the image in which there is something to compare
WINDOW = 7  # pixels
NOISE = 3.0  # deviation of grey values below which a window counts little
STEPS = ((4, 3), (2, 3), (1, 4))  # by how much the copies are shrunk, and how often the fit is bettered
FARTHEST = 0.35  # of half a side by which an image may be moved, and logarithm of its scale
_STEP = 0.15  # farthest at once
_PART = 4096  # pairs at a time


@dataclass(frozen=True)
class Fits:
    """How well the first images of pairs fit the second ones, once they are turned.

    Attributes:
        correlation: (M,) of what is left when that which all images share is taken off, -1 to 1; the lower one of the
            whole and of the mean over windows. -1 where nothing is left to compare.
        moved: (M, 2) right and down, in shares of the side.
        scale: (M,) of the first image in the second.
        gain: (M,) contrast of the second relative to the first.
    """

    correlation: npt.NDArray[np.float32]
    moved: npt.NDArray[np.float32]
    scale: npt.NDArray[np.float32]
    gain: npt.NDArray[np.float32]


class Registration:
    """Compares pairs among images.

    Args:
        copies: (N, S, S) uint8, from `thumbnails`.
        distinct: (N,) those of which it is computed what all images share; many copies of one would be that themselves.
    """

    def __init__(self, copies: npt.NDArray[np.uint8], distinct: npt.NDArray[np.bool_]) -> None:
        self._copies = copies
        shared = _shared(copies[distinct])
        turned = [np.ascontiguousarray(view(shared, which)) for which in range(len(VIEWS))]
        self._shared = torch.from_numpy(np.stack(turned).astype(np.float32))  # (8, C, S, S)

    def fits(self, first: npt.NDArray[np.int64], second: npt.NDArray[np.int64], which: npt.NDArray[np.int64]) -> Fits:
        """Return how well images fit others; only pairs that fit coarsely are looked at closely, others have -1.

        Args:
            first: (M,) positions.
            second: (M,) positions.
            which: (M,) how the first images are turned, places in `VIEWS`.
        """
        parts = [
            self._part(first[start : start + _PART], second[start : start + _PART], which[start : start + _PART])
            for start in range(0, len(first), _PART)
        ]
        rows = np.concatenate([np.empty((0, 5), np.float32), *parts])
        return Fits(rows[:, 0], rows[:, 1:3], rows[:, 3], rows[:, 4])

    def _part(
        self, first: npt.NDArray[np.int64], second: npt.NDArray[np.int64], which: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.float32]:
        out = np.zeros((len(first), 5), np.float32)
        out[:, 0], out[:, 3], out[:, 4] = -1, 1, 1
        one = np.empty((len(first), *self._copies.shape[1:]), np.float32)
        for way in np.unique(which):
            of_way = which == way
            one[of_way] = view(self._copies[first[of_way]], int(way))
        a, b = torch.from_numpy(one), torch.from_numpy(self._copies[second].astype(np.float32))
        ways = torch.from_numpy(which)
        place = torch.zeros(len(first), 3)
        for shrunk, steps in STEPS[:2]:
            place = _bettered(_halved(a, shrunk), _halved(b, shrunk), place, steps)
        coarse = self._left(a, b, place, ways, STEPS[1][0])[0]
        close = torch.nonzero(coarse >= COARSE_CORRELATION)[:, 0]
        if not len(close):
            return out
        a, b, ways, place = a[close], b[close], ways[close], place[close]
        place = _bettered(a, b, place, STEPS[2][1])
        moved, still = self._left(a, b, place, ways, 1), self._left(a, b, torch.zeros_like(place), ways, 1)
        stays = still[0] >= moved[0] - 0.01  # a copy that is not moved is not said to be
        correlation, gain = (torch.where(stays, s, m) for s, m in zip(still, moved, strict=True))
        place = torch.where(stays[:, None], torch.zeros_like(place), place)
        scale = torch.exp(place[:, 2:])
        shift = -place[:, :2] / (2 * scale)  # from where a pixel is taken to where it goes; a side is 2 long
        rows = torch.cat([correlation[:, None], shift, 1 / scale, gain[:, None]], dim=1)
        out[close.numpy()] = rows.numpy()
        return out

    def _left(self, a: Tensor, b: Tensor, place: Tensor, ways: Tensor, shrunk: int) -> tuple[Tensor, Tensor]:
        """Return (M,) the correlation of what is left at a place, and the contrast of the second image."""
        a, b, shared = _halved(a, shrunk), _halved(b, shrunk), self._shared
        size = a.shape[-1]
        components = _halved(shared.flatten(0, 1), shrunk).reshape(*shared.shape[:2], size, size)
        warped, inside = warp(a[:, None], place)
        there, _ = warp(components[ways], place)
        here = components[:1].expand(len(a), -1, -1, -1)
        columns = torch.cat([torch.ones_like(warped), here, there], dim=1).flatten(2).transpose(1, 2)
        weight = inside.flatten(1)[..., None]
        pair = torch.stack([warped[:, 0], b], dim=-1).flatten(1, 2)
        square = (columns * weight).transpose(1, 2) @ columns
        square = square + 1e-4 * torch.diag_embed(square.diagonal(dim1=1, dim2=2)) + 1e-6 * torch.eye(square.shape[1])
        left = pair - columns @ torch.linalg.solve(square, (columns * weight).transpose(1, 2) @ pair)
        x, y = left.reshape(len(a), size, size, 2).unbind(-1)
        inside = inside[:, 0] if inside.ndim == 4 else inside
        whole, gain = _correlation(x, y, inside)
        window = WINDOW if shrunk == 1 else WINDOW // 2
        local, texture = _by_windows(x, y, inside, window)
        found = torch.minimum(whole, local)
        return torch.where(texture >= LEAST_TEXTURE, found, torch.full_like(found, -1.0)), gain


def _shared(copies: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Return (C, S, S) the mean and the principal components of images of even brightness and contrast."""
    chosen = copies[:: max(1, len(copies) // SAMPLED)][:SAMPLED].astype(np.float32)
    deviation = np.maximum(chosen.std(axis=(1, 2), keepdims=True), 1)
    even = (chosen - chosen.mean(axis=(1, 2), keepdims=True)) / deviation
    mean = even.mean(axis=0)
    rest = (even - mean).reshape(len(even), -1)
    count = min(COMPONENTS - 1, len(chosen) // 16)  # of few images they would be the images themselves
    if not count:
        return np.asarray(mean[None] * (len(chosen) >= 8), np.float32)
    _, vectors = np.linalg.eigh(rest.T @ rest)
    components = vectors[:, ::-1][:, :count].T.reshape(count, *mean.shape) * np.sqrt(mean.size)
    return np.asarray(np.concatenate([mean[None], components]), np.float32)


def _halved(images: Tensor, times: int) -> Tensor:
    return images if times == 1 else functional.avg_pool2d(images[:, None], times)[:, 0]


def _axis(size: int) -> Tensor:
    """Return (size,) the middles of pixels, where a side goes from -1 to 1."""
    return torch.linspace(-1 + 1 / size, 1 - 1 / size, size)


def warp(images: Tensor, place: Tensor) -> tuple[Tensor, Tensor]:
    """Return images (M, C, S, S) at a place, and (M, 1, S, S) where pixels are that the image has.

    Args:
        images: The images.
        place: (M, 3) by how much the point is moved from which a pixel is taken, and the logarithm of its scale.
    """
    size = images.shape[-1]
    scale, axis = torch.exp(place[:, 2, None, None]), _axis(size)
    x = (axis[None, None, :] * scale + place[:, 0, None, None]).expand(-1, size, -1)
    y = (axis[None, :, None] * scale + place[:, 1, None, None]).expand(-1, -1, size)
    moved = functional.grid_sample(images, torch.stack([x, y], dim=-1), padding_mode="border", align_corners=False)
    most = 1 - 1 / size + 1e-4
    return moved, ((x.abs() <= most) & (y.abs() <= most)).float()[:, None]


def _bettered(a: Tensor, b: Tensor, place: Tensor, steps: int) -> Tensor:
    """Return places (M, 3) at which images a fit b better: b ≈ gain · a + offset + changes of a by a small move."""
    size = a.shape[-1]
    axis = _axis(size)
    damping = 1e-3 * torch.tensor([0.0, 0.0, 1.0, 1.0, 1.0])
    for _ in range(steps):
        warped, inside = warp(a[:, None], place)
        warped, inside = warped[:, 0], inside[:, 0].clone()
        right, down = torch.zeros_like(warped), torch.zeros_like(warped)
        right[:, :, 1:-1] = (warped[:, :, 2:] - warped[:, :, :-2]) * size / 4  # a pixel is 2 / size wide
        down[:, 1:-1] = (warped[:, 2:] - warped[:, :-2]) * size / 4
        inside[:, 0] = inside[:, -1] = inside[:, :, 0] = inside[:, :, -1] = 0
        scale = torch.exp(place[:, 2, None, None])
        larger = right * axis[None, None, :] + down * axis[None, :, None]
        columns = torch.stack([warped, torch.ones_like(warped), right / scale, down / scale, larger], -1).flatten(1, 2)
        weight = inside.flatten(1)[..., None]
        square = (columns * weight).transpose(1, 2) @ columns
        square = square + torch.diag_embed(square.diagonal(dim1=1, dim2=2) * damping) + 1e-6 * torch.eye(5)
        found = torch.linalg.solve(square, (columns * weight).transpose(1, 2) @ b.flatten(1)[..., None])[..., 0]
        gain = torch.where(found[:, :1].abs() < 0.05, torch.full_like(found[:, :1], 0.05), found[:, :1])
        place = (place + (found[:, 2:] / gain).clamp(-_STEP, _STEP)).clamp(-FARTHEST, FARTHEST)
    return place


def _correlation(x: Tensor, y: Tensor, inside: Tensor) -> tuple[Tensor, Tensor]:
    """Return (M,) the correlation of images over the pixels that are inside, and the slope from x to y."""
    count = inside.sum(dim=(1, 2)).clamp(min=1)
    u, v = ((z - ((z * inside).sum(dim=(1, 2)) / count)[:, None, None]) * inside for z in (x, y))
    both, uu, vv = (u * v).sum(dim=(1, 2)), (u * u).sum(dim=(1, 2)), (v * v).sum(dim=(1, 2))
    return both / torch.sqrt(uu * vv + 1e-6), both / (uu + 1e-6)


def _by_windows(x: Tensor, y: Tensor, inside: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Return (M,) the mean correlation over windows, and the share of windows in which there is something to see."""

    def mean(images: Tensor) -> Tensor:
        return functional.avg_pool2d(images[:, None], size, 1)[:, 0]

    whole = (mean(inside) > 0.999).float()
    mx, my = mean(x), mean(y)
    vx, vy = (mean(x * x) - mx * mx).clamp(min=0), (mean(y * y) - my * my).clamp(min=0)
    least = torch.minimum(vx, vy)
    weight = whole * least / (least + NOISE**2)
    correlation = (mean(x * y) - mx * my) / torch.sqrt(vx * vy + 1e-6)
    total = weight.sum(dim=(1, 2))
    return (weight * correlation).sum(dim=(1, 2)) / total.clamp(min=1e-6), total / whole.sum(dim=(1, 2)).clamp(min=1)
