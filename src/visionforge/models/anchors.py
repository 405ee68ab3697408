"""Anchors of detectors: where the places of feature maps lie in the image, and the boxes that are tried around them."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList

from visionforge.errors import SettingsError


class Anchors(AnchorGenerator):  # type: ignore[misc]  # torchvision has no types
    """Anchors around every place of every map, as far from each other as the map's pixels are.

    torchvision divides the image by the map, which is right because it pads images to a multiple of 32: of 100 pixels
    and a map of 13, it would put the last anchors 12 pixels too far to the left. It also rounds their corners, by which
    those of a single pixel vanish.

    Args:
        sizes: Roots of the areas of the anchors of each map, in pixels of the image.
        ratios: Height by width of the anchors.
        strides: Input pixels per pixel of each map.
    """

    def __init__(self, sizes: Sequence[Sequence[float]], ratios: tuple[float, ...], strides: Sequence[int]) -> None:
        self._strides = tuple(strides)
        super().__init__(tuple(map(tuple, sizes)), (ratios,) * len(strides))

    def generate_anchors(
        self,
        scales: Sequence[float],
        aspect_ratios: Sequence[float],
        dtype: torch.dtype = torch.float32,
        device: torch.device = torch.device("cpu"),  # noqa: B008
    ) -> Tensor:
        """Return (A, 4) the anchors of a place, around (0, 0)."""
        size, ratio = torch.tensor(scales, device=device), torch.tensor(aspect_ratios, device=device)[:, None]
        half = torch.stack([size / ratio.sqrt(), size * ratio.sqrt()], dim=2).flatten(0, 1) / 2
        return torch.cat([-half, half], dim=1).to(dtype)

    def forward(self, image_list: ImageList, feature_maps: list[Tensor]) -> list[Tensor]:
        """Return (P·A, 4) for each image, those of all maps one after the other."""
        first = feature_maps[0]
        self.set_cell_anchors(first.dtype, first.device)
        steps = [[torch.tensor(stride, device=first.device)] * 2 for stride in self._strides]
        sides: list[list[int]] = [list(each.shape[-2:]) for each in feature_maps]
        return [torch.cat(self.grid_anchors(sides, steps))] * len(image_list.image_sizes)


def require_doubling(name: str, strides: Sequence[int]) -> None:
    """Refuse maps between which one is missing: objects of its size would belong to none.

    Args:
        name: The detector.
        strides: Input pixels per pixel of each map, from the finest to the coarsest.

    Raises:
        SettingsError: If the strides are such.
    """
    if any(coarse != 2 * fine for fine, coarse in pairwise(strides)):
        raise SettingsError(
            f"model.detector.name: {name} needs maps of which each has half the pixels of the one before along a side, "
            f"the strides of the backbone's are {', '.join(map(str, strides))}; take retinanet, or another backbone"
        )
