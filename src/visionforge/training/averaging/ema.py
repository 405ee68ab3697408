"""The exponential moving average of every step."""

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from visionforge.config.schema.components import register
from visionforge.config.schema.model import Averaging, StartEpoch

if TYPE_CHECKING:
    from lightning.pytorch.callbacks import Callback


@register
class Ema(Averaging):
    """An exponential moving average of the weights of every step (Polyak and Juditsky, 1992)."""

    position: ClassVar[int] = 2

    name: Literal["ema"] = "ema"
    decay: float = Field(default=0.999, gt=0.0, lt=1.0, description="Share of the old average in every step of ema.")
    start_epoch: StartEpoch = 0

    def build(self) -> "Callback":
        """Return the callback that averages."""
        from visionforge.training.averaged_weights import AveragedWeights

        return AveragedWeights(self.start_epoch, self.decay)
