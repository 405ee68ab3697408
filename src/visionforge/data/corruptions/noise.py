"""Noise of sensors and of transmission, independent for every value of every channel.

At 28 pixels the strengths are about those of CIFAR-10-C, at 224 those of ImageNet-C, by a power of the resolution in
between: a network averages over more pixels of a larger image.
"""

import math
from functools import lru_cache
from typing import TYPE_CHECKING, ClassVar, Literal

from visionforge.config.schema.components import register
from visionforge.data.corruption import MOST_SEVERITIES, Corruption

if TYPE_CHECKING:
    from torch import Tensor

    from visionforge.data.draws import Draws

_TAIL = 8.0  # standard deviations of a Poisson distribution beyond which counts are cut off


class _Noise(Corruption):
    group: ClassVar[str] = "noise"
    grows: ClassVar[float] = 0.4


@register
class GaussianNoise(_Noise):
    """Normal noise, as of an amplifier."""

    position: ClassVar[int] = 1
    unit: ClassVar[str] = "standard deviation, white is 1"

    name: Literal["gaussian_noise"] = "gaussian_noise"
    severities: tuple[float, ...] = (0.04, 0.06, 0.08, 0.10, 0.13)

    def apply(self, images: "Tensor", strength: float, draws: "Draws") -> "Tensor":
        """Add the noise."""
        return images.add_(draws.normal(*images.shape[1:]), alpha=strength)


@register
class ShotNoise(_Noise):
    """Poisson noise: every value is a number of photons that were counted."""

    position: ClassVar[int] = 2
    grows: ClassVar[float] = -0.9
    unit: ClassVar[str] = "photons of a white pixel"

    name: Literal["shot_noise"] = "shot_noise"
    severities: tuple[float, ...] = (300.0, 150.0, 80.0, 50.0, 30.0)

    def apply(self, images: "Tensor", strength: float, draws: "Draws") -> "Tensor":
        """Draw the counts: how many values of the distribution function of a level lie below a uniform number."""
        import torch

        levels = (images * 255).round().long()
        table, steps = _counts(strength)
        table = table.to(images.device).flatten()
        uniform = draws.uniform(*images.shape[1:]).double()
        row = levels << steps
        found = torch.zeros_like(levels)
        for step in reversed(range(steps)):  # a binary search in the row of each pixel, bit by bit
            ahead = found + (1 << step)
            found = torch.where(table[row + ahead - 1] < uniform, ahead, found)
        return found.float() / strength


@lru_cache(maxsize=MOST_SEVERITIES)
def _counts(white: float) -> "tuple[Tensor, int]":
    """Return (256, 2^n) distribution functions of the counts of all levels, and n."""
    import torch

    steps = math.ceil(math.log2(white + _TAIL * white**0.5 + _TAIL))
    rates = torch.arange(256, dtype=torch.float64) * (white / 255)
    counts = torch.arange(1, (1 << steps) + 1, dtype=torch.float64)
    return torch.special.gammaincc(counts, rates[:, None]), steps  # P(count < each)


@register
class ImpulseNoise(_Noise):
    """Values that were lost: black or white, equally often."""

    position: ClassVar[int] = 3
    grows: ClassVar[float] = 0.5
    unit: ClassVar[str] = "share of the values"

    name: Literal["impulse_noise"] = "impulse_noise"
    severities: tuple[float, ...] = (0.01, 0.02, 0.035, 0.055, 0.08)

    def apply(self, images: "Tensor", strength: float, draws: "Draws") -> "Tensor":
        """Replace the values."""
        uniform = draws.uniform(*images.shape[1:])
        return images.masked_fill_(uniform < strength / 2, 0.0).masked_fill_(uniform > 1 - strength / 2, 1.0)


@register
class SpeckleNoise(_Noise):
    """Normal noise in proportion to the value, as of ultrasound and other coherent waves."""

    position: ClassVar[int] = 4
    unit: ClassVar[str] = "standard deviation, as a share of the value"

    name: Literal["speckle_noise"] = "speckle_noise"
    severities: tuple[float, ...] = (0.07, 0.10, 0.14, 0.19, 0.25)

    def apply(self, images: "Tensor", strength: float, draws: "Draws") -> "Tensor":
        """Multiply by the noise."""
        return images.mul_(draws.normal(*images.shape[1:]).mul_(strength).add_(1))
