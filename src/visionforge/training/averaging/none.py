"""No averaging."""

from typing import ClassVar, Literal

from visionforge.config.schema.components import register
from visionforge.config.schema.model import Averaging


@register
class NoAveraging(Averaging):
    """The weights of the last step are what is validated, tested and saved."""

    position: ClassVar[int] = 1
    off: ClassVar[bool] = True

    name: Literal["none"] = "none"

    def build(self) -> None:
        """Return nothing: no callback averages."""
