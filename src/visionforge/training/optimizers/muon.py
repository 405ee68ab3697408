"""Muon: orthogonalised momentum of hidden weights, AdamW for the rest."""

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from visionforge.config.schema.components import register
from visionforge.config.schema.model import Beta2, Momentum, Nesterov, Optimizer

if TYPE_CHECKING:
    import torch


@register
class Muon(Optimizer):
    """Muon (Jordan et al., 2024); stem, classifier and all vectors are left to AdamW."""

    position: ClassVar[int] = 3
    marks_hidden: ClassVar[bool] = True

    name: Literal["muon"] = "muon"
    momentum: Momentum = 0.9
    nesterov: Nesterov = False
    beta2: Beta2 = 0.999

    def build(self, groups: list[dict[str, Any]]) -> "torch.optim.Optimizer":
        """Return the optimiser for these parameter groups."""
        from visionforge.training import muon

        return muon.Muon(groups, self.learning_rate, self.momentum, self.nesterov, self.beta2, self.weight_decay)
