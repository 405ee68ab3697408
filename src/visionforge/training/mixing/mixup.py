"""MixUp and CutMix."""

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from visionforge.config.schema.base import Probability
from visionforge.config.schema.components import register
from visionforge.config.schema.model import Mixing

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from visionforge.training.mixup import MixDraw


@register
class MixUp(Mixing):
    """MixUp (Zhang et al., 2018, arXiv:1710.09412) and CutMix (Yun et al., 2019, arXiv:1905.04899)."""

    position: ClassVar[int] = 1
    shares_draws: ClassVar[bool] = True

    name: Literal["mixup"] = "mixup"
    alpha: Probability = Field(default=0.002, description="MixUp: mixing weight ~ Beta(alpha, alpha); 0 turns it off.")
    cutmix_alpha: Probability = Field(
        default=0.0, description="CutMix: share that stays ~ Beta(cutmix_alpha, cutmix_alpha); 0 turns it off."
    )
    cutmix_prob: Probability = Field(
        default=0.5, description="Where both are on: probability of CutMix instead of MixUp."
    )
    per_image: bool = Field(default=False, description="Draw anew for every image instead of once per batch.")

    def mixes(self, epoch: int) -> bool:
        """Return whether the images of an epoch are mixed: in the first ones, if a strength is above 0."""
        return (self.alpha > 0 or self.cutmix_alpha > 0) and super().mixes(epoch)

    def draw(self, images: "Tensor", rng: "np.random.Generator") -> "MixDraw | None":
        """Return how a batch is mixed, on its device; this process's part of what all that train together draw."""
        from visionforge.training.gather import place_in_group
        from visionforge.training.mixup import draw_mix

        draw = draw_mix(len(images), self, images.shape[-1], rng, images.ndim - 2, *place_in_group())
        return None if draw is None else draw.to(images.device)

    def mix(self, images: "Tensor", targets: "Tensor", rng: "np.random.Generator") -> "tuple[Tensor, Tensor]":
        """Return mixed images (N, C, R, R), or volumes (N, C, R, R, R), and their targets (N, K)."""
        from visionforge.training.mixup import mix_images, mix_targets

        draw = self.draw(images, rng)
        return (images, targets) if draw is None else (mix_images(images, draw), mix_targets(targets, draw))
