"""Every metric that is registered, for one weighting of the cases or for thousands of them at once.

A bootstrap resample is a weighting: how often each case was drawn; see `visionforge.scoring.cases`.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt

from visionforge.config.schema import TaskName
from visionforge.config.schema.metrics import Metric, metrics, metrics_of
from visionforge.scoring.cases import AnyCases, AnyWeighted, Cases, Weighted, values_of
from visionforge.scoring.clusters import Clusters
from visionforge.scoring.limits import Behind, Trials
from visionforge.scoring.rates import Array, Floats


class _Directions(Mapping[str, bool]):
    """Name → whether higher is better, of every metric that is registered by now."""

    def __getitem__(self, name: str) -> bool:
        return metrics()[name].higher_is_better

    def __iter__(self) -> Iterator[str]:
        return iter(metrics())

    def __len__(self) -> int:
        return len(metrics())

    def __repr__(self) -> str:
        return repr(dict(self))


HIGHER_IS_BETTER: Mapping[str, bool] = _Directions()


@dataclass(frozen=True)
class Scores:
    """Metrics of B weightings of the cases; NaN where a metric is undefined.

    Attributes:
        overall: Name → (B,).
        per_class: Name → (K, B).
    """

    overall: Mapping[str, Floats]
    per_class: Mapping[str, Floats]


@dataclass(frozen=True)
class Counted:
    """What limits follow from that are not those of resampling.

    Attributes:
        per_class: Name → of how many cases the values of the classes are shares.
        overall: Name → what the limits of a metric follow from.
        clusters: Groups of cases that were drawn whole; None: they were drawn one by one.
    """

    per_class: Mapping[str, Trials] = field(default_factory=dict)
    overall: Mapping[str, Behind] = field(default_factory=dict)
    clusters: Clusters | None = None


class Scorer:
    """Computes all metrics of one set of predictions.

    For two classes, AUC, average precision, sensitivity and specificity are those of the positive class; for more, and
    for labels, they are averages. A class or label without cases is absent: it is in no average. The metrics, by name:

    - `accuracy`; of labels averaged over them, beside `exact_match`: all labels of an image right.
    - `balanced_accuracy`: mean recall of the classes; of labels, mean of (sensitivity + specificity) / 2.
    - `auc`, `average_precision`: one-vs-rest, averaged.
    - `f1_macro`, `sensitivity`, `specificity`.
    - `mcc`: Matthews' correlation coefficient, for several classes Gorodkin's (2004); of labels averaged.
    - `brier`: squared distance of the probabilities from the truth, summed over the classes; for two classes, as for
      labels, that of the one probability (half the sum).
    - `log_loss`: mean of -log of the probability of the truth, in nats; of labels averaged.
    - `ece`: expected calibration error of the predicted class over 15 equally wide bins (Guo et al., 2017); of labels,
      that of all probabilities taken together.
    - Of grades: `kappa_quadratic` (Cohen, 1968), `mae` in grades, `off_by_one`: share that is at most one grade off.
    - Of labels with thresholds: `f1_macro_tuned`, `balanced_accuracy_tuned`, `sensitivity_tuned`,
      `specificity_tuned`.
    - Those that somebody has registered with `visionforge.register_metric`.

    Args:
        probabilities: (N, K).
        labels: (N,) classes, or (N, K) 0/1 where an image may have several.
        task: Kind of labels.
        thresholds: (K,) of labels.
        positive: Of two classes, the one that is to be found.
        decided_on: (N, K) probabilities that the predictions follow; None is `probabilities`.
        clusters: Groups of cases that were drawn whole, such as the images of a patient; None: one by one.
        folds: (N,) which network predicted a case, where several did.
        only: Names of the metrics; None is all that fit the task.
    """

    def __init__(
        self,
        probabilities: Array,
        labels: Array,
        task: TaskName,
        thresholds: Array | None = None,
        positive: int = 1,
        decided_on: Array | None = None,
        clusters: Clusters | None = None,
        folds: npt.NDArray[np.int64] | None = None,
        only: Sequence[str] | None = None,
    ) -> None:
        self._cases = Cases(probabilities, labels, task, thresholds, positive, decided_on, clusters, folds)
        self._metrics = [metric for metric in metrics_of(task) if only is None or metric.name in only]

    @property
    def cases(self) -> Cases:
        """Return the predictions and their truth."""
        return self._cases

    @property
    def labels(self) -> Array:
        """Return (N,) classes, or (N, K) 0/1."""
        return self._cases.labels

    def __call__(self, weights: Floats) -> Scores:
        """Return the metrics of B weightings.

        Args:
            weights: (N, B), how often each case counts.

        Raises:
            VisionForgeError: If somebody's own metric fails.
        """
        return _scores(Weighted(self._cases, weights), self._metrics)

    @property
    def counted(self) -> Counted:
        """Return what the limits of the metrics follow from."""
        weighted = Weighted(self._cases, np.ones((len(self.labels), 1)))
        found = {metric.name: metric.behind(weighted) for metric in self._metrics if metric.behind is not None}
        known = {name: behind for name, behind in found.items() if behind is not None}
        return Counted(weighted.trials, known, self.clusters)

    @property
    def clusters(self) -> Clusters | None:
        """Return groups of cases that were drawn whole."""
        return self._cases.clusters

    @clusters.setter
    def clusters(self, clusters: Clusters | None) -> None:
        self._cases.clusters = clusters


class WeightedPictures(AnyWeighted, Protocol):
    """Weightings of cases, and what they say of each class."""

    @property
    def per_class(self) -> Mapping[str, Floats]:
        """Return name → (K, B)."""


class PictureCases(AnyCases, Protocol):
    """Pictures in which something is somewhere, masks or boxes, with their truth."""

    @property
    def truth(self) -> Array:
        """Return what two sets of predictions have in common if they are of the same truth."""

    def weighted(self, weights: Floats) -> WeightedPictures:
        """Return B weightings (N, B)."""


class PictureScorer:
    """Computes metrics of masks or boxes. Pictures are the cases, in one stratum.

    Args:
        cases: The pictures and their truth.
        asked: The metrics.
        clusters: Groups of pictures that were drawn whole; None: one by one.
    """

    def __init__(self, cases: PictureCases, asked: Sequence[Metric], clusters: Clusters | None = None) -> None:
        self.clusters = clusters
        self._cases = cases
        self._metrics = asked

    @property
    def labels(self) -> npt.NDArray[np.int64]:
        """Return (N,) zeros: any picture may be drawn in place of any other."""
        return np.zeros(len(self._cases.labels), dtype=np.int64)

    @property
    def truth(self) -> Array:
        """Return what shows whether two sets of predictions have the same truth, which the labels do not."""
        return self._cases.truth

    @property
    def counted(self) -> Counted:
        """Return nothing: what is in a picture is of one scene, so all limits are those of resampled pictures."""
        return Counted(clusters=self.clusters)

    def __call__(self, weights: Floats) -> Scores:
        """Return the metrics of B weightings (N, B) of the pictures.

        Raises:
            VisionForgeError: If somebody's own metric fails.
        """
        return _scores(self._cases.weighted(weights), self._metrics)


def metrics_of_form(form: str) -> list[Metric]:
    """Return the metrics that fit a form of labels, ``masks`` or ``boxes``, of whichever task."""
    return [metric for metric in metrics().values() if metric.tasks is not None and form in metric.tasks]


def _scores(weighted: WeightedPictures, asked: Sequence[Metric]) -> Scores:
    found = {metric.name: values_of(metric, weighted) for metric in asked}
    return Scores({name: values for name, values in found.items() if values is not None}, weighted.per_class)
