"""Masks: every pixel of an image is of one class. What tasks of that form have in common."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from visionforge.config.schema.task import IGNORED, Task
from visionforge.errors import DataError

if TYPE_CHECKING:  # NumPy, too, which light commands do without
    import numpy as np
    import numpy.typing as npt
    from torch import Tensor

    from visionforge.evaluation.mask_evaluation import MaskEvaluation
    from visionforge.evaluation.scores import PictureScorer
    from visionforge.inference.agreement import Agreement
    from visionforge.inference.mask_predictor import MaskPrediction, MaskPredictor
    from visionforge.models.parts import BuiltNetwork
    from visionforge.reporting.mask_presentation import MaskPresentation
    from visionforge.training.mask_criterion import MaskCriterion
    from visionforge.training.mask_outputs import MaskOutputs

    Array = npt.NDArray[Any]


class MaskTask(Task):
    """Masks (N, R, R) uint8, of which 255 marks pixels that do not count; outputs a softmax over K logits per pixel.

    A class that is called ``background`` is in no mean over the classes.
    """

    forms: ClassVar[tuple[str, ...]] = ("masks",)
    most_classes: ClassVar[int | None] = IGNORED
    spatial_dims: ClassVar[tuple[int, ...]] = (2,)
    default_loss: ClassVar[str] = "combined"
    headlines: ClassVar[tuple[str, ...]] = ("mean_dice", "mean_iou", "pixel_accuracy", "mean_boundary_f1")
    monitor: ClassVar[str] = "val/mean_dice"
    maps_labels: ClassVar[bool] = True
    dense: ClassVar[bool] = True
    explains: ClassVar[bool] = False
    calibrates: ClassVar[bool] = False
    decodes: ClassVar[bool] = True
    located: ClassVar[bool] = True
    dropout: ClassVar[str | None] = "model.decoder.dropout"

    # --- labels

    def label_shapes(self, images: int, classes: int, sides: tuple[int, ...] = ()) -> list[tuple[int | None, ...]]:
        """Return (N, R, R)."""
        return [(images, *sides)]

    def highest_label(self, classes: int) -> int:
        """Return the number of the last class; 255 is allowed beside it."""
        return classes - 1

    def label_problem(self, labels: Array, images: int, classes: int, sides: tuple[int, ...]) -> str | None:
        """Return a line about a pixel that is of no class, about too many classes, or about masks without any."""
        import numpy as np

        if not labels.size:
            return "holds no masks"
        if classes > IGNORED:
            return f"{classes} classes; allowed of masks: at most {IGNORED}"
        found, beyond = _counted(labels), _beyond(labels)
        within = np.flatnonzero(found).tolist()
        wrong = {value: int(found[value]) for value in within if value >= classes and value != IGNORED} | beyond
        if wrong:
            return (
                f"{sum(wrong.values()):,} pixels of no class ({', '.join(map(str, list(wrong)[:5]))}); allowed: 0 to "
                f"{classes - 1}, and {IGNORED}, which does not count"
            )
        return "no pixel counts" if found[:IGNORED].sum() == 0 else None

    def stored(self, labels: Array, images: int) -> Array:
        """Return (N, R, R) uint8."""
        import numpy as np

        return labels if labels.dtype == np.uint8 else labels.astype(np.uint8)

    def image_labels(self, labels: Array, classes: int) -> Array:
        """Return (N, K) uint8 0/1, whether a class has a pixel."""
        import numpy as np

        found = np.zeros((len(labels), classes), np.uint8)
        for index, mask in enumerate(labels):
            found[index] = np.bincount(np.asarray(mask).ravel(), minlength=IGNORED + 1)[:classes] > 0
        return found

    def undefined_reason(self, labels: Array, names: Sequence[str]) -> str | None:
        """Return whether all pixels are background."""
        present, background = self.counts(labels, len(names)), self.background(names)
        found = any(count for k, count in enumerate(present.tolist()) if k != background)
        return None if found else "all of its pixels are background"

    def background(self, names: Sequence[str]) -> int | None:
        """Return the number of the class that is in no mean; None if there is none."""
        return next((index for index, name in enumerate(names) if name.lower() == "background"), None)

    def counts(self, labels: Array, classes: int) -> npt.NDArray[np.int64]:
        """Return (K,) images that have a pixel of each class."""
        import numpy as np

        return np.asarray(self.image_labels(labels, classes).sum(axis=0, dtype=np.int64))

    def weighed_counts(self, labels: Array, classes: int) -> tuple[npt.NDArray[np.int64], int]:
        """Return (K,) pixels of each class, and of all."""
        counts = _counted(labels)[:classes]
        return counts, int(counts.sum())

    def drawn_classes(self, classes: int) -> tuple[str, ...]:
        """Return the background and kinds of shapes."""
        from visionforge.data.shapes import shape_names

        return ("background", *shape_names(classes - 1))

    def drawn_flags(self) -> dict[str, Any]:
        """Return that shapes may be mirrored, but stand upright."""
        flips = {"hflip": True, "vflip": False}
        return {**flips, "rotation": "small", "texture_is_label": False, "colour_is_label": False}

    def scene(
        self, generator: np.random.Generator, images: int, classes: int, resolution: int, channels: int
    ) -> tuple[npt.NDArray[np.uint8], Array] | None:
        """Return images of shapes, and their masks."""
        from visionforge.data.shapes import render_shapes

        found = render_shapes(generator, images, classes - 1, resolution, channels)
        return found.images, found.masks

    # --- training

    def batch_labels(self, labels: Tensor, images: int, classes: tuple[str, ...]) -> Tensor:
        """Return (N, R, R) int64 of integers."""
        if labels.ndim != 3 or labels.is_floating_point() or labels.is_complex():
            found = f"{tuple(labels.shape)} of {labels.dtype}"
            raise DataError(f"labels: {found}; allowed for {self.name} data: integers (N, R, R), a mask of each image")
        return labels.long()

    def value_problem(self, labels: Tensor, classes: tuple[str, ...]) -> str | None:
        """Return a line about a pixel of no class."""
        wrong = (labels.long() != IGNORED) & ((labels < 0) | (labels.long() >= len(classes)))
        if not bool(wrong.any()):
            return None
        value = labels[wrong][0].item()
        return (
            f"labels: {value} is no class; allowed: 0 to {len(classes) - 1} ({', '.join(classes[:20])}), and "
            f"{IGNORED}, which does not count"
        )

    def moved(self, labels: Tensor, draw: Any, size: tuple[int, int]) -> Tensor:
        """Return masks that have moved with their images; what comes from outside of an image does not count."""
        from visionforge.data.move_labels import move_masks

        return move_masks(labels, draw, IGNORED)

    def network(
        self, settings: Any, spec: Any, outputs: int, pretrained: bool | None, brought: Any = None
    ) -> BuiltNetwork:
        """Return the backbone with a decoder."""
        from visionforge.models.parts import decoding_network

        form = spec.channels, outputs, spec.resolution, spec.spatial_dims
        return decoding_network(settings.backbone, settings.decoder, *form, pretrained, brought)

    def criterion(self, loss: Any, classes: int, weights: Tensor | None = None) -> MaskCriterion:
        """Return the loss of masks."""
        from visionforge.training.mask_criterion import MaskCriterion

        return MaskCriterion.of(loss, self.name, classes, weights)

    def outputs(self) -> MaskOutputs:
        """Return what keeps masks."""
        from visionforge.training.mask_outputs import MaskOutputs

        return MaskOutputs()

    def targets(self, labels: Tensor, classes: int) -> Tensor:
        """Return (N, K, R, R) float32 shares; a pixel that does not count has none."""
        import torch

        each = torch.arange(classes, device=labels.device).view(1, -1, 1, 1)
        return (labels[:, None] == each).float()

    def class_weights(self, counts: Tensor, images: int, beta: float | None) -> Tensor:
        """Balance pixels as scikit-learn does cases, N / (K·n); or by (1-β)/(1-βⁿ), scaled to the mean 1."""
        import torch

        seen = counts > 0
        rarity = 1 / counts if beta is None else (1 - beta) / (1 - beta**counts)
        scale = counts.sum() / len(counts) if beta is None else seen.sum() / rarity[seen].sum()
        return torch.where(seen, rarity * scale, 1.0)

    # --- predictions

    def merged(self, names: Sequence[str], each: Tensor, weight: float | None, resolution: int) -> Tensor:
        """Return the mean over the views, each turned back to the image."""
        import torch

        from visionforge.training.tta import average_views, undo_view

        turned = torch.stack([undo_view(name, view) for name, view in zip(names, each, strict=True)])
        return average_views(turned, weight)

    def probabilities(self, logits: Tensor) -> Tensor:
        """Return the softmax over the classes of each pixel."""
        return logits.softmax(dim=1)

    def logits(self, probabilities: Tensor) -> Tensor:
        """Return the logarithms, from which the softmax makes the same probabilities."""
        return probabilities.clamp(min=1e-38).log()

    def decide(self, probabilities: Any, thresholds: Any = None) -> Any:
        """Return (N, R, R) the most probable class of each pixel."""
        return probabilities.argmax(axis=1)

    def hits(self, probabilities: Tensor, targets: Tensor) -> Tensor:
        """Return the mean target share of the predicted classes, over the pixels that count."""
        predicted: Tensor = self.decide(probabilities)
        if targets.ndim == 3:
            counted = targets != IGNORED
            return ((predicted == targets) & counted).sum() / counted.sum().clamp(min=1)
        return targets.gather(1, predicted[:, None]).sum() / targets.sum().clamp(min=1e-6)

    def tried(self, labels: Array, spec: Any) -> Any:
        """Return cases that are predicted as they are."""
        import numpy as np

        from visionforge.scoring.mask_cases import WeightedMaskCases
        from visionforge.training.mask_outputs import cases_of

        masks = np.asarray(labels)
        said = np.where(masks == IGNORED, 0, masks)
        return WeightedMaskCases(cases_of(masks, said, spec), np.ones((len(masks), 1)))

    def predictor(self, model: Any, tta: bool | None = None, keep: bool = False) -> MaskPredictor:
        """Return what gives masks of images."""
        from visionforge.inference.mask_predictor import MaskPredictor

        return MaskPredictor(model, tta, keep)

    def answer(self, outputs: Array, contract: Any) -> MaskPrediction:
        """Return the most probable class of each pixel."""
        import torch

        from visionforge.inference.mask_predictor import MaskPrediction

        return MaskPrediction.of_probabilities(torch.from_numpy(outputs), keep=True, averaged=len(contract.views) > 1)

    def agreement(self, one: MaskPrediction, other: MaskPrediction, spec: Any) -> Agreement:
        """Return how far probabilities are apart, and which share of the pixels is of the same class."""
        from visionforge.inference.agreement import of_probabilities

        return of_probabilities(one, other, pixels=True)

    @property
    def output_meaning(self) -> str:
        """Return what the numbers of an export say."""
        return f"probability of each {self.nouns[0]} at each pixel"

    def output_shape(self, spec: Any, settings: Any) -> tuple[int, ...]:
        """Return (K, R, R)."""
        return (len(spec.classes), spec.resolution, spec.resolution)

    def scored(self, probabilities: Array, labels: Array, spec: Any) -> dict[str, float | None]:
        """Return Dice, IoU and accuracy of the pixels."""
        from visionforge.evaluation.segmentation import segmentation_metrics

        background = self.background(spec.classes)
        said = probabilities.argmax(axis=1)
        return dict(segmentation_metrics(labels, said, len(spec.classes), ignore=IGNORED, background=background))

    # --- results

    def evaluate(
        self, predictions: Any, spec: Any, split: str, settings: Any, partial: Any = None, clusters: Any = None
    ) -> MaskEvaluation:
        """Return Dice, IoU and boundaries, with intervals by picture."""
        from visionforge.evaluation.mask_evaluation import evaluate_masks

        return evaluate_masks(predictions, spec, split, settings, partial, clusters)

    def table_scorer(self, path: Any, tta: bool, positive: int, classes: Sequence[str]) -> PictureScorer | None:
        """Return what scores the pixels that a table counts."""
        from visionforge.evaluation.mask_files import mask_table_scorer

        return mask_table_scorer(path, tta, self.background(classes), self.name, len(classes))

    def write_predictions(
        self, folder: Any, spec: Any, said: Any, truth: Array | None, side: Any, files: bool = False
    ) -> None:
        """Write a row per image; as files the masks as PNG."""
        from visionforge.evaluation.mask_files import write_mask_table

        write_mask_table(folder, spec, said, truth, side, files)

    def present(self, evaluation: Any, images: Any, background: Any, explainer: Any = None) -> MaskPresentation:
        """Return overlays, and the numbers of each class."""
        from visionforge.reporting.mask_presentation import MaskPresentation

        return MaskPresentation(evaluation, images, background)


def _counted(labels: Array) -> npt.NDArray[np.int64]:
    """Return (256,) how often each value from 0 to 255 occurs, of masks that may lie in a file."""
    import numpy as np

    found = np.zeros(IGNORED + 1, np.int64)
    for mask in labels:
        values = np.asarray(mask).ravel()
        if values.dtype != np.uint8:
            values = values[(values >= 0) & (values <= IGNORED)].astype(np.uint8)
        found += np.bincount(values, minlength=IGNORED + 1)
    return found


def _beyond(labels: Array) -> dict[int, int]:
    """Return how often values occur that are below 0 or above 255: one of each mask for all of its."""
    import numpy as np

    found: dict[int, int] = {}
    for mask in labels if labels.dtype != np.uint8 else ():
        values = np.asarray(mask).ravel()
        wrong = values[(values < 0) | (values > IGNORED)]
        if wrong.size:
            found[int(wrong[0])] = found.get(int(wrong[0]), 0) + wrong.size
    return found
