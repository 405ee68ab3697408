"""Colours: saturation, and the mixture of stains on a slide. They are the same at every resolution."""

from typing import TYPE_CHECKING, ClassVar, Literal

from visionforge.config.schema.components import register
from visionforge.data.corruption import Corruption

if TYPE_CHECKING:
    from torch import Tensor

    from visionforge.data.draws import Draws

# Optical densities of red, green and blue of haematoxylin, eosin and DAB (Ruifrok and Johnston, 2001)
STAINS = ((0.65, 0.70, 0.29), (0.07, 0.99, 0.11), (0.27, 0.57, 0.78))


class _Colour(Corruption):
    group: ClassVar[str] = "colour"
    colour: ClassVar[bool] = True


class _Saturation(_Colour):
    unit: ClassVar[str] = "factor of the distance from grey"

    def apply(self, images: "Tensor", strength: float, draws: "Draws") -> "Tensor":
        """Move each pixel away from, or towards, the grey of its luma; nothing is drawn."""
        from visionforge.data.augment import GREY_WEIGHTS

        weights = images.new_tensor(GREY_WEIGHTS).view(1, 3, 1, 1)
        grey = (images * weights).sum(dim=1, keepdim=True)
        return grey + (images - grey) * strength


@register
class SaturationUp(_Saturation):
    """Stronger colours."""

    position: ClassVar[int] = 40

    name: Literal["saturation_up"] = "saturation_up"
    severities: tuple[float, ...] = (1.3, 1.7, 2.2, 3.0, 4.2)


@register
class SaturationDown(_Saturation):
    """Weaker colours, down to grey."""

    position: ClassVar[int] = 41

    name: Literal["saturation_down"] = "saturation_down"
    severities: tuple[float, ...] = (0.75, 0.55, 0.35, 0.15, 0.0)


@register
class StainShift(_Colour):
    """Another laboratory: each stain of a slide becomes stronger or weaker, and so does what all of it has.

    After Tellez et al. (2018, 2019, arXiv:1902.06543), in the space of optical densities. The amount s of each of three
    stains becomes (1 ± σ)·s ± σ, with signs that are drawn for each image, so that every image is changed by σ and not
    by a random part of it. Densities are natural logarithms.
    """

    position: ClassVar[int] = 42
    unit: ClassVar[str] = "σ: share of the amount of each stain, and optical density"

    name: Literal["stain_shift"] = "stain_shift"
    severities: tuple[float, ...] = (0.04, 0.08, 0.12, 0.18, 0.25)

    def apply(self, images: "Tensor", strength: float, draws: "Draws") -> "Tensor":
        """Take the images apart into stains, change these, and put them together."""
        import torch

        stains = images.new_tensor(STAINS)
        density = -torch.log((images.permute(0, 2, 3, 1) * 255 + 1) / 256)
        signs = draws.signs(2, 1, 1, 3)
        amounts = density @ torch.linalg.inv(stains)
        amounts = amounts * (1 + strength * signs[:, 0]) + strength * signs[:, 1]
        changed = (torch.exp(-(amounts @ stains)) * 256 - 1) / 255
        return changed.permute(0, 3, 1, 2)
