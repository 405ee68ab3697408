"""The decision that follows from probabilities."""

from typing import Any

import numpy as np
import numpy.typing as npt

from visionforge.config.schema import Task


def predicted_labels(
    probabilities: npt.NDArray[Any], task: Task, thresholds: npt.NDArray[Any] | None = None
) -> npt.NDArray[np.int64]:
    """Return the most probable class (N,), or for multi-label data the labels (N, K) above their thresholds, or 0.5."""
    if task == "multi-label":
        return np.asarray(probabilities > (0.5 if thresholds is None else thresholds), dtype=np.int64)
    return np.asarray(probabilities.argmax(axis=1), dtype=np.int64)
