"""Metrics of the probabilities themselves, which a temperature changes; lower is better."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from visionforge.config.schema.metrics import Compute, Metric, register_metric
from visionforge.scoring.behind import losses
from visionforge.scoring.cases import Cases, Weighted
from visionforge.scoring.limits import Behind
from visionforge.scoring.rates import Floats

ECE_BINS = 15  # equally wide, as in Guo et al. (2017)
_CLOSEST = float(np.finfo(np.float32).eps)  # probabilities are float32: log loss takes none as nearer to 0 or 1


def bin_of(confidence: Floats) -> npt.NDArray[np.int64]:
    """Return the calibration bin, 0 to 14, of each probability; a bin includes its upper end."""
    upper = np.ceil(confidence * ECE_BINS).astype(np.int64)
    return np.asarray(np.clip(upper - 1, 0, ECE_BINS - 1))


def _per_case_brier(cases: Cases) -> Floats:
    distance = (cases.probabilities - cases.truth) ** 2
    if cases.of_labels:
        return np.asarray(distance.mean(axis=1))
    return distance[:, 1] if cases.task.has_positive else np.asarray(distance.sum(axis=1))


def _per_case_log_loss(cases: Cases) -> Floats:
    if cases.of_labels:
        clipped = cases.probabilities.clip(_CLOSEST, 1 - _CLOSEST)
        return np.asarray(-np.where(cases.truth > 0, np.log(clipped), np.log1p(-clipped)).mean(axis=1))
    chosen = (cases.probabilities * cases.truth).sum(axis=1)
    return np.asarray(-np.log(chosen.clip(_CLOSEST, 1.0)))


def _bins(cases: Cases) -> Floats:
    """Return (bins, N), by how much the statements of each case are too sure."""
    sure, right = cases.task.statements(cases.probabilities, cases.predicted, cases.labels)
    excess = np.zeros((len(sure), ECE_BINS))
    np.add.at(excess, (np.arange(len(sure))[:, None], bin_of(sure)), sure - right)
    return np.ascontiguousarray(excess.T)


def _once(weighted: Weighted, compute: Callable[[Cases], Floats]) -> Floats:
    """Return what a function says of the cases, which no weighting changes."""
    kept = weighted.cases.per_case
    if compute.__name__ not in kept:
        kept[compute.__name__] = compute(weighted.cases)
    found: Floats = kept[compute.__name__]
    return found


def _brier(weighted: Weighted) -> Floats:
    """Squared distance of the probabilities from the truth, summed over the classes.

    For two classes, as for labels, that of the one probability (half the sum).
    """
    found: Floats = _once(weighted, _per_case_brier) @ weighted.weights / weighted.total
    return found


def _log_loss(weighted: Weighted) -> Floats:
    """Mean of -log of the probability of the truth, in nats; of labels averaged."""
    found: Floats = _once(weighted, _per_case_log_loss) @ weighted.weights / weighted.total
    return found


def _ece(weighted: Weighted) -> Floats:
    """Expected calibration error of the predicted class over 15 equally wide bins (Guo et al., 2017).

    Of labels, that of all probabilities taken together.
    """
    statements = weighted.cases.classes if weighted.cases.of_labels else 1
    excess = _once(weighted, _bins)
    error: Floats = np.abs(excess @ weighted.weights).sum(axis=0) / (weighted.total * statements)
    return error


def _add(compute: Compute, name: str, label: str, behind: Callable[[Weighted], Behind] | None) -> None:
    metric = Metric(
        behind=behind,
        name=name,
        label=label,
        compute=compute,
        higher_is_better=False,
        every_epoch=False,
        interval=behind is not None,
        of_probabilities=True,
        shared=True,
        position=20,
    )
    register_metric(metric)


_add(_brier, "brier", "Brier score", losses(_per_case_brier))
_add(_log_loss, "log_loss", "log loss", losses(_per_case_log_loss))
_add(_ece, "ece", "calibration error (ECE)", None)  # resampling adds to its upward bias: percentiles miss it
