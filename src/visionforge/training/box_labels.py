"""Boxes of a training batch, moved and mixed as its images are.

All are padded rows [class, x1, y1, x2, y2] in pixels (N, M, 5); rows of the class -1 have no box.
"""

import torch
from torch import Tensor

from visionforge.data.augment import AugmentationDraw
from visionforge.data.move_labels import move_boxes
from visionforge.training.mixup import MixDraw

LEAST_SHARE = 0.3  # of a blended image that must be one's own, or of a box that must be seen, for a box to be learnt


def without(rows: Tensor, kept: Tensor) -> Tensor:
    """Return rows (…, 5), of which those that are not kept (…) have no box."""
    empty = rows.new_tensor([-1.0, 0.0, 0.0, 0.0, 0.0])
    return torch.where(kept[..., None], rows, empty)


def moved_rows(labels: Tensor, draw: AugmentationDraw, size: tuple[int, int]) -> Tensor:
    """Return the boxes as the draw moves their images; see `move_boxes`.

    Args:
        labels: (N, M, 5).
        draw: Random choices for the N images.
        size: Height and width of the images.
    """
    images, rows = (labels[..., 0] >= 0).nonzero(as_tuple=True)
    boxes, kept = move_boxes(labels[images, rows, 1:], images, draw, size)
    out = labels.clone()
    out[images, rows] = without(torch.cat([labels[images, rows, :1], boxes], dim=1), kept)
    return out


def mixed_rows(labels: Tensor, draw: MixDraw) -> Tensor:
    """Return the boxes that can be seen in mixed images, (N, 2M, 5): an image's own and its partner's.

    Of a blended image (MixUp) those of each are kept whose image has a share of at least 0.3. Where a patch of the
    partner covers the image (CutMix), its own boxes are kept as they are if at least 0.3 of their area is left, and
    those of the partner, clipped to the patch, if at least 0.3 of their area lies in it. An image that is its own
    partner stays as it is, and so do its boxes.

    Args:
        labels: (N, M, 5).
        draw: How the images were mixed.
    """
    device = labels.device
    lam = draw.lam.to(device)[:, None]
    theirs = labels[draw.partner.to(device)]
    keep_own, keep_theirs = (lam >= LEAST_SHARE).expand(labels.shape[:2]), (1 - lam >= LEAST_SHARE)
    clipped = theirs
    if draw.boxes is not None:
        top, left, bottom, right = draw.boxes.to(device).float().T[:, :, None]
        cut = right > left
        own_inside = _within(labels, left, top, right, bottom)
        own_left = 1 - _area(own_inside) / _area(labels[..., 1:]).clamp(min=1e-9)
        inside = _within(theirs, left, top, right, bottom)
        seen = _area(inside) / _area(theirs[..., 1:]).clamp(min=1e-9)
        keep_own = torch.where(cut, own_left >= LEAST_SHARE, keep_own)
        keep_theirs = torch.where(cut, seen >= LEAST_SHARE, keep_theirs)
        clipped = torch.where(cut[..., None], torch.cat([theirs[..., :1], inside], dim=2), theirs)
    alone = (draw.partner.to(device) == torch.arange(len(labels), device=device))[:, None]  # mixed with itself
    keep_own, keep_theirs = keep_own | alone, keep_theirs & ~alone
    kept = torch.cat([keep_own.expand(labels.shape[:2]), keep_theirs.expand(labels.shape[:2])], dim=1)
    rows = torch.cat([labels, clipped], dim=1)
    return without(rows, kept & (rows[..., 0] >= 0))


def _within(rows: Tensor, left: Tensor, top: Tensor, right: Tensor, bottom: Tensor) -> Tensor:
    """Return (N, M, 4) the parts of boxes that lie in a patch (N, 1) of each image; empty ones have the area 0."""
    low = torch.stack([torch.maximum(rows[..., 1], left), torch.maximum(rows[..., 2], top)], dim=2)
    high = torch.stack([torch.minimum(rows[..., 3], right), torch.minimum(rows[..., 4], bottom)], dim=2)
    return torch.cat([low, torch.maximum(low, high)], dim=2)


def _area(boxes: Tensor) -> Tensor:
    return (boxes[..., 2:] - boxes[..., :2]).prod(dim=-1)
