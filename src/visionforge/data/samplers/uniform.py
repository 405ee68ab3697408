"""Every image once."""

from typing import ClassVar, Literal

from visionforge.config.schema.components import register
from visionforge.config.schema.data import Sampler


@register
class Uniform(Sampler):
    """Every image once in an epoch, in random order."""

    position: ClassVar[int] = 2

    name: Literal["uniform"] = "uniform"
