"""Which candidate is the best on the validation split, and the classifier that it gives."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from visionforge.config.schema.probing import ProbeSettings
from visionforge.data.info import TaskSpec
from visionforge.training.criterion import AnyCriterion
from visionforge.training.monitor import Monitor
from visionforge.training.probes.boosting import boosting_candidates, fit_boosting
from visionforge.training.probes.features import Array, Labelled
from visionforge.training.probes.linear import (
    discriminant_candidates,
    fit_discriminants,
    fit_logistic,
    logistic_candidates,
)
from visionforge.training.probes.neighbours import fit_neighbours, neighbour_candidates
from visionforge.training.split_outputs import GatheredClasses, Pass

Values = Mapping[str, Any]
_SAME = 1e-9  # metrics that are nearer are equal
_BATCH = 1024


@dataclass(frozen=True)
class Classifier:
    """One of scikit-learn's classifiers.

    Attributes:
        candidates: From settings to the values to try, from the simplest on.
        fit: Yields a layer for each of them.
    """

    candidates: Callable[[ProbeSettings], list[dict[str, Any]]]
    fit: Callable[[Labelled, Sequence[Values]], Iterator[nn.Module]]


CLASSIFIERS: dict[str, Classifier] = {
    "logistic_regression": Classifier(logistic_candidates, fit_logistic),
    "knn": Classifier(neighbour_candidates, fit_neighbours),
    "lda": Classifier(discriminant_candidates, fit_discriminants),
    "gradient_boosting": Classifier(boosting_candidates, fit_boosting),
}


@dataclass(frozen=True, eq=False)
class Choice:
    """The best of several candidates.

    Attributes:
        head: Its layer, from features (N, D) to logits (N, K).
        values: Its values.
        rows: Of every candidate its values, its metrics of the validation split, and whether it was chosen.
    """

    head: nn.Module
    values: Values
    rows: list[dict[str, Any]]


def choose(
    settings: ProbeSettings, train: Labelled, val: Labelled, spec: TaskSpec, criterion: AnyCriterion, monitor: Monitor
) -> Choice:
    """Fit every candidate to the training split, and take the one that is best on the validation split.

    Of equally good ones the simplest is taken, which is the first.

    Args:
        settings: Which classifier, and its candidates.
        train: What is learnt.
        val: What the candidates are compared on.
        spec: The task.
        criterion: Makes probabilities of logits.
        monitor: What they are compared by.
    """
    classifier = CLASSIFIERS[settings.classifier]
    candidates = classifier.candidates(settings)
    best: tuple[float, int, nn.Module] | None = None
    rows: list[dict[str, Any]] = []
    for place, head in enumerate(classifier.fit(train, candidates)):
        found = metrics_of(head, val, spec, criterion, monitor)
        rows.append({**candidates[place], **found})
        value = found[monitor.name]
        gain = np.nan if best is None else (value - best[0]) * (1 if monitor.higher else -1)
        if best is None or (np.isnan(best[0]) and not np.isnan(value)) or gain > _SAME:
            best = value, place, head
    assert best is not None
    for place, row in enumerate(rows):
        row["chosen"] = place == best[1]
    return Choice(best[2], candidates[best[1]], rows)


def fit_values(settings: ProbeSettings, values: Values, data: Labelled) -> nn.Module:
    """Return the layer of one candidate."""
    return next(iter(CLASSIFIERS[settings.classifier].fit(data, [values])))


def metrics_of(
    head: nn.Module, data: Labelled, spec: TaskSpec, criterion: AnyCriterion, monitor: Monitor
) -> dict[str, float]:
    """Return the loss and the metrics of a split under the names of a fit's epochs, such as ``val/auc``."""
    asked = Pass("val", spec, criterion, {monitor.name}, training=True)
    outputs = GatheredClasses(logits_of(head, data.values), torch.from_numpy(data.labels), None)
    return {name: float(value) for name, value in outputs.conclude(asked).values.items()}


def logits_of(head: nn.Module, values: Array) -> Tensor:
    """Return (N, K) float32 logits of features (N, D)."""
    given = torch.from_numpy(np.asarray(values, dtype=np.float32))
    with torch.inference_mode():
        return torch.cat([head(given[start : start + _BATCH]) for start in range(0, len(given), _BATCH)])
