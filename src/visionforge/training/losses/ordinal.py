"""Cumulative logits of ordered grades."""

from typing import ClassVar, Literal

from visionforge.config.schema.components import register
from visionforge.config.schema.model import Loss


@register
class Ordinal(Loss):
    """Cumulative logits of ordered grades (Cao et al., 2020, arXiv:1901.07884)."""

    position: ClassVar[int] = 5
    tasks: ClassVar[tuple[str, ...]] = ("grades",)
    cumulative: ClassVar[bool] = True

    name: Literal["ordinal"] = "ordinal"
