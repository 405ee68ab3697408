"""Every class equally often."""

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from visionforge.config.schema.components import register
from visionforge.config.schema.data import Sampler

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


@register
class Balanced(Sampler):
    """Images drawn with replacement, so that every class, or label, comes equally often."""

    position: ClassVar[int] = 3
    balances: ClassVar[bool] = True

    name: Literal["balanced"] = "balanced"

    def weights(self, labels: "npt.NDArray[np.integer[Any]]") -> "npt.NDArray[np.float64]":
        """Return (N,) weights: 1 / class count."""
        import torch

        from visionforge.data.batches import balancing_weights

        return balancing_weights(torch.from_numpy(labels)).numpy()
