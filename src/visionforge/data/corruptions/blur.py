"""Blur of lenses and of motion; lengths are in pixels, and grow with the resolution to the power of 3/4.

That power leads from about the severities of CIFAR-10-C to those of ImageNet-C at 224 pixels. In proportion to the
side, the latter would be invisible at 28 pixels.
"""

from typing import TYPE_CHECKING, ClassVar, Literal

from visionforge.config.schema.components import register
from visionforge.data.corruption import Corruption

if TYPE_CHECKING:
    from torch import Tensor

    from visionforge.data.draws import Draws


class _Blur(Corruption):
    group: ClassVar[str] = "blur"
    grows: ClassVar[float] = 0.75


@register
class GaussianBlur(_Blur):
    """Blur by a Gaussian."""

    position: ClassVar[int] = 10
    unit: ClassVar[str] = "standard deviation in pixels"

    name: Literal["gaussian_blur"] = "gaussian_blur"
    severities: tuple[float, ...] = (0.4, 0.6, 0.8, 1.0, 1.3)

    def apply(self, images: "Tensor", strength: float, draws: "Draws") -> "Tensor":
        """Blur; nothing is drawn."""
        from visionforge.data.filters import gaussian_blur

        return gaussian_blur(images, strength)


@register
class DefocusBlur(_Blur):
    """Blur by a disc, as of a lens that is out of focus."""

    position: ClassVar[int] = 11
    unit: ClassVar[str] = "radius in pixels"

    name: Literal["defocus_blur"] = "defocus_blur"
    severities: tuple[float, ...] = (0.7, 1.0, 1.3, 1.6, 2.1)

    def apply(self, images: "Tensor", strength: float, draws: "Draws") -> "Tensor":
        """Blur; nothing is drawn."""
        from visionforge.data.filters import disc, filtered

        return filtered(images, disc(strength, images.shape[-1] - 1, images.device))


@register
class MotionBlur(_Blur):
    """Blur along a line, whose direction is drawn for each image."""

    position: ClassVar[int] = 12
    unit: ClassVar[str] = "length in pixels"

    name: Literal["motion_blur"] = "motion_blur"
    severities: tuple[float, ...] = (1.5, 2.5, 3.5, 4.5, 6.0)

    def apply(self, images: "Tensor", strength: float, draws: "Draws") -> "Tensor":
        """Draw directions and blur along them."""
        import math

        from visionforge.data.filters import filtered, segments

        return filtered(images, segments(strength, draws.uniform() * math.pi, images.shape[-1] - 1))
