"""All numbers of an evaluated split of boxes: average precision and recall, and F1 of each picture."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from visionforge.config.schema import EvaluationSettings
from visionforge.config.schema.metrics import metrics_of
from visionforge.data.info import TaskSpec
from visionforge.evaluation.bootstrap import estimate
from visionforge.evaluation.evaluation import Partial, Reading, SplitEvaluation
from visionforge.evaluation.scores import PictureScorer
from visionforge.inference.box_predictor import BoxPrediction
from visionforge.scoring.box_cases import SCORE_THRESHOLD, BoxCases
from visionforge.scoring.clusters import Clusters
from visionforge.training.box_outputs import BoxPredictions, cases_of


@dataclass(frozen=True)
class BoxReading(Reading):
    """A reading of boxes.

    Attributes:
        estimate: Metrics and their intervals.
        cases: The boxes, which of them are right, and F1 of each picture.
    """

    cases: BoxCases


@dataclass(frozen=True, kw_only=True)
class BoxEvaluation(SplitEvaluation):
    """The numbers of one split of boxes (N, M, 5)."""

    readings: Mapping[str, BoxReading]

    method: ClassVar[str] = "bootstrap of pictures, bias-corrected percentiles"
    drawn: ClassVar[str] = ", each drawn with all of its boxes"

    @property
    def best(self) -> BoxReading:
        """Return the reading that predictions follow: with test-time augmentation if it is on."""
        return self.readings[self.best_name]

    @property
    def said(self) -> BoxPrediction:
        """Return what the network says of the images, as tables show it."""
        return BoxPrediction(self.best.cases.predicted, self.best_name == "with_tta")

    @property
    def support(self) -> list[int]:
        """Return the number of true boxes of each class."""
        kinds = self.labels[..., 0]
        counts = np.bincount(kinds[kinds >= 0].astype(np.int64), minlength=len(self.spec.classes))
        return [int(count) for count in counts]

    @property
    def reading_notes(self) -> Sequence[str]:
        """Return what average precision is, and which boxes count elsewhere."""
        return [
            "mAP is COCO's: the mean over the classes and over the IoUs 0.50, 0.55, …, 0.95 of the average precision. "
            f"Precision, recall and F1 are of the boxes with a score of at least {SCORE_THRESHOLD}, at IoU 0.5."
        ]


def evaluate_boxes(
    predictions: BoxPredictions,
    spec: TaskSpec,
    split: str,
    settings: EvaluationSettings,
    partial: Partial | None = None,
    clusters: Clusters | None = None,
) -> BoxEvaluation:
    """Compute all numbers of a split of boxes.

    Args:
        predictions: What the network said.
        spec: The task.
        split: Name of the split.
        settings: How intervals are computed.
        partial: How much of the split was evaluated; None is all of it.
        clusters: Groups of images that belong together, such as those of a patient; None: each stands for itself.
    """
    given = {"without_tta": predictions.alone}
    if predictions.with_views is not None:
        given["with_tta"] = predictions.with_views
    cases = [cases_of(predictions.labels, said, spec) for said in given.values()]
    asked = metrics_of(spec.task)
    scorers = [PictureScorer(each, asked, clusters) for each in cases]
    estimates = estimate(scorers, settings.resamples, settings.confidence)
    readings = {name: BoxReading(found, each) for name, each, found in zip(given, cases, estimates, strict=True)}
    return BoxEvaluation(
        spec=spec,
        split=split,
        labels=predictions.labels.numpy(),
        readings=readings,
        loss=predictions.loss,
        settings=settings,
        partial=partial,
        clusters=clusters,
    )
