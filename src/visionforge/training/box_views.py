"""What several test-time views of an image say of its boxes together."""

from collections.abc import Sequence

import torch
from torch import Tensor

from visionforge.models.box_selection import clipped, ious, nms_mask, rows_of, wide
from visionforge.training.tta import INVERSES

SAME_IOU = 0.55  # from which on two boxes of a class are one object (Solovyev et al., 2021)
_MOST_PAIRS = 1 << 23  # of boxes that are compared at once; 32 MB each time they are kept
_TINY = 1e-12


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
    views = each.shape[0]
    corners = torch.stack([undo_boxes(name, view[..., 2:], side) for name, view in zip(names, each, strict=True)])
    rest = 0.0 if views < 2 else (1 - (weight or 0.0)) / (views - 1)
    shares = each.new_full((views,), 1 / views if weight is None else rest)
    if weight is not None:
        shares[0] = weight
    given = torch.cat([each[..., :2], corners], dim=-1).transpose(0, 1)  # (N, V, D, 6)
    with torch.autocast(each.device.type, enabled=False):  # which would round places to 8 or 11 bits
        if torch.compiler.is_compiling():  # a graph has no loop over the images of a batch
            return _merged(given, shares, side, each.shape[2])
        most = max(1, int((given[..., 0] >= 0).sum(dim=2).max()))  # rows without a box are the last
        at_once = max(1, _MOST_PAIRS // (views * most) ** 2)
        return torch.cat(
            [_merged(part[:, :, :most], shares, side, each.shape[2]) for part in torch.split(given, at_once)]
        )


def _merged(given: Tensor, shares: Tensor, side: int, count: int) -> Tensor:
    """Return (N, count, 6) the boxes of images.

    Args:
        given: (N, V, D, 6) of all views, at their places in the image.
        shares: (V,) weight of each view.
        side: Height and width of the images in pixels.
        count: Rows of an image.
    """
    _, views, rows, _ = given.shape
    kinds, scores, corners = given[..., 0].flatten(1), given[..., 1].flatten(1), given[..., 2:].flatten(1, 2)
    there = kinds >= 0
    first = nms_mask(corners, scores, kinds.long(), there, SAME_IOU)  # one for each object
    overlap = ious(corners) * ((kinds[:, :, None] == kinds[:, None]) & first[:, None])
    own = torch.eye(views * rows, dtype=torch.bool, device=given.device) & first[:, None]
    highest, owner = torch.where(own, 2.0, overlap).max(dim=2)  # its own object, also where another is equal
    owner = torch.where(there & (highest >= SAME_IOU), owner, -1)
    objects = torch.arange(views * rows, device=given.device)
    shown = torch.where(owner[:, None] == objects[:, None], scores[:, None], 0.0)  # (N, object, box)
    mean = shown.view(-1, views * rows, views, rows).amax(dim=3) @ shares
    places = clipped(shown @ corners / shown.sum(dim=2, keepdim=True).clamp(min=_TINY), (side, side))
    return rows_of(places, mean, kinds, first & wide(places), count)
