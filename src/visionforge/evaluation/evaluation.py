"""All numbers of one evaluated split: metrics with intervals, per class, and before and after calibration."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch

from visionforge.config.schema import EvaluationSettings, Task, TaskName
from visionforge.config.schema.metrics import metrics_of
from visionforge.data.info import TaskSpec
from visionforge.evaluation.abstention import (
    RiskCoverage,
    abstaining_numbers,
    risk_coverage,
    selective_numbers,
    sets_numbers,
)
from visionforge.evaluation.bootstrap import Estimate, estimate
from visionforge.evaluation.hidden_classes import hidden_classes, only_answer
from visionforge.evaluation.metric_names import labels_of_metrics, partial_text
from visionforge.evaluation.metrics import medmnist_metrics
from visionforge.evaluation.scores import Scorer
from visionforge.evaluation.subgroups import Subgroups
from visionforge.inference.predictions import OOD_SCORE, BatchPrediction, distance_columns
from visionforge.scoring.clusters import Clusters
from visionforge.scoring.decisions import predicted_labels
from visionforge.training.calibration import Calibration, scale
from visionforge.training.predictions import Predictions

Array = npt.NDArray[Any]
Metrics = dict[str, float | None]


def of_probabilities(task: TaskName) -> list[str]:
    """Return the names of the metrics that a temperature changes."""
    return [metric.name for metric in metrics_of(task) if metric.of_probabilities]


@dataclass(frozen=True)
class Partial:
    """How much of a split was evaluated, where that is not all of it.

    Attributes:
        images: Number of images that were evaluated: the first of the split.
        of: Number of images of the split.
        reason: Why, such as ``trainer.limit_test_batches 0.5``.
    """

    images: int
    of: int
    reason: str

    def __str__(self) -> str:
        return partial_text(asdict(self))


@dataclass(frozen=True)
class Reading:
    """What one way of asking the network gave: about the image alone, or averaged over its test-time views.

    Attributes:
        estimate: Metrics and their intervals.
    """

    estimate: Estimate


@dataclass(frozen=True)
class ViewMetrics(Reading):
    """A reading of the classes of whole images.

    Attributes:
        estimate: Metrics of `probabilities` and their intervals.
        probabilities: (N, K), as the network gives them.
        calibrated: (N, K) with the temperature of the validation split; None if there is no temperature.
        thresholds: (K,) of labels, or None.
        after: The metrics of `of_probabilities`, of `calibrated`.
        medmnist: Accuracy and AUC as published results of MedMNIST have them.
    """

    probabilities: Array
    calibrated: Array | None
    thresholds: Array | None
    after: Metrics | None
    medmnist: Metrics

    @property
    def shown(self) -> Array:
        """Return (N, K) the probabilities that the network states: calibrated, if there is a temperature."""
        return self.probabilities if self.calibrated is None else self.calibrated


@dataclass(frozen=True, kw_only=True)
class SplitEvaluation(ABC):
    """The numbers of one split, whatever its labels are.

    Attributes:
        spec: The task.
        split: Name of the split.
        labels: As the task keeps them.
        readings: `without_tta`, and with test-time augmentation `with_tta`.
        loss: Mean loss of the images alone, without smoothing.
        settings: How intervals are computed.
        partial: How much of the split was evaluated; None is all of it.
        subgroups: The same by age, sex, site or other columns; None where nothing is known of the images.
        clusters: Groups of images that belong together, where the data has some; they are drawn whole.
        method: How the intervals were made, where each image stands for itself.
        drawn: How images are drawn anew for them, for the reader of a report.
    """

    spec: TaskSpec
    split: str
    labels: Array
    readings: Mapping[str, Reading]
    loss: float
    settings: EvaluationSettings
    partial: Partial | None = None
    subgroups: Subgroups | None = None
    clusters: Clusters | None = None

    method: ClassVar[str] = "bootstrap of images, bias-corrected percentiles"
    drawn: ClassVar[str] = ""

    @property
    def task(self) -> Task:
        """Return the task."""
        return self.spec.kind

    @property
    def groups(self) -> int | None:
        """Return in how many groups the images are, where the data has some."""
        return None if self.clusters is None else self.clusters.count

    @property
    def positive(self) -> str | None:
        """Return the name of the one of two classes that is to be found; None for other tasks."""
        return self.spec.classes[self.spec.positive_index] if self.task.has_positive else None

    @property
    def best_name(self) -> str:
        """Return the name of the reading that predictions follow."""
        return "with_tta" if "with_tta" in self.readings else "without_tta"

    @property
    def best(self) -> Reading:
        """Return the reading that predictions follow: with test-time augmentation if it is on."""
        return self.readings[self.best_name]

    @property
    @abstractmethod
    def said(self) -> Any:
        """Return what the network says of the images, as tables show it."""

    @cached_property
    def support(self) -> list[int]:
        """Return the number of cases of each class or label."""
        return [int(count) for count in self.task.counts(self.labels, len(self.spec.classes))]

    @property
    def absent(self) -> list[str]:
        """Return the classes or labels without a case; they are in no average."""
        return [name for name, count in zip(self.spec.classes, self.support, strict=True) if count == 0]

    @property
    def drawn_text(self) -> str:
        """Return how images are drawn anew for intervals, for the reader of a report."""
        return self.drawn if self.groups is None else f" by whole groups, of which there are {self.groups:,}"

    @property
    def some_unknown(self) -> bool:
        """Return whether a metric has no interval because its cases are too few to tell."""
        return any(
            name in found.intervals and value is not None and found.intervals[name] is None
            for found in (reading.estimate for reading in self.readings.values())
            for name, value in found.overall.items()
        ) or any(
            ends is None and value is not None
            for found in (reading.estimate for reading in self.readings.values())
            for name, values in found.class_intervals.items()
            for ends, value in zip(values, found.per_class[name], strict=True)
        )

    @property
    def reading_notes(self) -> Sequence[str]:
        """Return what must be known of this task to read the numbers."""
        return ()

    @property
    def warnings(self) -> Sequence[str]:
        """Return what the numbers on top do not show, a line each."""
        return ()

    @property
    def further(self) -> Sequence[tuple[str, Mapping[str, float | None]]]:
        """Return further numbers of each reading by what they are called."""
        return ()

    @property
    def tempered(self) -> Sequence[tuple[str, Mapping[str, float | None]]]:
        """Return the same of probabilities with a temperature."""
        return ()

    def metrics(self, reading: str) -> Metrics:
        """Return the metrics of a reading; those of the images alone have the loss, too."""
        found = dict(self.readings[reading].estimate.overall)
        return {**found, "loss": self.loss} if reading == "without_tta" else found

    def as_dict(self) -> dict[str, Any]:
        """Return what `metrics.json` holds of it."""
        content: dict[str, Any] = {
            "partial": None if self.partial is None else asdict(self.partial),
            "positive": self.positive,
            "without_tta": self.metrics("without_tta"),
            "with_tta": self.metrics("with_tta") if "with_tta" in self.readings else None,
            **self._published(),
            "absent_classes": self.absent,
            "warnings": list(self.warnings),
        }
        if self.settings.resamples:
            content["intervals"] = {
                "method": self.method if self.groups is None else f"{self.method}; whole groups are drawn",
                "groups": self.groups,
                "methods": dict(self.best.estimate.methods),
                "resamples": self.settings.resamples,
                "confidence": self.settings.confidence,
                **{name: dict(reading.estimate.intervals) for name, reading in self.readings.items()},
            }
        if self.subgroups is not None:
            content["subgroups"] = self.subgroups.as_dict(self.spec.classes)
        content["per_class"] = {name: self._per_class(reading) for name, reading in self.readings.items()}
        return content

    def _published(self) -> dict[str, Any]:
        """Return numbers as others define them, by name of their section in `metrics.json`."""
        return {}

    def _per_class(self, reading: Reading) -> dict[str, dict[str, Any]]:
        found = reading.estimate
        return {
            label: {
                "cases": self.support[k],
                **{name: values[k] for name, values in found.per_class.items()},
                "intervals": {
                    name: ends[k]
                    for name, ends in found.class_intervals.items()
                    if found.per_class[name][k] is not None  # null where there are too few cases
                },
            }
            for k, label in enumerate(self.spec.classes)
        }


@dataclass(frozen=True, kw_only=True)
class Evaluation(SplitEvaluation):
    """The numbers of one split whose images have classes or labels: (N,), or (N, K) 0/1.

    Attributes:
        readings: `without_tta`, and with test-time augmentation `with_tta`.
        calibration: What the validation split says; None if it was not asked.
        columns: What else is said of each image, by name: `set`, `abstain`, `ood_score`, … as far as they are known.
        ood: How `ood_score` was made, and its threshold; None without a score.
    """

    readings: Mapping[str, ViewMetrics]
    calibration: Calibration | None
    columns: Mapping[str, Array] = field(default_factory=dict)
    ood: Mapping[str, Any] | None = None

    method: ClassVar[str] = "by metric, see methods; resamples are stratified by class"
    drawn: ClassVar[str] = ", class by class"

    @property
    def best(self) -> ViewMetrics:
        """Return the reading that predictions follow: with test-time augmentation if it is on."""
        return self.readings[self.best_name]

    @property
    def predicted(self) -> npt.NDArray[np.int64]:
        """Return (N,) predicted classes, or (N, K) labels at the thresholds of the validation split, else at 0.5."""
        return predicted_labels(self.best.probabilities, self.spec.task, self.best.thresholds)

    @property
    def said(self) -> BatchPrediction:
        """Return what the network says of the images, as tables show it."""
        plain, averaged = self.readings["without_tta"], self.readings.get("with_tta")
        raw_tta = None if averaged is None else averaged.probabilities
        return BatchPrediction(self.best.shown, self.predicted, plain.probabilities, raw_tta, self.columns)

    @cached_property
    def risk(self) -> RiskCoverage | None:
        """Return the risk at every coverage, the surest images first; None where an image may have several labels."""
        if not self.task.abstains:
            return None
        return risk_coverage(self.task.confidence(self.best.shown, self.predicted), self.predicted == self.labels)

    @property
    def reading_notes(self) -> Sequence[str]:
        """Return at which thresholds labels are predicted."""
        if self.best.thresholds is None:
            return ()
        return ("Labels are predicted at the thresholds of the validation split; metrics without “tuned” at 0.5.",)

    @property
    def warnings(self) -> Sequence[str]:
        """Return whether all is one class, which a good average hides, and where subgroups are too far apart."""
        same = only_answer(self.spec.classes, self.predicted, self.labels)
        hidden = hidden_classes(self.spec.classes, self.support, self.best.estimate, self.positive)
        return [*same, *hidden, *(() if self.subgroups is None else self.subgroups.warnings(self.positive))]

    @property
    def further(self) -> Sequence[tuple[str, Mapping[str, float | None]]]:
        """Return accuracy and AUC as MedMNIST has them."""
        labels = labels_of_metrics()
        return [
            (f"{labels[name]}, as MedMNIST defines it", {key: r.medmnist[name] for key, r in self.readings.items()})
            for name in ("accuracy", "auc")
        ]

    @property
    def tempered(self) -> Sequence[tuple[str, Mapping[str, float | None]]]:
        """Return the metrics of probabilities, with the temperature of the validation split."""
        labels = labels_of_metrics()
        return [
            (
                f"{labels[name]}, with temperature",
                {key: None if r.after is None else r.after[name] for key, r in self.readings.items()},
            )
            for name in of_probabilities(self.spec.task)
        ]

    def as_dict(self) -> dict[str, Any]:
        """Return what `metrics.json` holds of it."""
        content = super().as_dict()
        content["calibration"] = self._calibration()
        content["abstention"] = self.abstention()
        for name, reading in self.readings.items():
            if reading.thresholds is not None:
                key = "thresholds" if name == "without_tta" else "thresholds_tta"
                content[key] = dict(zip(self.spec.classes, reading.thresholds.tolist(), strict=True))
        return content

    def abstention(self) -> dict[str, Any] | None:
        """Return what is known of images of which the network should say nothing; None of several labels."""
        if self.risk is None:
            return None
        calibration = self.calibration
        with_views = self.best_name == "with_tta"
        sets = None if calibration is None else calibration.sets_tta if with_views else calibration.sets
        found: dict[str, Any] = {"selective": selective_numbers(self.risk), "sets": None, "ood": None}
        if sets is not None and "set" in self.columns:
            asked = {"method": sets.method, "asked": sets.coverage, "validation_images": sets.images}
            found["sets"] = asked | sets_numbers(
                self.columns["set"],
                self.labels,
                self.spec.classes,
                None if self.clusters is None else self.clusters.codes,
            )
        found["abstained"] = abstaining_numbers(self.columns, self.predicted == self.labels)
        if self.ood is not None and self.ood["threshold"] is not None:
            beyond = float((self.columns["ood_score"] > self.ood["threshold"]).mean())
            found["ood"] = {**self.ood, "beyond": beyond}
        return found

    def _published(self) -> dict[str, Any]:
        return {"medmnist": {name: reading.medmnist for name, reading in self.readings.items()}}

    def _calibration(self) -> dict[str, Any] | None:
        if self.calibration is None:
            return None
        return {
            "validation_images": self.calibration.images,
            "temperature": self.calibration.temperature,
            "temperature_tta": self.calibration.temperature_tta,
            **{
                name: {
                    "before": {key: reading.estimate.overall[key] for key in of_probabilities(self.spec.task)},
                    "after": reading.after,
                }
                for name, reading in self.readings.items()
            },
        }


def evaluate(
    predictions: Predictions,
    spec: TaskSpec,
    split: str,
    settings: EvaluationSettings,
    partial: Partial | None = None,
    clusters: Clusters | None = None,
) -> Evaluation:
    """Compute all numbers of a split whose images have classes or labels.

    Args:
        predictions: What the network said.
        spec: The task.
        split: Name of the split.
        settings: How intervals are computed.
        partial: How much of the split was evaluated; None is all of it.
        clusters: Groups of images that belong together, such as those of a patient; None: each stands for itself.
    """
    labels, calibration = predictions.labels.cpu().numpy(), predictions.calibration
    given = {"without_tta": _plain(predictions.probabilities)}
    temperatures = {"without_tta": None if calibration is None else calibration.temperature}
    thresholds = {"without_tta": None if predictions.thresholds is None else predictions.thresholds.numpy()}
    if predictions.probabilities_tta is not None:
        given["with_tta"] = _plain(predictions.probabilities_tta)
        temperatures["with_tta"] = None if calibration is None else calibration.temperature_tta
        own = None if calibration is None else calibration.thresholds_tta
        thresholds["with_tta"] = thresholds["without_tta"] if not own else np.array(own, dtype=np.float32)
    folds = None if predictions.folds is None else predictions.folds.numpy()
    scorers = [
        Scorer(p.numpy(), labels, spec.task, thresholds[name], spec.positive_index, clusters=clusters, folds=folds)
        for name, p in given.items()
    ]
    estimates = estimate(scorers, settings.resamples, settings.confidence)
    readings = {}
    for (name, probabilities), found in zip(given.items(), estimates, strict=True):
        calibrated = after = None
        if (temperature := temperatures[name]) is not None:
            calibrated = scale(probabilities, temperature, spec.task).numpy()
            raw = probabilities.numpy()
            (scaled,) = estimate([Scorer(calibrated, labels, spec.task, None, spec.positive_index, raw)], resamples=0)
            after = {key: scaled.overall[key] for key in of_probabilities(spec.task)}
        medmnist = medmnist_metrics(probabilities.numpy(), labels, spec.task)
        readings[name] = ViewMetrics(found, probabilities.numpy(), calibrated, thresholds[name], after, medmnist)
    columns: dict[str, torch.Tensor] = {}
    if calibration is not None and spec.kind.abstains:
        best = "with_tta" if "with_tta" in readings else "without_tta"
        predicted = torch.from_numpy(predicted_labels(readings[best].probabilities, spec.task))
        columns = calibration.columns(torch.from_numpy(readings[best].shown), predicted, best == "with_tta")
    columns |= predictions.columns
    return Evaluation(
        spec=spec,
        split=split,
        labels=labels,
        readings=readings,
        calibration=calibration,
        loss=predictions.loss,
        settings=settings,
        partial=partial,
        columns=_further(columns, predictions.ood),
        ood=predictions.ood,
        clusters=clusters,
    )


def _further(columns: Mapping[str, torch.Tensor], ood: Mapping[str, Any] | None) -> dict[str, npt.NDArray[Any]]:
    """Return what else is said of each image, and which are beyond the threshold of `ood_score`."""
    found: dict[str, npt.NDArray[Any]] = {}
    for name, each in columns.items():
        threshold = None if ood is None else ood["threshold"]
        found |= distance_columns(each.numpy(), threshold) if name == OOD_SCORE else {name: each.numpy()}
    return found


def _plain(probabilities: torch.Tensor) -> torch.Tensor:
    """Return probabilities as NumPy can hold them, whatever precision the network has."""
    return probabilities.detach().to("cpu", torch.float32)
