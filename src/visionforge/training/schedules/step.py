"""A factor every few epochs."""

from typing import ClassVar, Literal

from pydantic import Field

from visionforge.config.schema.components import register
from visionforge.config.schema.model import Gamma, LowestRate, Schedule, WarmupEpochs


@register
class Step(Schedule):
    """The learning rate falls by the factor `gamma` every `step_epochs` epochs, counted from the first."""

    position: ClassVar[int] = 3

    name: Literal["step"] = "step"
    min_lr: LowestRate = 1e-6
    warmup_epochs: WarmupEpochs = 0
    gamma: Gamma = 0.1
    step_epochs: int = Field(
        default=30, ge=1, description="Epochs between two falls of `step`.", json_schema_extra={"unit": "epochs"}
    )

    def rate(self, step: float, steps: float, high: float, steps_per_epoch: float, warmup_steps: float) -> float:
        """Return the learning rate of a step."""
        falls = int((warmup_steps + step) // (self.step_epochs * steps_per_epoch))
        return max(self.min_lr, high * self.gamma**falls)
