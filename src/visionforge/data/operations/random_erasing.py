"""Random erasing."""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from visionforge.config.schema.base import Probability
from visionforge.config.schema.components import register
from visionforge.config.schema.data import AugmentationOperation

if TYPE_CHECKING:
    import torch
    from torch import Tensor

SMALLEST = 0.02  # share of the area, and the range of height / width: those of the paper, and of torchvision
RATIO = (0.3, 1 / 0.3)
ATTEMPTS = 10  # torchvision's number of tries before it leaves the image as it is


@register
class RandomErasing(AugmentationOperation):
    """A rectangle of random values in some images (Zhong et al., 2020, arXiv:1708.04896)."""

    position: ClassVar[int] = 2

    name: Literal["random_erasing"] = "random_erasing"
    probability: Probability = Field(default=0.5, description="Share of the images that lose a rectangle.")
    scale: float = Field(
        default=0.33,
        ge=SMALLEST,
        le=1.0,
        description=f"Largest share of the image's area that a rectangle covers; the smallest is {SMALLEST}.",
    )

    def build(self) -> "Callable[[Tensor, torch.Generator], Tensor]":
        """Return the function that erases rectangles of a batch, filled with uniform noise."""
        import torch

        def erase(images: "Tensor", generator: "torch.Generator") -> "Tensor":
            top, left, bottom, right = self.draw(len(images), images.shape[2], images.shape[3], generator).unbind(dim=1)
            rows = torch.arange(images.shape[2], device=images.device)[:, None]
            columns = torch.arange(images.shape[3], device=images.device)
            inside = (rows >= top[:, None, None]) & (rows < bottom[:, None, None])
            inside = inside & (columns >= left[:, None, None]) & (columns < right[:, None, None])
            values = torch.rand(images.shape, generator=generator, device=images.device, dtype=images.dtype)
            return torch.where(inside[:, None], values, images)

        return erase

    def draw(self, count: int, height: int, width: int, generator: "torch.Generator") -> "Tensor":
        """Return (N, 4) int64 top, left, bottom and right of the rectangles; empty where nothing is erased.

        Area and logarithm of height / width are uniform; a rectangle as high or wide as the image is drawn anew, after
        torchvision's `RandomErasing`.

        Args:
            count: Images N.
            height: Height of the images in pixels.
            width: Width in pixels.
            generator: On the device of the result.
        """
        import torch

        device = generator.device
        tries = torch.rand((count, ATTEMPTS, 2), generator=generator, device=device)
        place = torch.rand((count, 3), generator=generator, device=device)
        area = height * width * (SMALLEST + (self.scale - SMALLEST) * tries[..., 0])
        low, high = map(math.log, RATIO)
        ratio = torch.exp(low + (high - low) * tries[..., 1])
        sides = torch.stack([torch.sqrt(area * ratio), torch.sqrt(area / ratio)], dim=-1).round().long()
        size = torch.tensor([height, width], device=device)
        fits = (sides < size).all(dim=-1)
        first = fits.float().argmax(dim=1)
        chosen = sides[torch.arange(count, device=device), first]
        erased = fits.any(dim=1) & (place[:, 0] < self.probability)
        start = (place[:, 1:] * (size - chosen + 1)).floor().long()
        return torch.cat([start, start + chosen], dim=1) * erased[:, None]
