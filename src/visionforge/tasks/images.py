"""What tasks have in common that say something of whole images: classes, or labels that do not exclude each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from visionforge.config.schema.task import Task

if TYPE_CHECKING:
    import numpy.typing as npt
    from torch import Tensor

    from visionforge.evaluation.evaluation import Evaluation
    from visionforge.evaluation.scores import Scorer
    from visionforge.inference.agreement import Agreement
    from visionforge.inference.predictor import BatchPrediction, NetworkPredictor
    from visionforge.models.parts import BuiltNetwork
    from visionforge.reporting.class_presentation import ClassPresentation
    from visionforge.training.criterion import Criterion
    from visionforge.training.split_outputs import ClassOutputs

    Array = npt.NDArray[Any]


class ImageTask(Task):
    """A backbone with a classifier, whose probabilities (N, K) are calibrated, tabled and drawn."""

    def image_labels(self, labels: Array, classes: int) -> Array:
        """Return the labels."""
        return labels

    def network(
        self, settings: Any, spec: Any, outputs: int, pretrained: bool | None, brought: Any = None
    ) -> BuiltNetwork:
        """Return the backbone with a classifier."""
        from visionforge.models.parts import classifying_network

        form = spec.channels, outputs, spec.network_resolution, spec.spatial_dims
        return classifying_network(settings.backbone, *form, pretrained, brought)

    def criterion(self, loss: Any, classes: int, weights: Tensor | None = None) -> Criterion:
        """Return the loss of target distributions."""
        from visionforge.training.criterion import Criterion

        return Criterion.of(loss, self.name, classes, weights)

    def outputs(self) -> ClassOutputs:
        """Return what keeps logits."""
        from visionforge.training.split_outputs import ClassOutputs

        return ClassOutputs()

    def agreement(self, one: BatchPrediction, other: BatchPrediction, spec: Any) -> Agreement:
        """Return how far probabilities are apart, and which images are labelled the same."""
        from visionforge.inference.agreement import of_probabilities

        return of_probabilities(one, other)

    def merged(self, names: Sequence[str], each: Tensor, weight: float | None, resolution: int) -> Tensor:
        """Return the mean over the views."""
        from visionforge.training.tta import average_views

        return average_views(each, weight)

    def tried(self, labels: Array, spec: Any) -> Any:
        """Return cases with random probabilities."""
        import numpy as np
        import torch

        from visionforge.scoring.cases import Cases, Weighted

        count = len(spec.classes)
        drawn = torch.from_numpy(np.random.default_rng(0).normal(size=(len(labels), count)).astype(np.float32))
        given = self.probabilities(drawn).numpy()
        cases = Cases(given, labels, self.name, np.full(count, 0.5), spec.positive_index)
        return Weighted(cases, np.ones((len(labels), 1)))

    def predictor(self, model: Any, tta: bool | None = None, keep: bool = False) -> NetworkPredictor:
        """Return what gives probabilities of images, which are kept in any case."""
        from visionforge.inference.predictor import NetworkPredictor

        return NetworkPredictor(model, tta)

    def answer(self, outputs: Array, contract: Any) -> BatchPrediction:
        """Return probabilities, and decisions: these are made of what they were before the calibration."""
        import numpy as np

        from visionforge.inference.predictions import BatchPrediction
        from visionforge.scoring.decisions import predicted_labels

        raw = outputs.astype(np.float64)
        if contract.temperature is not None:
            raw = self.rescaled(raw, 1 / contract.temperature)
        thresholds = None if contract.thresholds is None else np.array(contract.thresholds)
        return BatchPrediction(outputs, predicted_labels(raw, self.name, thresholds))

    def rescaled(self, probabilities: Array, temperature: float) -> Array:
        """Return probabilities whose logits are divided by a temperature, as `training.calibration.scale` does.

        Tasks that can do so without torch do.

        Args:
            probabilities: (N, K) float64.
            temperature: Above 1 makes them less sure.
        """
        import torch

        from visionforge.training.calibration import scale

        return scale(torch.from_numpy(probabilities), temperature, self.name).numpy()

    def scored(self, probabilities: Array, labels: Array, spec: Any) -> dict[str, float | None]:
        """Return all metrics of classes or labels."""
        from visionforge.evaluation.metrics import classification_metrics

        return classification_metrics(probabilities, labels, self.name)

    def evaluate(
        self, predictions: Any, spec: Any, split: str, settings: Any, partial: Any = None, clusters: Any = None
    ) -> Evaluation:
        """Return metrics of probabilities and decisions."""
        from visionforge.evaluation.evaluation import evaluate

        return evaluate(predictions, spec, split, settings, partial, clusters)

    def table_scorer(self, path: Any, tta: bool, positive: int, classes: Sequence[str]) -> Scorer | None:
        """Return what scores raw probabilities."""
        from visionforge.evaluation.predictions import scorer_of

        return scorer_of(path, self.name, tta, positive)

    def write_predictions(
        self, folder: Any, spec: Any, said: Any, truth: Array | None, side: Any, files: bool = False
    ) -> None:
        """Write a row per image with the probability of each class."""
        from visionforge.evaluation.predictions import write_predictions

        write_predictions(folder.predictions, spec, said, truth, side)

    def present(self, evaluation: Any, images: Any, background: Any, explainer: Any = None) -> ClassPresentation:
        """Return decisions, curves, calibration and images."""
        from visionforge.reporting.class_presentation import ClassPresentation

        return ClassPresentation(evaluation, images, background, explainer)
