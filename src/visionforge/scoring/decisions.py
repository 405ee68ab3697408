"""The decision that follows from probabilities."""

from typing import Any

import numpy as np
import numpy.typing as npt

from visionforge.config.schema import TaskName
from visionforge.config.schema.tasks import task_named


def predicted_labels(
    probabilities: npt.NDArray[Any], task: TaskName, thresholds: npt.NDArray[Any] | None = None
) -> npt.NDArray[np.int64]:
    """Return what a task decides: classes (N,), or labels (N, K) 0/1 at their thresholds (K,), or at 0.5."""
    return np.asarray(task_named(task).decide(probabilities, thresholds), dtype=np.int64)
