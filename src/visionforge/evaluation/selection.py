"""Which images of a split are worth a look: the most confident mistakes, and those the network is least sure about."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from visionforge.evaluation.evaluation import Evaluation
from visionforge.inference.decisions import entropy

MISTAKES = UNCERTAIN = 24


@dataclass(frozen=True)
class Chosen:
    """Images and what is said of them.

    Attributes:
        indices: (M,) positions in the split.
        confidence: (M,) probability of the prediction; of labels, of the one that is decided worst.
    """

    indices: npt.NDArray[np.int64]
    confidence: npt.NDArray[np.float64]


def confidence_of(evaluation: Evaluation) -> npt.NDArray[np.float64]:
    """Return (N,) the probability of each prediction; of labels, that of the decision that is least sure."""
    if evaluation.spec.task == "multi-label":
        return np.asarray(_of_decisions(evaluation).min(axis=1))
    shown = evaluation.best.shown.astype(np.float64)
    return np.asarray(np.take_along_axis(shown, evaluation.predicted[:, None], axis=1)[:, 0])


def _of_decisions(evaluation: Evaluation) -> npt.NDArray[np.float64]:
    """Return (N, K) the probability of what is said of each label."""
    shown = evaluation.best.shown.astype(np.float64)
    return np.where(evaluation.predicted > 0, shown, 1 - shown)


def confident_mistakes(evaluation: Evaluation, count: int = MISTAKES) -> Chosen:
    """Return the wrong predictions, the surest first; of labels, by the probability of the worst wrong decision."""
    wrong = evaluation.predicted != evaluation.labels
    if evaluation.spec.task == "multi-label":
        sure = np.where(wrong, _of_decisions(evaluation), 0.0).max(axis=1)
        missed = wrong.any(axis=1)
    else:
        sure, missed = confidence_of(evaluation), wrong
    order = np.argsort(-sure, kind="stable")
    indices = order[missed[order]][:count]
    return Chosen(indices, sure[indices])


def least_certain(evaluation: Evaluation, count: int = UNCERTAIN) -> Chosen:
    """Return the images of the highest entropy, the least certain first; of labels, by the mean of their entropies."""
    shown = evaluation.best.shown.astype(np.float64)
    order = np.argsort(-entropy(shown, evaluation.spec.task == "multi-label"), kind="stable")[:count]
    return Chosen(order, confidence_of(evaluation)[order])
