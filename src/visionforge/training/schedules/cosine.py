"""Half a cosine, and after it a plateau."""

import math
from typing import ClassVar, Literal

from pydantic import Field

from visionforge.config.schema.components import register
from visionforge.config.schema.model import Gamma, LowestRate, Plateau, Schedule, WarmupEpochs


def cosine(share: float, high: float, low: float) -> float:
    """Return half a cosine from `high` at share 0 to `low` at share 1 (Loshchilov and Hutter, 2017, equation 5)."""
    return low + (high - low) * (1 + math.cos(math.pi * share)) / 2


@register
class Cosine(Schedule):
    """Half a cosine over the training, or over its first part; there the rate then falls where nothing improves."""

    position: ClassVar[int] = 1

    name: Literal["cosine"] = "cosine"
    min_lr: LowestRate = 1e-6
    warmup_epochs: WarmupEpochs = 0
    cosine_fraction: float = Field(
        default=1.0,
        gt=0.0,
        le=1.0,
        description="Share of the training that follows the cosine; in the rest the rate stays, and falls by `gamma` "
        "where model.monitor does not improve any more.",
    )
    scheduler_patience: int = Field(
        default=5,
        ge=0,
        description="After the cosine: epochs without improvement that are waited for before the rate falls.",
        json_schema_extra={"unit": "epochs"},
    )
    gamma: Gamma = 0.1

    @property
    def plateau(self) -> Plateau | None:
        """Return what follows the cosine."""
        if self.cosine_fraction == 1.0:
            return None
        return Plateau(self.cosine_fraction, self.scheduler_patience, self.gamma)

    def rate(self, step: float, steps: float, high: float, steps_per_epoch: float, warmup_steps: float) -> float:
        """Return the learning rate of a step."""
        return cosine(min(step / steps, self.cosine_fraction), high, self.min_lr)
