"""The Tversky loss of masks."""

from typing import TYPE_CHECKING, ClassVar, Literal

from visionforge.config.schema.components import register
from visionforge.config.schema.model import Loss, OverlapSmoothing, TverskyAlpha, TverskyBeta

if TYPE_CHECKING:
    from torch import Tensor


@register
class Tversky(Loss):
    """One minus the Tversky index of masks (Salehi et al., 2017, arXiv:1706.05721), in which misses may cost more."""

    position: ClassVar[int] = 12
    tasks: ClassVar[tuple[str, ...]] = ("masks",)

    name: Literal["tversky"] = "tversky"
    tversky_alpha: TverskyAlpha = 0.3
    tversky_beta: TverskyBeta = 0.7
    overlap_smoothing: OverlapSmoothing = 1.0

    def loss(self, logits: "Tensor", targets: "Tensor", weights: "Tensor | None") -> "Tensor":
        """Return the loss of a batch, whose pixels are taken together."""
        from visionforge.training.mask_losses import tversky_loss

        alpha, beta, smoothing = self.tversky_alpha, self.tversky_beta, self.overlap_smoothing
        return tversky_loss(logits, targets, alpha=alpha, beta=beta, smoothing=smoothing, weights=weights)
