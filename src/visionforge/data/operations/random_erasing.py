"""Random erasing."""

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from visionforge.config.schema.base import Probability
from visionforge.config.schema.components import register
from visionforge.config.schema.data import AugmentationOperation

if TYPE_CHECKING:
    from torch import Tensor

    from visionforge.data.draws import Draws

SMALLEST = 0.02  # share of the area, and the range of height / width: those of the paper, and of torchvision
RATIO = (0.3, 1 / 0.3)
ATTEMPTS = 10  # torchvision's number of tries before it leaves the image as it is


@register
class RandomErasing(AugmentationOperation):
    """A rectangle of random values in some images, in volumes a box (Zhong et al., 2020, arXiv:1708.04896)."""

    position: ClassVar[int] = 2
    by_image: ClassVar[bool] = True

    name: Literal["random_erasing"] = "random_erasing"
    probability: Probability = Field(default=0.5, description="Share of the images that lose a rectangle.")
    scale: float = Field(
        default=0.33,
        ge=SMALLEST,
        le=1.0,
        description=f"Largest share of the image's area, or of the volume, that it covers; the smallest is {SMALLEST}.",
    )

    def build(self) -> "Callable[[Tensor, Draws], Tensor]":
        """Return the function that erases rectangles, or boxes, of a batch, filled with uniform noise."""
        import torch

        def erase(images: "Tensor", draws: "Draws") -> "Tensor":
            if images.ndim == 5:
                inside = inside_boxes(self.draw_boxes(images.shape[2:], draws), images.shape[2:])
                return torch.where(inside[:, None], draws.uniform(*images.shape[1:]), images)
            top, left, bottom, right = self.draw(images.shape[2], images.shape[3], draws).unbind(dim=1)
            rows = torch.arange(images.shape[2], device=images.device)[:, None]
            columns = torch.arange(images.shape[3], device=images.device)
            inside = (rows >= top[:, None, None]) & (rows < bottom[:, None, None])
            inside = inside & (columns >= left[:, None, None]) & (columns < right[:, None, None])
            return torch.where(inside[:, None], draws.uniform(*images.shape[1:]), images)

        return erase

    def draw(self, height: int, width: int, draws: "Draws") -> "Tensor":
        """Return (N, 4) int64 top, left, bottom and right of the rectangles; empty where nothing is erased.

        Area and logarithm of height / width are uniform; a rectangle as high or wide as the image is drawn anew, after
        torchvision's `RandomErasing`.

        Args:
            height: Height of the images in pixels.
            width: Width in pixels.
            draws: Random numbers of N images.
        """
        import torch

        from visionforge.data.augment import plain_tensor

        count, device = len(draws), draws.device
        tries, place = draws.uniform(ATTEMPTS, 2), draws.uniform(3)
        area = height * width * (SMALLEST + (self.scale - SMALLEST) * tries[..., 0])
        low, high = map(math.log, RATIO)
        ratio = torch.exp(low + (high - low) * tries[..., 1])
        sides = torch.stack([torch.sqrt(area * ratio), torch.sqrt(area / ratio)], dim=-1).round().long()
        size = plain_tensor((height, width), sides)
        fits = (sides < size).all(dim=-1)
        first = fits.float().argmax(dim=1)
        chosen = sides[torch.arange(count, device=device), first]
        erased = fits.any(dim=1) & (place[:, 0] < self.probability)
        start = (place[:, 1:] * (size - chosen + 1)).floor().long()
        return torch.cat([start, start + chosen], dim=1) * erased[:, None]

    def draw_boxes(self, size: "Sequence[int]", draws: "Draws") -> "Tensor":
        """Return (N, 2, 3) int64, where the boxes begin and end along each axis; empty if nothing is erased.

        The share of the volume is uniform. Along each axis a box is stretched by a factor whose logarithm is uniform,
        so that the ratio of two sides lies in the range of the images' rectangles; as there, a box that does not fit
        is drawn anew.

        Args:
            size: Depth, height and width in voxels.
            draws: Random numbers of N volumes.
        """
        import torch

        from visionforge.data.augment import plain_tensor

        count, device = len(draws), draws.device
        tries, place = draws.uniform(ATTEMPTS, 4), draws.uniform(4)
        sides = plain_tensor(tuple(size), place).long()
        share = SMALLEST + (self.scale - SMALLEST) * tries[..., :1]
        stretch = math.log(RATIO[1]) * (tries[..., 1:] - tries[..., 1:].mean(dim=-1, keepdim=True))
        boxes = (sides * share ** (1 / 3) * torch.exp(stretch)).round().long()
        fits = (boxes < sides).all(dim=-1)
        chosen = boxes[torch.arange(count, device=device), fits.float().argmax(dim=1)]
        erased = fits.any(dim=1) & (place[:, 0] < self.probability)
        start = (place[:, 1:] * (sides - chosen + 1)).floor().long()
        return torch.stack([start, start + chosen], dim=1) * erased[:, None, None]


def inside_boxes(boxes: "Tensor", size: "Sequence[int]") -> "Tensor":
    """Return (N, D, H, W) bool, which voxels lie in boxes (N, 2, 3)."""
    import torch

    inside = torch.ones((), dtype=torch.bool, device=boxes.device)
    for axis, length in enumerate(size):
        place = torch.arange(length, device=boxes.device)
        along = (place >= boxes[:, 0, axis, None]) & (place < boxes[:, 1, axis, None])
        inside = inside & along.view(-1, *[length if k == axis else 1 for k in range(3)])
    return inside
