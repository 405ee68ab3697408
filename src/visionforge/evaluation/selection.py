"""Which images of a split are worth a look: the most confident mistakes, and those the network is least sure about."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from visionforge.evaluation.evaluation import Evaluation

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
    sure = evaluation.task.confidence(evaluation.best.shown, evaluation.predicted)
    return sure if sure.ndim == 1 else np.asarray(sure.min(axis=1))


def confident_mistakes(evaluation: Evaluation, count: int = MISTAKES) -> Chosen:
    """Return the wrong predictions, the surest first; of labels, by the probability of the worst wrong decision."""
    missed = evaluation.predicted != evaluation.labels
    sure = evaluation.task.confidence(evaluation.best.shown, evaluation.predicted)
    if sure.ndim == 2:
        sure, missed = np.where(missed, sure, 0.0).max(axis=1), missed.any(axis=1)
    order = np.argsort(-sure, kind="stable")
    indices = order[missed[order]][:count]
    return Chosen(indices, sure[indices])


def least_certain(evaluation: Evaluation, count: int = UNCERTAIN) -> Chosen:
    """Return the images of the highest entropy, the least certain first; of labels, by the mean of their entropies."""
    order = np.argsort(-evaluation.task.entropy(evaluation.best.shown.astype(np.float64)), kind="stable")[:count]
    return Chosen(order, confidence_of(evaluation)[order])
