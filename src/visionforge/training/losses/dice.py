"""The soft Dice loss of masks."""

from typing import TYPE_CHECKING, ClassVar, Literal

from visionforge.config.schema.components import register
from visionforge.config.schema.model import Loss, OverlapSmoothing

if TYPE_CHECKING:
    from torch import Tensor


@register
class Dice(Loss):
    """One minus the soft Dice of the classes of masks (Milletari et al., 2016, arXiv:1606.04797)."""

    position: ClassVar[int] = 11
    tasks: ClassVar[tuple[str, ...]] = ("masks",)

    name: Literal["dice"] = "dice"
    overlap_smoothing: OverlapSmoothing = 1.0

    def loss(self, logits: "Tensor", targets: "Tensor", weights: "Tensor | None") -> "Tensor":
        """Return the loss of a batch, whose pixels are taken together."""
        from visionforge.training.mask_losses import dice_loss

        return dice_loss(logits, targets, smoothing=self.overlap_smoothing, weights=weights)
