"""MixUp (Zhang et al., 2018, arXiv:1710.09412) and CutMix (Yun et al., 2019, arXiv:1905.04899), on the device.

A draw says for every image with which one it is mixed, by which share, and where. Both mix the targets by the same
shares, so a loss over target distributions needs to know nothing of them. A mask, a target for every pixel, takes the
patch of CutMix as it is; under MixUp it becomes shares.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from visionforge.training.mixing.mixup import MixUp

MOST_LANES, LEAST_IN_LANE = 64, 8  # in which partners are drawn


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

    def to(self, device: torch.device) -> "MixDraw":
        """Return the same choices on another device, which is not waited for."""
        boxes = None if self.boxes is None else self.boxes.to(device, non_blocking=True)
        return MixDraw(self.lam.to(device, non_blocking=True), self.partner.to(device, non_blocking=True), boxes)


def draw_mix(
    count: int,
    settings: MixUp,
    resolution: int,
    seed: int | np.random.Generator,
    spatial_dims: int = 2,
    rank: int = 0,
    replicas: int = 1,
) -> MixDraw | None:
    """Draw shares, partners and patches for a batch; a function of the seed alone. None if nothing is mixed.

    Processes that train together share a draw: image i of rank r is image i·R + r of the batch of all R, and has the
    partner that it would have there. So that this one is an image of its own rank, partners are drawn within lanes of
    at least eight images, every 64th, 32nd, … of the batch of all, as many as divide it; they are a cycle each, so
    nothing but a single image is its own partner. Where the ranks are more than the lanes, each draws for itself.

    The patch of CutMix has the aspect ratio of the image and the area 1 - λ, or the volume; it is clipped at the
    border, and λ is then the share that is really left.

    Args:
        count: Images N.
        settings: Strengths.
        resolution: Height and width in pixels, or side of volumes in voxels.
        seed: Seed of this batch, or the generator that has it.
        spatial_dims: 2 for images, 3 for volumes.
        rank: Number of this process.
        replicas: Number R of processes, whose batches have N images each.
    """
    if settings.alpha == 0 and settings.cutmix_alpha == 0:
        return None
    if lanes_of(count * replicas) % replicas:
        rank, replicas = 0, 1
    rng, total = np.random.default_rng(seed), count * replicas
    drawn = _draw(total, settings, resolution, rng, spatial_dims)
    if replicas == 1:
        return drawn
    boxes = None if drawn.boxes is None else drawn.boxes[rank::replicas]
    return MixDraw(drawn.lam[rank::replicas], drawn.partner[rank::replicas] // replicas, boxes)


def lanes_of(total: int) -> int:
    """Return in how many lanes the partners of a batch are drawn: 1, 2, 4, … 64 of at least eight images each."""
    lanes = 1
    while lanes < MOST_LANES and total % (2 * lanes) == 0 and total // (2 * lanes) >= LEAST_IN_LANE:
        lanes *= 2
    return lanes


def _partners(total: int, rng: np.random.Generator) -> Tensor:
    """Return (total,) partners: of each lane a cycle through its images in a random order."""
    lanes = lanes_of(total)
    order = rng.random((lanes, total // lanes)).argsort(axis=1) * lanes + np.arange(lanes)[:, None]
    partner = np.empty(total, dtype=np.int64)
    partner[order] = np.roll(order, -1, axis=1)
    return torch.from_numpy(partner)


def _draw(count: int, settings: MixUp, resolution: int, rng: np.random.Generator, spatial_dims: int) -> MixDraw:
    """Draw for a whole batch; see `draw_mix`."""
    draws = count if settings.per_image else 1
    lam = rng.beta(settings.alpha, settings.alpha, draws) if settings.alpha > 0 else np.ones(draws)
    if settings.cutmix_alpha == 0:
        return MixDraw(_as_shares(lam, count), _partners(count, rng))
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
    return MixDraw(_as_shares(lam, count), _partners(count, rng), torch.from_numpy(boxes))


def _as_shares(lam: np.ndarray[tuple[int, ...], np.dtype[np.float64]], count: int) -> Tensor:
    return torch.from_numpy(np.broadcast_to(lam, (count,)).astype(np.float32))


def mix_images(images: Tensor, draw: MixDraw) -> Tensor:
    """Return mixed images (N, C, H, W) or volumes (N, C, D, H, W).

    They are λ·image + (1-λ)·partner, or the image with a patch of its partner.
    """
    partner = images[draw.partner.to(images.device, non_blocking=True)]
    lam = draw.lam.to(images, non_blocking=True).view(-1, *(1,) * (images.ndim - 1))
    if draw.boxes is None:
        return torch.lerp(partner, images, lam)
    boxes = draw.boxes.to(images.device, non_blocking=True)
    whole = _is_empty(boxes).view(lam.shape)
    inside = _inside(boxes, images.shape[2:])[:, None]
    return torch.where(whole, torch.lerp(partner, images, lam), torch.where(inside, partner, images))


def _is_empty(boxes: Tensor) -> Tensor:
    """Return (N,) bool, which boxes (N, 2·S) hold nothing, so that the whole image is mixed."""
    return boxes[:, boxes.shape[1] // 2] <= boxes[:, 0]


def _inside(boxes: Tensor, size: Sequence[int]) -> Tensor:
    """Return (N, H, W) or (N, D, H, W) bool, which pixels lie in boxes (N, 2·S)."""
    dims = len(size)
    edges = boxes.T.reshape(2 * dims, -1, *(1,) * dims)
    inside = torch.ones((), dtype=torch.bool, device=boxes.device)
    for axis, (low, high) in enumerate(zip(edges[:dims], edges[dims:], strict=True)):
        place = torch.arange(size[axis], device=boxes.device).view(-1, *(1,) * (dims - 1 - axis))
        inside = inside & (place >= low) & (place < high)
    return inside


def mix_masks(masks: Tensor, draw: MixDraw) -> Tensor:
    """Return masks with the patch of their partner where CutMix gave one to the image; every value is exact.

    Args:
        masks: (N, H, W) of any type, or those of volumes (N, D, H, W).
        draw: What the images were mixed by.

    Raises:
        ValueError: If an image of the draw is mixed by MixUp: then each pixel has shares of two classes, which only
            `mix_soft_masks` can tell.
    """
    if draw.boxes is None or bool((_is_empty(draw.boxes) & (draw.lam < 1)).any()):
        raise ValueError("masks: MixUp blends classes, which a mask cannot hold; use mix_soft_masks, or CutMix alone")
    inside = _inside(draw.boxes.to(masks.device, non_blocking=True), masks.shape[1:])
    return torch.where(inside, masks[draw.partner.to(masks.device, non_blocking=True)], masks)


def mix_soft_masks(masks: Tensor, draw: MixDraw, classes: int) -> Tensor:
    """Return shares of the classes for every pixel, mixed as the images are; for MixUp and CutMix alike.

    MixUp makes λ·one-hot + (1-λ)·one-hot of the partner, what `mix_targets` makes of whole images; CutMix pastes.

    Args:
        masks: (N, H, W) integers, or those of volumes (N, D, H, W). Any value but 0 to K - 1, such as one that a loss
            ignores, is of no class: such a pixel gives no share, and the shares of its mixture sum to less than 1.
        draw: What the images were mixed by.
        classes: Number of classes K.

    Returns:
        (N, K, H, W) or (N, K, D, H, W) float32 from 0 to 1.
    """
    each = torch.arange(classes, device=masks.device).view(-1, *(1,) * (masks.ndim - 1))
    return mix_images((masks[:, None] == each).float(), draw)


def mix_targets(targets: Tensor, draw: MixDraw) -> Tensor:
    """Return mixed targets (N, K): λ·target + (1-λ)·target of the partner; those of pixels as `mix_soft_masks` does."""
    if targets.ndim > 2:
        return mix_images(targets, draw)
    partner = targets[draw.partner.to(targets.device, non_blocking=True)]
    return torch.lerp(partner, targets, draw.lam.to(targets, non_blocking=True)[:, None])
