"""MixUp (Zhang et al., 2018, arXiv:1710.09412) and CutMix (Yun et al., 2019, arXiv:1905.04899), on the device.

A draw says for every image with which one it is mixed, by which share, and where. Both mix the targets by the same
shares, so a loss over target distributions needs to know nothing of them.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from visionforge.training.mixing.mixup import MixUp


@dataclass(frozen=True)
class MixDraw:
    """The random choices for one batch.

    Attributes:
        lam: (N,) float32, share λ of the image itself in its target, 0 to 1; the partner's is 1 - λ.
        partner: (N,) int64, position of each image's partner in the batch.
        boxes: (N, 4) int64 top, left, bottom, right of the partner's patch in pixels, or (N, 6) front, top, left, back,
            bottom, right in voxels; None without CutMix. An empty box mixes the whole image by λ.
    """

    lam: Tensor
    partner: Tensor
    boxes: Tensor | None = None


def draw_mix(
    count: int, settings: MixUp, resolution: int, seed: int | np.random.Generator, spatial_dims: int = 2
) -> MixDraw | None:
    """Draw shares, partners and patches for a batch; a function of the seed alone. None if nothing is mixed.

    The patch of CutMix has the aspect ratio of the image and the area 1 - λ, or the volume; it is clipped at the
    border, and λ is then the share that is really left.

    Args:
        count: Images N.
        settings: Strengths.
        resolution: Height and width in pixels, or side of volumes in voxels.
        seed: Seed of this batch, or the generator that has it.
        spatial_dims: 2 for images, 3 for volumes.
    """
    if settings.alpha == 0 and settings.cutmix_alpha == 0:
        return None
    rng = np.random.default_rng(seed)
    draws = count if settings.per_image else 1
    lam = rng.beta(settings.alpha, settings.alpha, draws) if settings.alpha > 0 else np.ones(draws)
    partner = torch.from_numpy(rng.permutation(count))
    if settings.cutmix_alpha == 0:
        return MixDraw(_as_shares(lam, count), partner)
    prob = settings.cutmix_prob if settings.alpha > 0 else 1.0
    cut = rng.random(draws) < prob
    kept = rng.beta(settings.cutmix_alpha, settings.cutmix_alpha, draws)
    side = (np.sqrt(1 - kept) if spatial_dims == 2 else np.cbrt(1 - kept)) * resolution
    centre = rng.uniform(0, resolution, (draws, spatial_dims))
    low = np.clip(np.rint(centre - side[:, None] / 2), 0, resolution).astype(np.int64)
    high = np.clip(np.rint(centre + side[:, None] / 2), 0, resolution).astype(np.int64)
    boxes = np.where(cut[:, None], np.concatenate([low, high], axis=1), 0)
    content = np.prod(boxes[:, spatial_dims:] - boxes[:, :spatial_dims], axis=1)
    lam = np.where(cut, 1 - content / resolution**spatial_dims, lam)
    boxes = np.broadcast_to(boxes, (count, 2 * spatial_dims)).copy()
    return MixDraw(_as_shares(lam, count), partner, torch.from_numpy(boxes))


def _as_shares(lam: np.ndarray[tuple[int, ...], np.dtype[np.float64]], count: int) -> Tensor:
    return torch.from_numpy(np.broadcast_to(lam, (count,)).astype(np.float32))


def mix_images(images: Tensor, draw: MixDraw) -> Tensor:
    """Return mixed images (N, C, H, W) or volumes (N, C, D, H, W).

    They are λ·image + (1-λ)·partner, or the image with a patch of its partner.
    """
    partner = images[draw.partner.to(images.device, non_blocking=True)]
    dims = images.ndim - 2
    ones = (1,) * (dims + 1)
    lam = draw.lam.to(images, non_blocking=True).view(-1, *ones)
    if draw.boxes is None:
        return torch.lerp(partner, images, lam)
    edges = draw.boxes.to(images.device, non_blocking=True).T.reshape(2 * dims, -1, *ones)
    inside = torch.ones((), dtype=torch.bool, device=images.device)
    for axis, (low, high) in enumerate(zip(edges[:dims], edges[dims:], strict=True)):
        place = torch.arange(images.shape[2 + axis], device=images.device).view(-1, *(1,) * (dims - 1 - axis))
        inside = inside & (place >= low) & (place < high)
    whole = edges[dims] <= edges[0]
    return torch.where(whole, torch.lerp(partner, images, lam), torch.where(inside, partner, images))


def mix_targets(targets: Tensor, draw: MixDraw) -> Tensor:
    """Return mixed targets (N, K): λ·target + (1-λ)·target of the partner."""
    partner = targets[draw.partner.to(targets.device, non_blocking=True)]
    return torch.lerp(partner, targets, draw.lam.to(targets, non_blocking=True)[:, None])
