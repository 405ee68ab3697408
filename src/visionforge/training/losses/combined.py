"""A sum of losses of masks."""

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from visionforge.config.schema.components import register
from visionforge.config.schema.model import Loss, OverlapSmoothing, TverskyAlpha, TverskyBeta

if TYPE_CHECKING:
    from torch import Tensor

Share = Annotated[float, Field(ge=0.0, le=100.0)]


@register
class Combined(Loss):
    """A weighted sum of losses of masks; cross-entropy and Dice together (Isensee et al., 2021) by default."""

    position: ClassVar[int] = 10
    tasks: ClassVar[tuple[str, ...]] = ("masks",)
    smooths: ClassVar[bool] = True

    name: Literal["combined"] = "combined"
    cross_entropy: Share = Field(default=1.0, description="Weight of the cross-entropy of the pixels in the sum.")
    dice: Share = Field(default=1.0, description="Weight of the Dice loss in the sum.")
    focal: Share = Field(default=0.0, description="Weight of the focal loss of the pixels in the sum.")
    tversky: Share = Field(default=0.0, description="Weight of the Tversky loss in the sum.")
    focal_gamma: float = Field(
        default=2.0, ge=0.0, le=10.0, description="Focusing exponent of the focal loss; 0 is cross-entropy."
    )
    tversky_alpha: TverskyAlpha = 0.3
    tversky_beta: TverskyBeta = 0.7
    overlap_smoothing: OverlapSmoothing = 1.0

    @model_validator(mode="after")
    def _is_a_sum(self) -> Self:
        if not self.cross_entropy + self.dice + self.focal + self.tversky > 0:
            raise ValueError("cross_entropy, dice, focal and tversky are all 0; one has to be above")
        return self

    def loss(self, logits: "Tensor", targets: "Tensor", weights: "Tensor | None") -> "Tensor":
        """Return the weighted sum of the losses of a batch.

        Those of the pixels are means over the weights of the targets before smoothing, as in PyTorch.
        """
        import torch

        from visionforge.training.mask_losses import dice_loss, pixel_cross_entropy, pixel_focal, tversky_loss
        from visionforge.training.mask_targets import smoothed_masks

        smoothing, alpha, beta = self.overlap_smoothing, self.tversky_alpha, self.tversky_beta
        share = self.label_smoothing
        smoothed = smoothed_masks(targets, share)
        total = logits.new_zeros((), dtype=torch.float32)
        if self.cross_entropy > 0:
            each = pixel_cross_entropy(logits, targets, label_smoothing=share, weights=weights)
            total = total + self.cross_entropy * each
        if self.dice > 0:
            total = total + self.dice * dice_loss(logits, smoothed, smoothing=smoothing, weights=weights)
        if self.focal > 0:
            gamma = self.focal_gamma
            each = pixel_focal(logits, targets, gamma=gamma, label_smoothing=share, weights=weights)
            total = total + self.focal * each
        if self.tversky > 0:
            index = tversky_loss(logits, smoothed, alpha=alpha, beta=beta, smoothing=smoothing, weights=weights)
            total = total + self.tversky * index
        return total
