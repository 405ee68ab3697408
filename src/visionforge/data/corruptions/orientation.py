"""Flips and rotations, where the data set says that they change the label, or turn an image as none was taken.

They show whether a network cares for what augmentation and test-time views are forbidden to change. Where it should
care, as for left and right kidneys, more mistakes are no fault; so they are no part of the mean over corruptions.
"""

from typing import TYPE_CHECKING, ClassVar, Literal

from visionforge.config.schema.components import register
from visionforge.data.corruption import Corruption
from visionforge.data.info import DomainFlags

if TYPE_CHECKING:
    from torch import Tensor

    from visionforge.data.draws import Draws


class _Orientation(Corruption):
    group: ClassVar[str] = "orientation"
    averaged: ClassVar[bool] = False


@register
class HorizontalFlip(_Orientation):
    """Left and right are swapped."""

    position: ClassVar[int] = 50

    name: Literal["horizontal_flip"] = "horizontal_flip"
    severities: tuple[float, ...] = (1.0,)

    def applies(self, channels: int, flags: DomainFlags) -> bool:
        """Return whether the data set forbids it."""
        return not flags.hflip

    def apply(self, images: "Tensor", strength: float, draws: "Draws") -> "Tensor":
        """Flip; nothing is drawn."""
        return images.flip(-1)


@register
class VerticalFlip(_Orientation):
    """Top and bottom are swapped."""

    position: ClassVar[int] = 51

    name: Literal["vertical_flip"] = "vertical_flip"
    severities: tuple[float, ...] = (1.0,)

    def applies(self, channels: int, flags: DomainFlags) -> bool:
        """Return whether the data set forbids it."""
        return not flags.vflip

    def apply(self, images: "Tensor", strength: float, draws: "Draws") -> "Tensor":
        """Flip; nothing is drawn."""
        return images.flip(-2)


@register
class Rotation(_Orientation):
    """A turn to either side, which is drawn for each image; corners repeat the pixels at the border."""

    position: ClassVar[int] = 52
    unit: ClassVar[str] = "degrees"

    name: Literal["rotation"] = "rotation"
    severities: tuple[float, ...] = (15.0, 30.0, 45.0, 90.0, 180.0)

    def applies(self, channels: int, flags: DomainFlags) -> bool:
        """Return whether the data set forbids it; a few degrees at most may be allowed."""
        return flags.rotation != "any"

    def apply(self, images: "Tensor", strength: float, draws: "Draws") -> "Tensor":
        """Turn by one bilinear resampling, which leaves quarter turns exact."""
        import math

        import torch
        import torch.nn.functional as F  # noqa: N812

        angles = draws.signs() * math.radians(strength)
        cos, sin, zero = torch.cos(angles), torch.sin(angles), torch.zeros_like(angles)
        theta = torch.stack([cos, -sin, zero, sin, cos, zero], dim=1).view(-1, 2, 3)
        grid = F.affine_grid(theta, list(images.shape), align_corners=False)
        return F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)
