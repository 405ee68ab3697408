"""Balanced or uniform, as a switch says."""

from typing import ClassVar, Literal

from visionforge.config.schema.components import register
from visionforge.config.schema.data import Sampler


@register
class Auto(Sampler):
    """What data.balanced_sampling says: balanced where it is true, else uniform."""

    position: ClassVar[int] = 1

    name: Literal["auto"] = "auto"

    def resolved(self, balanced: bool) -> Sampler:
        """Return the balanced or the uniform sampler."""
        return Sampler(name="balanced" if balanced else "uniform")
