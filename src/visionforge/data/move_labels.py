"""Masks and boxes, moved as the fused augmentation pass moves their images: by the same draw, on the same grid.

A mask takes the value of the nearest pixel at each place where its image is interpolated, so it stays a map of classes.
A box becomes the smallest upright one around its four moved corners. Colour changes and further operations, which come
after the pass, move nothing.

Coordinates of boxes are pixels, with (0, 0) at the upper left corner of the image and (width, height) at the lower
right, as in torchvision: the pixel in row r and column c reaches from (c, r) to (c + 1, r + 1).
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from visionforge.data.augment import CHUNK_PIXELS, AugmentationDraw, axis_terms

LEAST_AREA = (
    0.1  # a tenth of an object is seldom enough to tell what it is, and a box that ends there trains the border
)
MASK_TYPES = (torch.bool, torch.uint8, torch.int16, torch.int32, torch.int64)
EXACT_IN_FLOAT32 = 1 << 24  # whole numbers up to here are; they are twice as fast as int64
BOX_TYPES = (torch.float32, torch.float64)  # float16 has whole pixels only from 1024 on


def move_masks(masks: Tensor, draw: AugmentationDraw, fill: int = 0) -> Tensor:
    """Return masks as the draw moves their images: of the nearest pixel, from the same sampling matrix.

    Values are copied, never computed with, so all of them are exact. Where a flip is all there is, so is the place.

    Args:
        masks: (N, H, W) of any integer type or bool.
        draw: Random choices for the N images, on the device of the masks.
        fill: Value of pixels from outside of the image, where the image itself is black; often the value that a loss
            ignores.

    Returns:
        (N, H, W) of the same type.

    Raises:
        ValueError: If shape or type of the masks do not fit, or `fill` is none of the type's values.
    """
    _check_masks(masks, len(draw.flip), fill)
    if draw.theta is None:
        moved = torch.where(draw.flip[:, None, None], masks.flip(-1), masks)
        return moved if draw.vflip is None else torch.where(draw.vflip[:, None, None], moved.flip(-2), moved)
    count, height, width = masks.shape
    size = max(1, CHUNK_PIXELS // max(1, height * width)) if masks.device.type == "cpu" else max(1, count)
    moved = torch.empty_like(masks, memory_format=torch.contiguous_format)
    for start in range(0, count, size):
        part = slice(start, start + size)
        moved[part] = _nearest(masks[part], draw.theta[part], fill)
    return moved


def _nearest(masks: Tensor, theta: Tensor, fill: int) -> Tensor:
    """Return (N, H, W), the pixels that ``grid_sample(…, mode="nearest", align_corners=False)`` takes.

    A border of `fill` around each mask stands for all that is outside. Half a pixel is rounded to the even one, as
    there.
    """
    count, height, width = masks.shape
    padded = masks.new_full((count, height + 2, width + 2), fill)
    padded[:, 1:-1, 1:-1] = masks
    rows, columns = axis_terms(theta, height, width)
    column, row = (_nearest_pixel(columns[:, axis], rows[:, axis], side) for axis, side in enumerate((width, height)))
    kind = torch.float32 if padded[0].numel() <= EXACT_IN_FLOAT32 else torch.int64
    place = row.to(kind).mul_(width + 2).add_(column.to(kind)).add_(width + 3)
    return padded.flatten(1).gather(1, place.long().flatten(1)).view(masks.shape)


def _nearest_pixel(column: Tensor, row: Tensor, size: int) -> Tensor:
    """Return (N, H, W) float32 positions along an axis of the mask; -1 and its size are outside."""
    place = column[:, :, None] + row[:, None, :]
    return place.add_(1).mul_(size / 2).sub_(0.5).round_().clamp_(-1, size)


def move_boxes(
    boxes: Tensor, image_index: Tensor, draw: AugmentationDraw, size: tuple[int, int], least_area: float = LEAST_AREA
) -> tuple[Tensor, Tensor]:
    """Return boxes as the draw moves their images, clipped to the image, and which of them are kept.

    The box of a turned object is larger than the object: it is the smallest upright one around the moved corners. On a
    GPU the check of the values waits for the device once; with the choices on the CPU, boxes can be moved there before
    they are sent.

    Args:
        boxes: (M, 4) float32 or float64, x1, y1, x2, y2 in pixels, of all images one after the other or in any order.
        image_index: (M,) int64, position of each box's image in the batch.
        draw: Random choices for the N images, on the device of the boxes.
        size: Height and width of the images in pixels.
        least_area: Share of its own moved area, 0 to 1, that must lie within the image for a box to be kept.

    Returns:
        (M, 4) of the same type, and (M,) bool: False for boxes of which less is left, and for those without an area.
        What the first has in their rows has no meaning.

    Raises:
        ValueError: If shapes or types do not fit, or a box is not finite, has a negative width or height, or lies
            outside of its image. One that reaches beyond the border is clipped.
    """
    _check_boxes(boxes, image_index, len(draw.flip), size)
    if not 0 <= least_area <= 1:
        raise ValueError(f"least_area: {least_area} is not allowed; allowed: 0 to 1")
    low, high = boxes[:, :2], boxes[:, 2:]
    solid = (high > low).all(dim=1)  # before it is moved: the hull of a turned line has an area
    extent = boxes.new_tensor([size[1], size[0]])
    if draw.theta is None:
        vflip = torch.zeros_like(draw.flip) if draw.vflip is None else draw.vflip
        mirrored = torch.stack([draw.flip, vflip], dim=1)[image_index]
        low, high = torch.where(mirrored, extent - high, low), torch.where(mirrored, extent - low, high)
    else:
        low, high = _moved_hulls(low, high, draw.theta[image_index].to(boxes.dtype), extent)
    area = (high - low).prod(dim=1)
    low, high = (torch.minimum(edge.clamp(min=0), extent) for edge in (low, high))
    left = (high - low).prod(dim=1)
    return torch.cat([low, high], dim=1), solid & (left > 0) & (left >= least_area * area)


def move_box_lists(
    boxes: Sequence[Tensor], draw: AugmentationDraw, size: tuple[int, int], least_area: float = LEAST_AREA
) -> tuple[list[Tensor], list[Tensor]]:
    """Return the boxes that are kept of each image, and which ones they are; all are moved together by `move_boxes`.

    Args:
        boxes: For each image (M, 4), with M of its own, also 0; types and values as there, all on one device.
        draw: Random choices for the N images, on any device.
        size: As there.
        least_area: As there.

    Returns:
        For each image (K, 4), and (M,) bool with K true values.

    Raises:
        ValueError: As there, and if there are not boxes for each image, which may be (0, 4).
    """
    count = len(draw.flip)
    if len(boxes) != count:
        raise ValueError(f"boxes: of {len(boxes)} images; allowed: of {count}, with (0, 4) for one without")
    for position, each in enumerate(boxes):
        if each.ndim != 2 or each.shape[1] != 4:
            raise ValueError(f"boxes: {tuple(each.shape)} of image {position}; allowed: (M, 4), also (0, 4)")
    if count == 0:
        return [], []
    lengths = [len(each) for each in boxes]
    flat = torch.cat(list(boxes))
    image_index = torch.repeat_interleave(torch.arange(count), torch.tensor(lengths)).to(flat.device)
    moved, kept = move_boxes(flat, image_index, draw.to(flat.device), size, least_area)
    left = torch.bincount(image_index[kept], minlength=count).tolist()
    return list(torch.split(moved[kept], left)), list(torch.split(kept, lengths))


def _moved_hulls(low: Tensor, high: Tensor, theta: Tensor, extent: Tensor) -> tuple[Tensor, Tensor]:
    """Return the corners (M, 2) of the upright boxes around moved ones.

    `theta` (M, 2, 3) leads from output to input, and its inverse moves what is in the image. With places in pixels from
    the middle of the image, x = M·x' + t, a box with middle c and half sides h becomes one with middle M⁻¹·(c - t) and
    half sides |M⁻¹|·h.
    """
    middle = extent / 2
    a, b, c, d = theta[:, :, :2].flatten(1).unbind(dim=1)
    slant = extent[0] / extent[1]  # the matrix is one of coordinates from -1 to 1, of another length along each axis
    adjugate = torch.stack([torch.stack([d, -b * slant], dim=1), torch.stack([-c / slant, a], dim=1)], dim=1)
    inverse = adjugate / (a * d - b * c)[:, None, None]
    centre = inverse @ ((low + high) / 2 - middle * (1 + theta[:, :, 2]))[:, :, None]
    half = inverse.abs() @ ((high - low) / 2)[:, :, None]
    return (centre - half)[:, :, 0] + middle, (centre + half)[:, :, 0] + middle


def _check_masks(masks: Tensor, count: int, fill: int) -> None:
    if masks.ndim != 3 or masks.dtype not in MASK_TYPES or len(masks) != count:
        raise ValueError(
            f"masks: {tuple(masks.shape)} of {masks.dtype} for {count} images; allowed: integers or bool (N, H, W)"
        )
    low, high = (0, 1) if masks.dtype == torch.bool else (torch.iinfo(masks.dtype).min, torch.iinfo(masks.dtype).max)
    if not low <= fill <= high:
        raise ValueError(f"fill: {fill} is no value of masks of {masks.dtype}; allowed: {low} to {high}")


def _check_boxes(boxes: Tensor, image_index: Tensor, count: int, size: tuple[int, int]) -> None:
    if boxes.ndim != 2 or boxes.shape[1] != 4 or boxes.dtype not in BOX_TYPES:
        raise ValueError(f"boxes: {tuple(boxes.shape)} of {boxes.dtype}; allowed: float32 or float64 (M, 4)")
    if image_index.shape != boxes.shape[:1] or image_index.dtype != torch.int64:
        raise ValueError(
            f"image_index: {tuple(image_index.shape)} of {image_index.dtype} for {len(boxes)} boxes; allowed: int64 "
            f"({len(boxes)},)"
        )
    height, width = size
    low, high = boxes[:, :2], boxes[:, 2:]
    problems = {
        "is not finite": ~boxes.isfinite().all(dim=1),
        "has a negative width or height": (high < low).any(dim=1),
        f"lies outside of its image of {width}×{height} pixels": (high < 0).any(dim=1)
        | (low > boxes.new_tensor([width, height])).any(dim=1),
        f"has image {{image}} of {count}": (image_index < 0) | (image_index >= count),
    }
    found = torch.stack([wrong.any() for wrong in problems.values()])
    for (problem, wrong), any_is in zip(problems.items(), found.tolist(), strict=True):
        if any_is:
            row = int(wrong.nonzero()[0])
            image = int(image_index[row])
            raise ValueError(
                f"boxes: row {row} (image {image}), {[round(value, 2) for value in boxes[row].tolist()]}, "
                f"{problem.format(image=image)}; allowed: x1, y1, x2, y2 in pixels, x1 <= x2, y1 <= y2, at least in "
                f"part within 0 to {width} and 0 to {height}, of images 0 to {count - 1}"
            )
