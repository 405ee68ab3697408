"""What follows from probabilities: the labels that are chosen, and how uncertain they leave one."""

import numpy as np
import numpy.typing as npt

from visionforge.scoring.decisions import predicted_labels

__all__ = ["entropy", "predicted_labels"]


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
