"""Exposure: brightness, contrast and gamma, up and down. They are the same at every resolution, and draw nothing."""

from typing import TYPE_CHECKING, ClassVar, Literal

from visionforge.config.schema.components import register
from visionforge.data.corruption import Corruption

if TYPE_CHECKING:
    from torch import Tensor

    from visionforge.data.draws import Draws


class _Tone(Corruption):
    group: ClassVar[str] = "tone"


@register
class BrightnessUp(_Tone):
    """The same is added to all values."""

    position: ClassVar[int] = 30
    unit: ClassVar[str] = "added, white is 1"

    name: Literal["brightness_up"] = "brightness_up"
    severities: tuple[float, ...] = (0.06, 0.12, 0.18, 0.26, 0.36)

    def apply(self, images: "Tensor", strength: float, draws: "Draws") -> "Tensor":
        """Brighten."""
        return images.add_(strength)


@register
class BrightnessDown(_Tone):
    """The same is taken from all values."""

    position: ClassVar[int] = 31
    unit: ClassVar[str] = "taken away, white is 1"

    name: Literal["brightness_down"] = "brightness_down"
    severities: tuple[float, ...] = (0.06, 0.12, 0.18, 0.26, 0.36)

    def apply(self, images: "Tensor", strength: float, draws: "Draws") -> "Tensor":
        """Darken."""
        return images.sub_(strength)


class _Contrast(_Tone):
    unit: ClassVar[str] = "factor of the distance from the mean of a channel"

    def apply(self, images: "Tensor", strength: float, draws: "Draws") -> "Tensor":
        """Stretch or press each channel of each image around its mean."""
        mean = images.mean(dim=(2, 3), keepdim=True)
        return mean + (images - mean) * strength


@register
class ContrastUp(_Contrast):
    """More contrast; what becomes too dark or too bright is lost."""

    position: ClassVar[int] = 32

    name: Literal["contrast_up"] = "contrast_up"
    severities: tuple[float, ...] = (1.3, 1.7, 2.2, 3.0, 4.2)


@register
class ContrastDown(_Contrast):
    """Less contrast."""

    position: ClassVar[int] = 33

    name: Literal["contrast_down"] = "contrast_down"
    severities: tuple[float, ...] = (0.75, 0.55, 0.4, 0.25, 0.12)


class _Gamma(_Tone):
    unit: ClassVar[str] = "exponent"

    def apply(self, images: "Tensor", strength: float, draws: "Draws") -> "Tensor":
        """Raise all values to a power."""
        return images.pow_(strength)


@register
class GammaUp(_Gamma):
    """An exponent above 1: middle values become darker, black and white stay."""

    position: ClassVar[int] = 34

    name: Literal["gamma_up"] = "gamma_up"
    severities: tuple[float, ...] = (1.25, 1.5, 1.9, 2.4, 3.2)


@register
class GammaDown(_Gamma):
    """An exponent below 1: middle values become brighter."""

    position: ClassVar[int] = 35

    name: Literal["gamma_down"] = "gamma_down"
    severities: tuple[float, ...] = (0.8, 0.66, 0.53, 0.42, 0.31)
