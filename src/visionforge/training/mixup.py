"""MixUp: convex combinations of pairs of images and of their targets (Zhang et al., 2018, arXiv:1710.09412)."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class MixUpDraw:
    """The random choices for one batch.

    Attributes:
        lam: Weight λ of the image itself, 0 to 1; its partner weighs 1 - λ.
        partner: (N,) int64, position of each image's partner in the batch.
    """

    lam: float
    partner: Tensor


def draw_mixup(count: int, alpha: float, seed: int) -> MixUpDraw:
    """Draw λ ~ Beta(alpha, alpha) and a random pairing for a batch of `count` images; a function of the seed alone."""
    rng = np.random.default_rng(seed)
    return MixUpDraw(float(rng.beta(alpha, alpha)), torch.from_numpy(rng.permutation(count)))


def mix(values: Tensor, draw: MixUpDraw) -> Tensor:
    """Return λ·values + (1-λ)·values[partner], for images (N, C, H, W) or targets (N, K)."""
    partner = draw.partner.to(values.device, non_blocking=True)
    return torch.lerp(values[partner], values, draw.lam)
