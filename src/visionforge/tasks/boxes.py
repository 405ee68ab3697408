"""Boxes: in an image there are objects, each of a class and within a box. What tasks of that form have in common."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from visionforge.config.schema.task import Task
from visionforge.errors import DataError, RunError, SettingsError

if TYPE_CHECKING:  # NumPy, too, which light commands do without
    import numpy as np
    import numpy.typing as npt
    from torch import Tensor

    from visionforge.evaluation.box_evaluation import BoxEvaluation
    from visionforge.evaluation.scores import PictureScorer
    from visionforge.inference.agreement import Agreement
    from visionforge.inference.box_predictor import BoxPrediction, BoxPredictor
    from visionforge.models.parts import BuiltNetwork
    from visionforge.reporting.box_presentation import BoxPresentation
    from visionforge.training.box_criterion import BoxCriterion
    from visionforge.training.box_outputs import BoxOutputs

    Array = npt.NDArray[Any]

ROW = "[class, x1, y1, x2, y2]"
MOST_CLASSES = 4096  # each has a row in every table of results
MOST_PADDED = 1 << 30  # numbers in memory, 4 GB: every image takes as many rows as the one with the most boxes


class BoxTask(Task):
    """Boxes (N, M, 5) float32, rows of class, x1, y1, x2, y2 in pixels; the network gives boxes with scores (N, D, 6).

    The pixel in row r and column c reaches from (c, r) to (c + 1, r + 1). There is no class for the background. Rows of
    the class -1 fill up what other images have more.
    """

    forms: ClassVar[tuple[str, ...]] = ("boxes",)
    least_classes: ClassVar[int] = 1
    most_classes: ClassVar[int | None] = MOST_CLASSES
    spatial_dims: ClassVar[tuple[int, ...]] = (2,)
    default_loss: ClassVar[str] = "detector"
    headlines: ClassVar[tuple[str, ...]] = ("map", "map_50", "map_75", "mar_100")
    monitor: ClassVar[str] = "val/map"
    label_types: ClassVar[str] = "iuf"
    calibrates: ClassVar[bool] = False
    explains: ClassVar[bool] = False
    detects: ClassVar[bool] = True
    located: ClassVar[bool] = True
    export_formats: ClassVar[tuple[str, ...]] = ("onnx", "safetensors")  # a program would need an operation of ours
    quantises: ClassVar[bool] = False
    output_name: ClassVar[str] = "boxes"
    dropout: ClassVar[str | None] = None

    # --- labels

    def label_shapes(self, images: int, classes: int, sides: tuple[int, ...] = ()) -> list[tuple[int | None, ...]]:
        """Return (M, 6), rows of image, class and corners; and (N, M, 5), as it is in memory."""
        return [(None, 6), (images, None, 5)]

    def label_bytes(self, classes: int, sides: tuple[int, ...]) -> int:
        """Return the bytes of as many boxes as an image may have."""
        from visionforge.data.boxes import COLUMNS, MAX_BOXES

        return 8 * COLUMNS * MAX_BOXES

    def label_problem(self, labels: Array, images: int, classes: int, sides: tuple[int, ...]) -> str | None:
        """Return a line about the first row that is wrong, or about too many boxes; images without any are allowed."""
        import numpy as np

        from visionforge.data.boxes import MAX_BOXES

        if labels.ndim == 3:
            labels = _unpadded(labels)
        rows = labels.astype(np.float64)
        finite = np.isfinite(rows).all(axis=1)
        index, kinds = rows[:, 0], rows[:, 1]
        with np.errstate(over="ignore"):  # what is infinite then reaches out of its image
            corners = rows[:, 2:].astype(np.float32)  # as it is kept
        low, high = corners[:, :2], corners[:, 2:]
        height, width = sides[-2:] if len(sides) > 1 else (np.inf, np.inf)
        with np.errstate(invalid="ignore"):
            wrong = {
                "is not finite": ~finite,
                f"is of no image; allowed: 0 to {images - 1}": ~_whole(index, images),
                f"is of no class; allowed: 0 to {classes - 1}": ~_whole(kinds, classes),
                "has no area; allowed: x1 < x2 and y1 < y2, in pixels": ~(high > low).all(axis=1),
                f"reaches out of its image of {width}×{height} pixels": (low < 0).any(axis=1)
                | (high > np.array([width, height])).any(axis=1),
                "stands behind one of a later image; rows have to be sorted by image": _falls(index),
            }
        for problem, which in wrong.items():
            if which.any():
                first = int(which.argmax())
                shown = ", ".join(f"{value:g}" for value in rows[first])
                return f"row {first:,} [{shown}] {problem}"
        most = int(np.bincount(index.astype(np.int64)).max(initial=0))
        if most > MAX_BOXES:
            return f"{most:,} boxes in an image; allowed: at most {MAX_BOXES:,}"
        if images * most * 5 > MOST_PADDED:
            return (
                f"{images:,} images, of which one has {most:,} boxes, take {images * most * 20 / 1e9:.1f} GB; "
                f"allowed: {MOST_PADDED * 4 / 1e9:.1f} GB, so leave out images with very many boxes"
            )
        return None

    def stored(self, labels: Array, images: int) -> Array:
        """Return (N, M, 5) float32, as many rows as the image with the most boxes has, but one at least."""
        import numpy as np

        if labels.ndim == 3:
            return np.asarray(labels, dtype=np.float32)
        index = labels[:, 0].astype(np.int64)
        each = np.bincount(index, minlength=images)
        out = np.zeros((images, max(1, int(each.max(initial=0))), 5), np.float32)
        out[..., 0] = -1
        place = np.arange(len(index)) - np.repeat(np.cumsum(each) - each, each)  # within its image; they are sorted
        out[index, place] = labels[:, 1:]
        return out

    def image_labels(self, labels: Array, classes: int) -> Array:
        """Return (N, K) uint8 0/1, whether there is a box of a class."""
        import numpy as np

        found = np.zeros((len(labels), classes), np.uint8)
        images, rows = np.nonzero(labels[..., 0] >= 0)
        found[images, labels[images, rows, 0].astype(np.int64)] = 1
        return found

    def undefined_reason(self, labels: Array, names: Sequence[str]) -> str | None:
        """Return whether there is no box."""
        return None if bool((labels[..., 0] >= 0).any()) else "none of its images has a box"

    def unlearnable_reason(self, labels: Array) -> str | None:
        """Return whether there is no box."""
        return self.undefined_reason(labels, ())

    def counts(self, labels: Array, classes: int) -> npt.NDArray[np.int64]:
        """Return (K,) images that have a box of each class."""
        import numpy as np

        return np.asarray(self.image_labels(labels, classes).sum(axis=0, dtype=np.int64))

    def drawn_classes(self, classes: int) -> tuple[str, ...]:
        """Return kinds of shapes."""
        from visionforge.data.shapes import shape_names

        return shape_names(classes)

    def drawn_flags(self) -> dict[str, Any]:
        """Return that shapes may be mirrored, but stand upright."""
        flips = {"hflip": True, "vflip": False}
        return {**flips, "rotation": "small", "texture_is_label": False, "colour_is_label": False}

    def scene(
        self, generator: np.random.Generator, images: int, classes: int, resolution: int, channels: int
    ) -> tuple[npt.NDArray[np.uint8], Array] | None:
        """Return images of shapes, and their boxes."""
        from visionforge.data.shapes import render_shapes

        found = render_shapes(generator, images, classes, resolution, channels)
        return found.images, self.stored(found.boxes, images)

    # --- training

    def batch_labels(self, labels: Tensor, images: int, classes: tuple[str, ...]) -> Tensor:
        """Return (N, M, 5) float32."""
        if labels.ndim != 3 or labels.shape[2] != 5 or labels.is_complex():
            found = f"{tuple(labels.shape)} of {labels.dtype}"
            raise DataError(
                f"labels: {found}; allowed for {self.name} data: numbers (N, M, 5), rows {ROW}, class -1 in rows "
                "without a box"
            )
        _require_wide(labels)
        return labels.float()

    def value_problem(self, labels: Tensor, classes: tuple[str, ...]) -> str | None:
        """Return a line about a box of no class, without an area, or with numbers that are not finite."""
        rows = labels.float().flatten(0, 1)
        kinds = rows[:, 0]
        there = kinds != -1
        known = (kinds >= 0) & (kinds < len(classes)) & (kinds == kinds.floor())
        right = known & rows.isfinite().all(dim=1) & (rows[:, 3:] > rows[:, 1:3]).all(dim=1)
        if bool((right | ~there).all()):
            return None
        row = [round(value, 2) for value in rows[there & ~right][0].tolist()]
        return (
            f"labels: {row} is no box; allowed: {ROW}, classes 0 to {len(classes) - 1} ({', '.join(classes[:20])}), or "
            "-1 in rows without a box, x1 < x2 and y1 < y2"
        )

    def moved(self, labels: Tensor, draw: Any, size: tuple[int, int]) -> Tensor:
        """Return boxes that have moved with their images; one of which too little is left becomes a row without one.

        Raises:
            DataError: If they are of 16 bits, or one lies outside of its image.
        """
        from visionforge.training.box_labels import moved_rows

        _require_wide(labels)
        try:
            return moved_rows(labels, draw, size)
        except ValueError as error:
            raise DataError(f"labels: {error}") from error

    def network(
        self, settings: Any, spec: Any, outputs: int, pretrained: bool | None, brought: Any = None
    ) -> BuiltNetwork:
        """Return the backbone with a detector."""
        from visionforge.models.parts import detecting_network

        form = spec.channels, outputs, spec.resolution
        return detecting_network(settings.backbone, settings.detector, *form, pretrained, brought)

    def mixed(
        self, mixer: Any, images: Tensor, labels: Tensor, classes: int, rng: np.random.Generator
    ) -> tuple[Tensor, Tensor]:
        """Return mixed images, and the boxes that can be seen in them; see `visionforge.training.box_labels`."""
        from visionforge.training.box_labels import mixed_rows
        from visionforge.training.mixing.mixup import MixUp
        from visionforge.training.mixup import mix_images

        if not isinstance(mixer, MixUp) or type(mixer).mix is not MixUp.mix:
            raise SettingsError(
                f"model.mixup.name: {mixer.name} mixes shares of classes, which boxes do not have; take mixup, or set "
                "model.mixup.mixup_epochs to 0"
            )
        draw = mixer.draw(images, rng)
        return (images, labels) if draw is None else (mix_images(images, draw), mixed_rows(labels, draw))

    def learn(self, model: Any, criterion: Any, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Return the sum of the detector's losses; what was hit is not known while it learns."""
        loss = model.network.losses(images, targets)
        return loss, loss.new_full((), float("nan"))

    def losses(self, model: Any, images: Tensor, labels: Tensor) -> Tensor | None:
        """Return (N,) the sum of the detector's losses of each image."""
        from visionforge.training.box_outputs import evaluated_losses

        return evaluated_losses(model, images, labels)

    def criterion(self, loss: Any, classes: int, weights: Tensor | None = None) -> BoxCriterion:
        """Return what says that the detector brings its losses."""
        from visionforge.training.box_criterion import BoxCriterion

        return BoxCriterion.of(loss, self.name, weights)

    def outputs(self) -> BoxOutputs:
        """Return what keeps boxes."""
        from visionforge.training.box_outputs import BoxOutputs

        return BoxOutputs()

    def class_weights(self, counts: Tensor, images: int, beta: float | None) -> Tensor:
        """Refuse.

        Raises:
            SettingsError: In any case.
        """
        raise SettingsError("model.loss.class_weights: a detector's own losses have no class weights; leave it out")

    # --- predictions

    def merged(self, names: Sequence[str], each: Tensor, weight: float | None, resolution: int) -> Tensor:
        """Return boxes on which the views agree, each turned back; see `visionforge.training.box_views`."""
        from visionforge.training.box_views import merge_views

        return merge_views(names, each, weight, resolution)

    def tried(self, labels: Array, spec: Any) -> Any:
        """Return boxes that are predicted as they are."""
        import numpy as np

        from visionforge.scoring.box_cases import BoxCases, WeightedBoxCases

        boxes = np.asarray(labels)
        sure = (boxes[..., :1] >= 0).astype(boxes.dtype)
        said = np.concatenate([boxes[..., :1], sure, boxes[..., 1:]], axis=2)
        return WeightedBoxCases(BoxCases(boxes, said, len(spec.classes)), np.ones((len(boxes), 1)))

    def predictor(self, model: Any, tta: bool | None = None, keep: bool = False) -> BoxPredictor:
        """Return what gives boxes of images."""
        from visionforge.inference.box_predictor import BoxPredictor

        return BoxPredictor(model, tta)

    def answer(self, outputs: Array, contract: Any) -> BoxPrediction:
        """Return the boxes.

        Raises:
            RunError: If rows are none, because the artifact was changed.
        """
        import numpy as np

        from visionforge.inference.box_predictor import BoxPrediction

        spec = contract.spec
        rows = outputs.astype(np.float32)
        kinds, scores, low, high = rows[..., 0], rows[..., 1], rows[..., 2:4], rows[..., 4:]
        places = (low >= 0).all(axis=-1) & (low < high).all(axis=-1) & (high <= spec.resolution).all(axis=-1)
        right = _whole(kinds, len(spec.classes)) & (scores >= 0) & (scores <= 1) & places
        if not (right | (kinds == -1)).all():
            raise RunError("the artifact gives rows that are no boxes; it was changed after the export")
        return BoxPrediction(rows, len(contract.views) > 1)

    def probabilities(self, logits: Tensor) -> Tensor:
        """Return the boxes of a network as they are: their scores are probabilities."""
        return logits

    def agreement(self, one: BoxPrediction, other: BoxPrediction, spec: Any) -> Agreement:
        """Return how far boxes are apart."""
        from visionforge.inference.agreement import of_boxes

        return of_boxes(one.labels, other.labels, spec.resolution)

    def output_shape(self, spec: Any, settings: Any) -> tuple[int, ...]:
        """Return (D, 6) for at most D boxes."""
        return (settings.detector.max_detections, 6)

    @property
    def output_meaning(self) -> str:
        """Return what the numbers of an export say."""
        return "boxes, rows of class, score, x1, y1, x2, y2 in pixels; class -1 in rows without a box"

    def scored(self, probabilities: Array, labels: Array, spec: Any) -> dict[str, float | None]:
        """Return average precision and recall."""
        from visionforge.evaluation.detection import detection_metrics

        return dict(detection_metrics(labels, probabilities, len(spec.classes)))

    # --- results

    def evaluate(
        self, predictions: Any, spec: Any, split: str, settings: Any, partial: Any = None, clusters: Any = None
    ) -> BoxEvaluation:
        """Return average precision and recall, with intervals by picture."""
        from visionforge.evaluation.box_evaluation import evaluate_boxes

        return evaluate_boxes(predictions, spec, split, settings, partial, clusters)

    def table_scorer(self, path: Any, tta: bool, positive: int, classes: Sequence[str]) -> PictureScorer | None:
        """Return what scores the boxes that lie beside a table in COCO's format: it has the predicted ones only."""
        from visionforge.evaluation.box_scorer import coco_scorer

        return coco_scorer(path.parent, tta, self.name, classes)

    def write_predictions(
        self, folder: Any, spec: Any, said: Any, truth: Array | None, side: Any, files: bool = False
    ) -> None:
        """Write a row per predicted box, and predictions and truth as COCO has them."""
        from visionforge.evaluation.box_files import write_box_files

        write_box_files(folder, spec, said, truth, side)

    def present(self, evaluation: Any, images: Any, background: Any, explainer: Any = None) -> BoxPresentation:
        """Return pictures with boxes, and the numbers of each class."""
        from visionforge.reporting.box_presentation import BoxPresentation

        return BoxPresentation(evaluation, images, background)


def _require_wide(labels: Tensor) -> None:
    """Refuse types that round pixels.

    Raises:
        DataError: If the labels are of such a type.
    """
    if labels.is_floating_point() and labels.element_size() < 4:
        raise DataError(
            f"labels: boxes of {labels.dtype}, which rounds pixels; allowed: float32, and as precision of the Trainer "
            "32-true, 16-mixed or bf16-mixed"
        )


def _unpadded(labels: Array) -> Array:
    """Return (M, 6) rows of image, class and corners, of padded ones (N, M, 5)."""
    import numpy as np

    images, rows = np.nonzero(labels[..., 0] != -1)
    return np.concatenate([images[:, None].astype(np.float64), labels[images, rows]], axis=1)


def _whole(values: Array, count: int) -> npt.NDArray[np.bool_]:
    """Return which values are whole numbers from 0 to below a count."""
    import numpy as np

    return np.asarray((values >= 0) & (values < count) & (values == np.floor(values)))


def _falls(values: Array) -> npt.NDArray[np.bool_]:
    """Return which values are below the one in front of them."""
    import numpy as np

    found = np.zeros(len(values), np.bool_)
    found[1:] = values[1:] < values[:-1]
    return found
