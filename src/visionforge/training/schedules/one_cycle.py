"""Up and down again in one cycle."""

from typing import ClassVar, Literal

from pydantic import Field

from visionforge.config.schema.components import register
from visionforge.config.schema.model import LowestRate, Schedule
from visionforge.training.schedules.cosine import cosine

START = 25.0  # the cycle starts at the highest rate divided by this


@register
class OneCycle(Schedule):
    """One cycle of the learning rate (Smith and Topin, 2019, arXiv:1708.07120), in halves of cosines."""

    position: ClassVar[int] = 4

    name: Literal["one_cycle"] = "one_cycle"
    min_lr: LowestRate = 1e-6
    rise_fraction: float = Field(
        default=0.3, gt=0.0, lt=1.0, description="Share of the training in which `one_cycle` rises."
    )

    def rate(self, step: float, steps: float, high: float, steps_per_epoch: float, warmup_steps: float) -> float:
        """Return the learning rate of a step."""
        top = self.rise_fraction * steps
        if step < top:
            return cosine(step / top, high / START, high)
        return cosine((step - top) / (steps - top), high, self.min_lr)
