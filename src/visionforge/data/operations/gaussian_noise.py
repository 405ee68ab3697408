"""Gaussian noise."""

from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from visionforge.config.schema.components import register
from visionforge.config.schema.data import AugmentationOperation

if TYPE_CHECKING:
    from torch import Tensor

    from visionforge.data.draws import Draws


@register
class GaussianNoise(AugmentationOperation):
    """Normal noise, independent for every value of every channel."""

    position: ClassVar[int] = 1
    by_image: ClassVar[bool] = True

    name: Literal["gaussian_noise"] = "gaussian_noise"
    sigma: float = Field(
        default=0.1, gt=0.0, le=1.0, description="Standard deviation of the noise, where black is 0 and white 1."
    )

    def build(self) -> "Callable[[Tensor, Draws], Tensor]":
        """Return the function that adds noise to a batch."""

        def add_noise(images: "Tensor", draws: "Draws") -> "Tensor":
            return images.add_(draws.normal(*images.shape[1:]), alpha=self.sigma)

        return add_noise
