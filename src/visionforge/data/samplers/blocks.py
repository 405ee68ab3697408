"""Every image once, neighbours together, so that data that lies far away is read in large pieces."""

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from visionforge.config.schema.components import register
from visionforge.config.schema.data import Sampler

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


@register
class Blocks(Sampler):
    """Every image once: blocks of neighbours in random order, and the images of some blocks shuffled together."""

    position: ClassVar[int] = 4

    name: Literal["blocks"] = "blocks"
    size: int = Field(default=8192, ge=1, le=1 << 24, description="Neighbouring images of a block.")
    together: int = Field(default=8, ge=1, le=1024, description="Blocks whose images are shuffled together.")

    def indices(
        self, labels: "npt.NDArray[np.integer[Any]]", rng: "np.random.Generator", draws: int
    ) -> "npt.NDArray[np.integer[Any]]":
        """Return (draws,) positions, each once."""
        import numpy as np

        starts = rng.permutation(np.arange(0, draws, self.size))
        order = np.empty(draws, dtype=np.int64)
        done = 0
        for first in range(0, len(starts), self.together):
            mixed = starts[first : first + self.together]
            found = np.concatenate([np.arange(start, min(start + self.size, draws)) for start in mixed])
            order[done : done + len(found)] = rng.permutation(found)
            done += len(found)
        return order
