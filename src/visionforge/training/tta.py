"""Test-time augmentation: several views of each image, chosen so that they keep its label.

Flips and quarter turns are exact. Shifts move the image by 1/28 of its width, which is one whole pixel at 28×28, so
every view of an image that is not constant differs from the image itself.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from visionforge.data.info import DomainFlags

SHIFT = 1 / 28  # of the width
View = Callable[[Tensor], Tensor]


def shift(images: Tensor, right: float, down: float) -> Tensor:
    """Move (N, C, H, W) images by shares of their width and height; the border pixels are repeated."""
    theta = images.new_tensor([[1.0, 0.0, -2 * right], [0.0, 1.0, -2 * down]]).expand(len(images), -1, -1)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)


def view_functions(flags: DomainFlags) -> dict[str, View]:
    """Return the views of an image by name, the image itself first.

    Args:
        flags: Which changes keep the label of this kind of image.
    """
    views: dict[str, View] = {"identity": lambda x: x}
    if flags.hflip:
        views["hflip"] = lambda x: x.flip(-1)
    if flags.vflip:
        views["vflip"] = lambda x: x.flip(-2)
    if flags.rotation == "any":
        views["rotate 90"] = lambda x: torch.rot90(x, 1, (-2, -1))
        views["rotate 180"] = lambda x: torch.rot90(x, 2, (-2, -1))
        views["rotate 270"] = lambda x: torch.rot90(x, 3, (-2, -1))
    views["shift right"] = lambda x: shift(x, SHIFT, 0.0)
    views["shift left"] = lambda x: shift(x, -SHIFT, 0.0)
    views["shift down"] = lambda x: shift(x, 0.0, SHIFT)
    views["shift up"] = lambda x: shift(x, 0.0, -SHIFT)
    return views


def tta_views(images: Tensor, flags: DomainFlags) -> Tensor:
    """Return (V, N, C, H, W) views of normalised images (N, C, H, W), the images themselves first."""
    return torch.stack([view(images) for view in view_functions(flags).values()])
