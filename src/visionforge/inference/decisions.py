"""What follows from probabilities: the labels that are chosen, and how uncertain they leave one."""

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


def entropy(probabilities: npt.NDArray[np.float64], of_labels: bool) -> npt.NDArray[np.float64]:
    """Return (N,) entropies in [0, 1]: 0 is sure, 1 is a guess among all classes.

    Args:
        probabilities: (N, K).
        of_labels: Each column is a label of its own, of which the binary entropies are averaged.
    """
    p = np.clip(probabilities, 1e-30, 1.0)
    if of_labels:
        q = np.clip(1 - probabilities, 1e-30, 1.0)
        return np.asarray((-(p * np.log2(p) + q * np.log2(q))).mean(axis=1).clip(0, 1))
    return np.asarray((-(p * np.log(p)).sum(axis=1) / np.log(p.shape[1])).clip(0, 1))
