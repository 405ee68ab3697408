"""Stochastic weight averaging."""

from typing import TYPE_CHECKING, ClassVar, Literal

from visionforge.config.schema.components import register
from visionforge.config.schema.model import Averaging, StartEpoch

if TYPE_CHECKING:
    from lightning.pytorch.callbacks import Callback


@register
class Swa(Averaging):
    """The mean of the epochs' last weights (Izmailov et al., 2018, arXiv:1803.05407)."""

    position: ClassVar[int] = 3

    name: Literal["swa"] = "swa"
    start_epoch: StartEpoch = 0

    def build(self) -> "Callback":
        """Return the callback that averages."""
        from visionforge.training.averaged_weights import AveragedWeights

        return AveragedWeights(self.start_epoch)
