"""Random numbers as a function of a key and a position, drawn for a whole batch at once on any device.

The n-th number of an image is the n-th output of SplitMix64 (Steele, Lea and Flood, 2014) that begins at the image's
key. No state passes from one image to the next, so a batch may be cut anywhere, and every device gets the same numbers
(what is computed of them in float32 may differ in its last digit).
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

_STEP = 0x9E3779B97F4A7C15 - (1 << 64)  # as a signed number, which is how torch keeps 64 bits
_FIRST, _SECOND = 0xBF58476D1CE4E5B9 - (1 << 64), 0x94D049BB133111EB - (1 << 64)
_BITS = 24  # of a float32's mantissa, so that every number in between is exact


def _shifted(bits: Tensor, count: int) -> Tensor:
    """Return 64 bits moved to the right, with zeros from the left; torch repeats the sign."""
    return (bits >> count) & ((1 << (64 - count)) - 1)


def splitmix64(keys: Tensor, numbers: Tensor) -> Tensor:
    """Return outputs of SplitMix64, (B, M) int64.

    Args:
        keys: (B,) int64, where each row begins.
        numbers: (M,) int64, which outputs, counted from 0.
    """
    bits = keys[:, None] + (numbers + 1) * _STEP  # wraps around, as it is meant to
    bits = (bits ^ _shifted(bits, 30)) * _FIRST
    bits = (bits ^ _shifted(bits, 27)) * _SECOND
    return bits ^ _shifted(bits, 31)


class Draws:
    """The random numbers of a batch of images, each row from a key of its own; every call gives new ones.

    Args:
        keys: A number below 2^63 for each image, or (B,) int64 on the device where the numbers are then made.
        device: Where the numbers are made of keys that are no tensor.

    Attributes:
        keys: (B,) int64.
    """

    def __init__(self, keys: Sequence[int] | Tensor, device: torch.device | None = None) -> None:
        self.keys = keys if isinstance(keys, Tensor) else torch.tensor(keys, dtype=torch.int64, device=device)
        self._drawn = 0

    @classmethod
    def at(cls, seed: int, positions: Tensor) -> "Draws":
        """Return those of places in a stream, on their device; the keys are outputs of SplitMix64.

        Args:
            seed: A number below 2^63, where that stream begins.
            positions: (B,) int64, from 0.
        """
        return cls(splitmix64(positions * _STEP + seed, positions.new_zeros(1))[:, 0])

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, part: slice) -> "Draws":
        """Return those of some of the images, from where these are."""
        some = Draws(self.keys[part])
        some._drawn = self._drawn
        return some

    @property
    def device(self) -> torch.device:
        """Return where the numbers are made."""
        return self.keys.device

    def skip(self, count: int) -> None:
        """Leave out so many numbers of every row, so that what follows does not depend on whether they are needed."""
        self._drawn += count

    def _bits(self, shape: Sequence[int]) -> Tensor:
        count = math.prod(shape)
        bits = splitmix64(self.keys, torch.arange(self._drawn, self._drawn + count, device=self.device))
        self._drawn += count
        return bits.view(-1, *shape)

    def uniform(self, *shape: int) -> Tensor:
        """Return (B, *shape) float32, uniform from 0 to 1, both left out."""
        return unit(self._bits(shape))

    def below(self, limit: int, *shape: int) -> Tensor:
        """Return (B, *shape) int64 from 0 to limit - 1, at most 2^16, equally often but for a share of 2^-8."""
        return (self.uniform(*shape) * limit).long()

    def signs(self, *shape: int) -> Tensor:
        """Return (B, *shape) float32, -1 or 1, equally often."""
        return torch.where(self._bits(shape) < 0, -1.0, 1.0)

    def normal(self, *shape: int) -> Tensor:
        """Return (B, *shape) float32 of the standard normal distribution (Box and Muller, 1958), within ±6."""
        bits = self._bits(shape)
        radius = torch.sqrt(-2 * torch.log(unit(bits)))
        return radius * torch.cos(2 * math.pi * unit(bits, lowest=8))


def unit(bits: Tensor, lowest: int = 64 - _BITS) -> Tensor:
    """Return the middles of 2^24 equal parts of 0 to 1, by 24 of 64 bits.

    The last half would be rounded to 1 in float32; it is kept below.

    Args:
        bits: int64.
        lowest: Which bit is the lowest of those that are taken; the highest ones as a rule.
    """
    cut = (_shifted(bits, lowest) & ((1 << _BITS) - 1)).float()
    return ((cut + 0.5) / (1 << _BITS)).clamp_(max=1 - 2.0**-_BITS)
