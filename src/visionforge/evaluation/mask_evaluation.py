"""All numbers of an evaluated split of masks: overlap and boundaries, over all pixels and by picture."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from visionforge.config.schema import EvaluationSettings
from visionforge.config.schema.metrics import metrics_of
from visionforge.config.schema.task import IGNORED
from visionforge.data.info import TaskSpec
from visionforge.evaluation.bootstrap import estimate
from visionforge.evaluation.evaluation import Partial, Reading, SplitEvaluation
from visionforge.evaluation.scores import PictureScorer
from visionforge.inference.mask_predictor import MaskPrediction
from visionforge.scoring.clusters import Clusters
from visionforge.scoring.masks import Counts, confusion
from visionforge.scoring.rates import Floats
from visionforge.training.mask_outputs import MaskPredictions, MaskView, background_of, cases_of

Masks = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class MaskReading(Reading):
    """A reading of masks.

    Attributes:
        estimate: Metrics and their intervals.
        masks: (N, H, W) the predicted classes.
        sure: (N,) mean probability of the predicted class over the pixels.
        true: (N, K) true pixels of each picture and class.
        said: (N, K) predicted ones.
        dice: (N,) mean Dice of each picture over the classes but the background; NaN if it has none.
    """

    masks: Masks
    sure: npt.NDArray[np.float32]
    true: Counts
    said: Counts
    dice: Floats


@dataclass(frozen=True, kw_only=True)
class MaskEvaluation(SplitEvaluation):
    """The numbers of one split of masks (N, H, W)."""

    readings: Mapping[str, MaskReading]

    method: ClassVar[str] = "bootstrap of pictures, bias-corrected percentiles"
    drawn: ClassVar[str] = ", each drawn with all of its pixels"

    @property
    def best(self) -> MaskReading:
        """Return the reading that predictions follow: with test-time augmentation if it is on."""
        return self.readings[self.best_name]

    @property
    def confusion(self) -> Counts:
        """Return (K, K) pixels by true and by predicted class."""
        return confusion(self.labels, self.best.masks, len(self.spec.classes), IGNORED)

    @property
    def background(self) -> int | None:
        """Return the number of the class that is in no mean; None if there is none."""
        return background_of(self.spec)

    @property
    def absent(self) -> list[str]:
        """Return the classes that are neither in truth nor in a prediction; they are in no average."""
        each = [reading.estimate.per_class["dice"] for reading in self.readings.values()]
        return [name for k, name in enumerate(self.spec.classes) if all(values[k] is None for values in each)]

    @property
    def said(self) -> MaskPrediction:
        """Return what the network says of the images, as tables show it."""
        return MaskPrediction(self.best.masks, self.best.sure, averaged="with_tta" in self.readings)

    @property
    def reading_notes(self) -> Sequence[str]:
        """Return what Dice is of, and which class is in no mean."""
        notes = [
            "Dice and IoU are of the pixels of all images together; those “by picture” are means over the images that "
            "have a class, in which small objects count as much as large ones."
        ]
        if self.background is not None:
            notes.append(f"The class {self.spec.classes[self.background]} is in no mean over the classes.")
        return notes

    def as_dict(self) -> dict[str, Any]:
        """Return what `metrics.json` holds of it."""
        content = super().as_dict()
        content["background"] = None if self.background is None else self.spec.classes[self.background]
        return content


def evaluate_masks(
    predictions: MaskPredictions,
    spec: TaskSpec,
    split: str,
    settings: EvaluationSettings,
    partial: Partial | None = None,
    clusters: Clusters | None = None,
) -> MaskEvaluation:
    """Compute all numbers of a split of masks.

    Args:
        predictions: What the network said.
        spec: The task.
        split: Name of the split.
        settings: How intervals are computed.
        partial: How much of the split was evaluated; None is all of it.
        clusters: Groups of images that belong together, such as those of a patient; None: each stands for itself.
    """
    labels = predictions.labels.numpy()
    given: dict[str, MaskView] = {"without_tta": predictions.alone}
    if predictions.with_views is not None:
        given["with_tta"] = predictions.with_views
    cases = [cases_of(labels, view.masks.numpy(), spec) for view in given.values()]
    asked = metrics_of(spec.task)
    scorers = [PictureScorer(each, asked, clusters) for each in cases]
    estimates = estimate(scorers, settings.resamples, settings.confidence)
    readings = {
        name: MaskReading(found, each.predicted, view.sure.numpy(), *each.sizes[1:], each.dice)
        for (name, view), each, found in zip(given.items(), cases, estimates, strict=True)
    }
    return MaskEvaluation(
        spec=spec,
        split=split,
        labels=labels,
        readings=readings,
        loss=predictions.loss,
        settings=settings,
        partial=partial,
        clusters=clusters,
    )
