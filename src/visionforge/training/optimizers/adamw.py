"""Adam with decoupled weight decay."""

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from visionforge.config.schema.components import register
from visionforge.config.schema.model import Beta2, Momentum, Optimizer

if TYPE_CHECKING:
    import torch


@register
class AdamW(Optimizer):
    """AdamW (Loshchilov and Hutter, 2019, arXiv:1711.05101)."""

    position: ClassVar[int] = 2

    name: Literal["adamw"] = "adamw"
    momentum: Momentum = 0.9
    beta2: Beta2 = 0.999

    def build(self, groups: list[dict[str, Any]]) -> "torch.optim.Optimizer":
        """Return the optimiser for these parameter groups."""
        import torch

        from visionforge.training.parameter_groups import fused

        rates = (self.momentum, self.beta2)
        return torch.optim.AdamW(groups, self.learning_rate, rates, weight_decay=self.weight_decay, fused=fused(groups))
