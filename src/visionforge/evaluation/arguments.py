"""Arguments of the functions for other projects: anything like an array, and what a bootstrap needs."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

ArrayLike = npt.NDArray[Any] | Tensor | Sequence[Any]


def as_array(values: ArrayLike) -> npt.NDArray[Any]:
    """Return values as an array of NumPy; tensors come to the CPU."""
    if isinstance(values, Tensor):
        plain = values.detach().cpu()
        return np.asarray(plain.float() if plain.dtype == torch.bfloat16 else plain)
    return np.asarray(values)


def check_bootstrap(resamples: int, confidence: float, least: int = 0) -> None:
    """Check the number of resamples and the share of them that an interval holds.

    Raises:
        ValueError: If one of them is not allowed.
    """
    if resamples < least:
        raise ValueError(f"resamples: {resamples} is not allowed; allowed: at least {least}")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence: {confidence} is not allowed; allowed: above 0 to below 1")
