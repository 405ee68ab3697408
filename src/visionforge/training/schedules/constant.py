"""No change."""

from typing import ClassVar, Literal

from visionforge.config.schema.components import register
from visionforge.config.schema.model import Schedule, WarmupEpochs


@register
class Constant(Schedule):
    """The same learning rate from the warm-up on."""

    position: ClassVar[int] = 2
    tolerates: ClassVar[tuple[str, ...]] = ("min_lr",)

    name: Literal["constant"] = "constant"
    warmup_epochs: WarmupEpochs = 0

    def rate(self, step: float, steps: float, high: float, steps_per_epoch: float, warmup_steps: float) -> float:
        """Return the learning rate of a step."""
        return high
