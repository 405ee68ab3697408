"""Stochastic gradient descent with momentum."""

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from visionforge.config.schema.components import register
from visionforge.config.schema.model import Momentum, Nesterov, Optimizer

if TYPE_CHECKING:
    import torch


@register
class Sgd(Optimizer):
    """SGD with momentum (Sutskever et al., 2013)."""

    position: ClassVar[int] = 1

    name: Literal["sgd"] = "sgd"
    momentum: Momentum = 0.9
    nesterov: Nesterov = False

    def build(self, groups: list[dict[str, Any]]) -> "torch.optim.Optimizer":
        """Return the optimiser for these parameter groups."""
        import torch

        from visionforge.training.parameter_groups import fused

        optimizer = torch.optim.SGD(
            groups,
            self.learning_rate,
            self.momentum,
            weight_decay=self.weight_decay,
            nesterov=self.nesterov,
            fused=fused(groups),
        )
        if optimizer.defaults["fused"] and self.momentum > 0:  # a kernel for all does not begin with some of them
            for p in (p for group in optimizer.param_groups for p in group["params"]):
                optimizer.state[p]["momentum_buffer"] = torch.zeros_like(p)
        return optimizer
