"""Which of the boxes that a detector gives are kept, for a whole batch at once and in tensors of fixed shapes.

Every image of a batch has the same number of candidates; what is none is marked, not cut out. So a detector can be
written as a graph with a free batch size.
"""

import torch
from torch import Tensor
from torchvision.ops import nms

NONE = -1.0  # class of a row that only fills the array up
COLUMNS = 6  # class, score, x1, y1, x2, y2
_TINY = 1e-12


@torch.library.custom_op("visionforge::nms_mask", mutates_args=())
def nms_mask(boxes: Tensor, scores: Tensor, kinds: Tensor, candidates: Tensor, iou: float) -> Tensor:
    """Return which candidates non-maximum suppression leaves in each image, class by class; on (G, P) for G images.

    Args:
        boxes: (G, P, 4) float x1, y1, x2, y2.
        scores: (G, P) float.
        kinds: (G, P) int64 classes, from 0.
        candidates: (G, P) bool; others are neither kept nor do they remove any.
        iou: Above which the box with the lower score goes.
    """
    kept = candidates.new_zeros(candidates.shape)
    for image in candidates.any(dim=1).nonzero()[:, 0].tolist():
        for kind in torch.unique(kinds[image, candidates[image]]).tolist():
            (there,) = torch.nonzero(candidates[image] & (kinds[image] == kind), as_tuple=True)
            kept[image, there[nms(boxes[image, there], scores[image, there], iou)]] = True
    return kept


@nms_mask.register_fake
def _(boxes: Tensor, scores: Tensor, kinds: Tensor, candidates: Tensor, iou: float) -> Tensor:
    return candidates.new_empty(candidates.shape)


def clipped(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Return boxes (…, 4) within images of a height and a width."""
    height, width = size
    x1, y1, x2, y2 = boxes.unbind(dim=-1)
    return torch.stack([x1.clamp(0, width), y1.clamp(0, height), x2.clamp(0, width), y2.clamp(0, height)], dim=-1)


def wide(boxes: Tensor, least: float = 0.0) -> Tensor:
    """Return (…) which boxes (…, 4) have sides longer than a number of pixels."""
    return (boxes[..., 2:] - boxes[..., :2] > least).all(dim=-1)


def taken(values: Tensor, index: Tensor) -> Tensor:
    """Return (N, k, …) the values (N, P, …) at places (N, k) of each image."""
    if values.ndim == 2:
        return values.gather(1, index)
    return values.gather(1, index[..., None].expand(-1, -1, values.shape[2]))


def highest(scores: Tensor, wanted: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return the places (N, k) of the highest scores (N, P) by falling score, and which of them are wanted.

    Of equal scores the first comes first, so an image has the same in every batch and on every device.

    Args:
        scores: (N, P), none below 0.
        wanted: (N, P) bool.
        count: Most places; k is the smaller of it and P.
    """
    most, places = torch.where(wanted, scores, -1.0).sort(dim=1, descending=True, stable=True)
    return places[:, :count], most[:, :count] >= 0


def ious(boxes: Tensor) -> Tensor:
    """Return (N, P, P) intersection over union of all pairs of boxes (N, P, 4) of an image; 0 of none.

    Args:
        boxes: x1, y1, x2, y2.
    """
    low = torch.maximum(boxes[:, :, None, :2], boxes[:, None, :, :2])
    high = torch.minimum(boxes[:, :, None, 2:], boxes[:, None, :, 2:])
    common = (high - low).clamp(min=0).prod(dim=-1)
    area = (boxes[..., 2:] - boxes[..., :2]).clamp(min=0).prod(dim=-1)
    union = area[:, :, None] + area[:, None] - common
    return torch.where(union > 0, common / union.clamp(min=_TINY), 0.0)


def rows_of(boxes: Tensor, scores: Tensor, kinds: Tensor, kept: Tensor, rows: int) -> Tensor:
    """Return (N, rows, 6) the kept boxes of each image by falling score; rows without a box have the class -1.

    Args:
        boxes: (N, P, 4).
        scores: (N, P), none below 0.
        kinds: (N, P) classes.
        kept: (N, P) bool.
        rows: Rows of an image.
    """
    places, there = highest(scores, kept, rows)
    columns = [taken(kinds, places).float()[..., None], taken(scores, places)[..., None], taken(boxes, places)]
    found = torch.cat(columns, dim=2)
    nothing = torch.tensor([NONE, *(0.0,) * (COLUMNS - 1)], device=found.device)
    found = torch.where(there[..., None], found, nothing)
    missing = rows - found.shape[1]
    return found if missing <= 0 else torch.cat([found, nothing.expand(found.shape[0], missing, -1)], dim=1)
