"""What several test-time views of an image say of its boxes together."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision.ops import batched_nms, box_iou

from visionforge.training.tta import INVERSES

SAME_IOU = 0.55  # from which on two boxes of a class are one object (Solovyev et al., 2021)


def undo_boxes(name: str, boxes: Tensor, side: int) -> Tensor:
    """Return boxes (…, 4) of a view as boxes of the image; exact.

    Args:
        name: The view, a flip or a quarter turn.
        boxes: x1, y1, x2, y2 in pixels of the view.
        side: Height and width of the images.

    Raises:
        ValueError: If the view has no exact inverse.
    """
    if name not in INVERSES or name == "dflip":
        raise ValueError(f"view: {name!r} has no exact inverse; allowed: {', '.join(INVERSES)}")
    x1, y1, x2, y2 = boxes.unbind(dim=-1)
    corners = {
        "identity": (x1, y1, x2, y2),
        "hflip": (side - x2, y1, side - x1, y2),
        "vflip": (x1, side - y2, x2, side - y1),
        "rotate 90": (side - y2, x1, side - y1, x2),
        "rotate 180": (side - x2, side - y2, side - x1, side - y1),
        "rotate 270": (y1, side - x2, y2, side - x1),
    }
    return torch.stack(corners[name], dim=-1)


def merge_views(names: Sequence[str], each: Tensor, weight: float | None, side: int) -> Tensor:
    """Return the boxes on which views agree: the mean of their scores and of their places.

    After Solovyev et al. (2021, arXiv:1910.13302): the boxes of all views are brought back to the image, and those of a
    class that overlap with an IoU of at least 0.55 are one object, of which the box with the highest score decides
    which ones. Its score is the mean over the views of the highest score that each gives it, 0 where a view does not
    have it; its corners are the means of theirs, weighted by the scores.

    Args:
        names: The views; the first is the image itself.
        each: (V, N, D, 6) rows [class, score, x1, y1, x2, y2], class -1 in rows without a box.
        weight: Weight of the image itself; None gives every view the same.
        side: Height and width of the images in pixels.

    Returns:
        (N, D, 6), by falling score.
    """
    views, images, rows = each.shape[:3]
    corners = torch.stack([undo_boxes(name, view[..., 2:], side) for name, view in zip(names, each, strict=True)])
    rest = 0.0 if views < 2 else (1 - (weight or 0.0)) / (views - 1)
    shares = each.new_full((views,), 1 / views if weight is None else rest)
    if weight is not None:
        shares[0] = weight
    number = torch.arange(views, device=each.device).repeat_interleave(rows)
    with torch.autocast(each.device.type, enabled=False):  # which would round places to 8 or 11 bits
        found = [
            _merged(each[:, image].flatten(0, 1), corners[:, image].flatten(0, 1), number, shares, rows)
            for image in range(images)
        ]
    return torch.stack(found)


def _merged(given: Tensor, corners: Tensor, number: Tensor, shares: Tensor, rows: int) -> Tensor:
    """Return (rows, 6) the boxes of an image.

    Args:
        given: (R, 6) of all views.
        corners: (R, 4) of the image.
        number: (R,) the view of each.
        shares: (V,) weight of each view.
        rows: Rows D.
    """
    there = given[:, 0] >= 0
    kinds, scores, corners, number = given[there, 0], given[there, 1], corners[there], number[there]
    out = given.new_zeros(rows, 6)
    out[:, 0] = -1
    if not len(kinds):
        return out
    first = batched_nms(corners, scores, kinds.long(), SAME_IOU)  # one for each object
    overlap = box_iou(corners, corners[first]) * (kinds[:, None] == kinds[first])
    overlap[first, torch.arange(len(first), device=first.device)] = 2.0  # its own, also where another is equal
    highest, owner = overlap.max(dim=1)
    joined = highest >= SAME_IOU
    owner, scores, corners, number = owner[joined], scores[joined], corners[joined], number[joined]
    best = given.new_zeros(len(first) * len(shares))
    best = best.scatter_reduce(0, owner * len(shares) + number, scores, "amax")
    mean = best.view(len(first), len(shares)) @ shares
    one_hot = (owner[None] == torch.arange(len(first), device=owner.device)[:, None]).to(scores) * scores
    places = one_hot @ corners / one_hot.sum(dim=1, keepdim=True)
    order = mean.argsort(descending=True, stable=True)
    order = order[(places[order, 2:] > places[order, :2]).all(dim=1)][:rows]
    out[: len(order)] = torch.cat([kinds[first][:, None], mean[:, None], places], dim=1)[order]
    return out
