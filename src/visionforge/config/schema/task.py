"""What a task is: the kind of labels that a data set has, and everything that follows from it.

The classes of this package are in `visionforge.tasks`, those of others where somebody registers them; the rest of
visionforge asks them, and compares no names. Arrays are NumPy's where the data is read and results are told, and
tensors where a network is trained; `decide` takes both.

A task has one of four forms: an image is of classes that exclude each other, or of labels that do not; or its pixels
are, which is a mask; or there are boxes in it, each of a class.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from matplotlib.figure import Figure
    from torch import Tensor

    Array = npt.NDArray[Any]
    Integers = npt.NDArray[np.integer[Any]]


@dataclass(frozen=True)
class Matrix:
    """A confusion matrix.

    Attributes:
        classes: Names of the classes.
        rows: For each true class, and in it for each predicted one, the count and its share of the row.
    """

    classes: Sequence[str]
    rows: Sequence[Sequence[tuple[int, float]]]


@dataclass(frozen=True)
class DecisionView:
    """What a report shows of what was decided.

    Attributes:
        heading: Heading of the section.
        notes: Explanations, a paragraph each.
        plots: Interactive figures, as Plotly's `data` and `layout`.
        matrix: A confusion matrix.
    """

    heading: str
    notes: Sequence[str] = ()
    plots: Sequence[dict[str, Any]] = ()
    matrix: Matrix | None = None


IGNORED = 255  # of a mask: pixels that do not count

_BEYOND_LABELS = (  # methods without which there is no task, of whichever form
    "agreement",
    "answer",
    "batch_labels",
    "class_weights",
    "counts",
    "criterion",
    "evaluate",
    "image_labels",
    "label_shapes",
    "merged",
    "network",
    "outputs",
    "predictor",
    "present",
    "scored",
    "stored",
    "table_scorer",
    "tried",
    "value_problem",
    "write_predictions",
)
_OF_LABELS = (
    *_BEYOND_LABELS,
    "rendered",
    "confidence",
    "decide",
    "decision_figure",
    "decision_view",
    "encoded",
    "entropy",
    "highest_label",
    "hits",
    "indicators",
    "label_text",
    "labels_of",
    "logits",
    "probabilities",
    "smoothed",
    "statements",
    "targets",
)
_OF_MASKS = (*_BEYOND_LABELS, "decide", "highest_label", "hits", "moved", "probabilities", "scene", "targets")
_OF_BOXES = (*_BEYOND_LABELS, "moved", "scene")
REQUIRED = {"classes": _OF_LABELS, "labels": _OF_LABELS, "masks": _OF_MASKS, "boxes": _OF_BOXES}


class Task:
    """A kind of labels; a class without state, of which one object serves all.

    Most tasks of other packages are a built-in one with something changed, so derive from
    `visionforge.tasks.classes.ClassTask`, `visionforge.tasks.multi_label.MultiLabel` or one of the others. Below, N are
    images and K are classes or labels. Masks are (N, R, R) for images of R×R pixels, and boxes (N, M, 5) with rows of
    class, x1, y1, x2, y2 in pixels, of which those of the class -1 fill up what other images have more.

    Attributes:
        name: By which data sets, settings and checkpoints call it: small letters, digits and ``-``.
        position: Among the tasks, where it is listed.
        forms: What metrics and losses go by: ``classes`` that exclude each other, ``labels`` that do not, ``masks`` or
            ``boxes``; and ``grades`` beside ``classes`` where these have an order.
        nouns: What a class is called: one, and several of them.
        drawn: What a class of rendered images is called.
        class_count: The number of classes that it has in any case; None is any.
        least_classes: The smallest number of classes that it can have.
        most_classes: The largest number of classes that it can have; None is any.
        several: An image may have several classes, or none; so it is of labels.
        has_positive: It has two classes, of which one is to be found.
        default_loss: Name of the loss that `auto` stands for.
        headlines: Names of the metrics on top of a report.
        monitor: What epochs and trials are compared by where nobody says so; ``val/loss`` where it is undefined.
        spatial_dims: Whether its images may be images (2) or volumes (3).
        label_types: Kinds of NumPy types that labels of an archive may have.
        maps_labels: Labels are as large as images, and stay in the file as these do.
        dense: A network says something of every pixel.
        explains: There are maps of where its networks look.
        calibrates: Its probabilities are calibrated on the validation split.
        abstains: An image has one class, so that there are sets of classes that hold it.
        decodes: Its network has a decoder, `model.decoder`.
        detects: Its network has a detector, `model.detector`.
        located: What is said lies at places of the image, so test-time views are those that can be undone.
        export_formats: In which its networks can be exported.
        quantises: Exports can be written in INT8.
        output_name: What an export calls what it gives.
        dropout: Which setting is the dropout of its network; None if there is none.
    """

    name: ClassVar[str] = ""
    position: ClassVar[int] = 100
    forms: ClassVar[tuple[str, ...]] = ()
    nouns: ClassVar[tuple[str, str]] = ("class", "classes")
    drawn: ClassVar[str] = "class"
    class_count: ClassVar[int | None] = None
    least_classes: ClassVar[int] = 2
    most_classes: ClassVar[int | None] = None
    several: ClassVar[bool] = False
    has_positive: ClassVar[bool] = False
    default_loss: ClassVar[str] = ""
    headlines: ClassVar[tuple[str, ...]] = ()
    monitor: ClassVar[str] = "val/auc"
    spatial_dims: ClassVar[tuple[int, ...]] = (2, 3)
    label_types: ClassVar[str] = "iu"
    maps_labels: ClassVar[bool] = False
    dense: ClassVar[bool] = False
    explains: ClassVar[bool] = True
    calibrates: ClassVar[bool] = True
    abstains: ClassVar[bool] = False
    decodes: ClassVar[bool] = False
    detects: ClassVar[bool] = False
    located: ClassVar[bool] = False
    export_formats: ClassVar[tuple[str, ...]] = ("onnx", "torch", "safetensors")
    quantises: ClassVar[bool] = True
    output_name: ClassVar[str] = "probabilities"
    dropout: ClassVar[str | None] = "model.backbone.dropout"

    def is_usual(self, several: bool, classes: int) -> bool:
        """Return whether it is meant where nobody says what the labels are.

        Args:
            several: Whether images have several labels, or none.
            classes: Number of classes K.
        """
        return False

    # --- labels

    def label_shapes(self, images: int, classes: int, sides: tuple[int, ...] = ()) -> list[tuple[int | None, ...]]:
        """Return the shapes that the labels of N images may have in an archive; the last is that in memory.

        Args:
            images: Number of images N.
            classes: Number of classes K.
            sides: Height and width of the images; or depth, height and width.

        Returns:
            Shapes; None stands for any number.
        """
        raise NotImplementedError

    def label_bytes(self, classes: int, sides: tuple[int, ...]) -> int:
        """Return the most bytes that the labels of one image may take in an archive."""
        from math import prod

        return 8 * max(prod(side or 1 for side in shape) for shape in self.label_shapes(1, classes, sides))

    def highest_label(self, classes: int) -> int:
        """Return the largest value of a label in an archive; the smallest is 0."""
        raise NotImplementedError

    def label_problem(self, labels: "Array", images: int, classes: int, sides: tuple[int, ...]) -> str | None:
        """Return what is wrong with the values of an archive's labels; None if nothing.

        Args:
            labels: Of an allowed shape and type.
            images: Number of images N.
            classes: Number of classes K.
            sides: Sides of the images.
        """
        if not labels.size:
            return "holds no labels"
        highest = self.highest_label(classes)
        low, high = int(labels.min()), int(labels.max())
        if low >= 0 and high <= highest:
            return None
        wrong = int(((labels < 0) | (labels > highest)).sum())
        return f"{wrong} of {labels.size} labels out of range ({low} to {high}); allowed: 0 to {highest}"

    def stored(self, labels: "Array", images: int) -> "Array":
        """Return labels of an archive as they are kept: (N,) int64, (N, K) uint8, a mask each, or boxes float32."""
        raise NotImplementedError

    def image_labels(self, labels: "Array", classes: int) -> "Array":
        """Return what images are sampled, divided and counted by: their classes (N,), or (N, K) 0/1 which they have."""
        raise NotImplementedError

    def undefined_reason(self, labels: "Array", names: Sequence[str]) -> str | None:
        """Return why `monitor` says nothing of a split, whatever is predicted; None if it does.

        Args:
            labels: As `stored`.
            names: The classes.
        """
        return None

    def unlearnable_reason(self, labels: "Array") -> str | None:
        """Return why nothing can be learnt of some training images, whatever the network; None if something can.

        Args:
            labels: As `stored`.
        """
        return None

    def encoded(self, names: Sequence[Sequence[str]], classes: Sequence[str]) -> "Integers":
        """Return labels (N,) or (N, K) of images whose classes are given by name.

        Args:
            names: The classes of each image; one of each, unless it may have several.
            classes: All classes, in label order.
        """
        raise NotImplementedError

    def indicators(self, labels: "Array", classes: int) -> "npt.NDArray[np.int64]":
        """Return (N, K) 0/1, whether an image is of a class."""
        raise NotImplementedError

    def tried(self, labels: "Array", spec: Any) -> Any:
        """Return weighted predictions by which a metric tells whether it is defined, before anything is trained.

        Args:
            labels: As `stored`.
            spec: The `TaskSpec`.
        """
        raise NotImplementedError

    def background(self, names: Sequence[str]) -> int | None:
        """Return the number of the class that is in no mean over the classes; None if there is none."""
        return None

    def counts(self, labels: "Array", classes: int) -> "npt.NDArray[np.int64]":
        """Return (K,) images of each class."""
        raise NotImplementedError

    def weighed_counts(self, labels: "Array", classes: int) -> "tuple[npt.NDArray[np.int64], int]":
        """Return (K,) and in all, how many things of each class a loss counts: images, unless pixels have classes."""
        return self.counts(labels, classes), len(labels)

    def drawn_classes(self, classes: int) -> tuple[str, ...]:
        """Return the names of the classes of rendered images."""
        return tuple(f"{self.drawn} {index}" for index in range(self.class_count or classes))

    def drawn_flags(self) -> dict[str, Any]:
        """Return the fields of the `DomainFlags` of rendered images: gratings, of which a mirror makes others."""
        flips = {"hflip": False, "vflip": False}
        return {**flips, "rotation": "small", "texture_is_label": True, "colour_is_label": False}

    def rendered(self, generator: "np.random.Generator", images: int, classes: int) -> "Array":
        """Return labels for rendered images, as `stored`; asked unless `scene` renders both."""
        raise NotImplementedError

    def scene(
        self, generator: "np.random.Generator", images: int, classes: int, resolution: int, channels: int
    ) -> "tuple[npt.NDArray[np.uint8], Array] | None":
        """Return rendered images (N, R, R, C) and their labels; None leaves the images to labels of whole images."""
        return None

    def label_text(self, label: Any, names: Sequence[str]) -> str:
        """Return the cell of a table of predictions: the name of a class, or those of several."""
        raise NotImplementedError

    def labels_of(self, texts: Sequence[str], names: Sequence[str]) -> "npt.NDArray[np.int64]":
        """Return (N,) classes or (N, K) 0/1, of which `label_text` made texts.

        Raises:
            KeyError: If a text is no class.
        """
        raise NotImplementedError

    def cell_name(self, name: str) -> str:
        """Return the name of a class as tables of predictions have it."""
        return name

    # --- training

    def batch_labels(self, labels: "Tensor", images: int, classes: tuple[str, ...]) -> "Tensor":
        """Return the labels of somebody's batch as the loss takes them: (N,) int64, or (N, K) uint8.

        Raises:
            DataError: If shape or type are of no such labels. Values are looked at by `value_problem`.
        """
        raise NotImplementedError

    def value_problem(self, labels: "Tensor", classes: tuple[str, ...]) -> str | None:
        """Return what is wrong with the values of labels, which lie on the CPU and are not empty; None if nothing."""
        raise NotImplementedError

    def moved(self, labels: "Tensor", draw: Any, size: tuple[int, int]) -> "Tensor":
        """Return the labels of a training batch after its images were moved; those of whole images stay.

        Args:
            labels: Of the batch.
            draw: How the images were moved, a `visionforge.data.augment.Draw` on their device.
            size: Height and width of the images.
        """
        return labels

    def network(self, settings: Any, spec: Any, outputs: int, pretrained: bool | None, brought: Any = None) -> Any:
        """Return the network, as `visionforge.models.parts.BuiltNetwork`.

        Args:
            settings: The `ModelSettings`.
            spec: The `TaskSpec`; images come to the network in its `network_resolution`.
            outputs: Number of logits.
            pretrained: Read pretrained weights; None as the settings say.
            brought: The tensors of a file from somebody that are about to be loaded; None without one.
        """
        raise NotImplementedError

    def mixed(
        self, mixer: Any, images: "Tensor", labels: "Tensor", classes: int, rng: "np.random.Generator"
    ) -> "tuple[Tensor, Tensor]":
        """Return a training batch whose images are mixed, and targets for `learn`.

        Args:
            mixer: The settings `model.mixup`.
            images: (N, C, R, R) float32, normalised.
            labels: Those of the batch.
            classes: Number of classes K.
            rng: All randomness.
        """
        return tuple(mixer.mix(images, self.targets(labels, classes), rng))

    def learn(self, model: Any, criterion: Any, images: "Tensor", targets: "Tensor") -> "tuple[Tensor, Tensor]":
        """Return loss and share of hits of a training batch, a scalar each, of which the first is learnt from.

        Args:
            model: The module in training mode; called with images it gives outputs.
            criterion: As `criterion` has made it.
            images: (N, C, R, R) float32, normalised.
            targets: Labels, or what `mixed` has made of them.
        """
        outputs = model(images)
        loss = criterion(outputs, targets)
        return loss, self.hits(criterion.probabilities(outputs.detach()), targets)

    def losses(self, model: Any, images: "Tensor", labels: "Tensor") -> "Tensor | None":
        """Return (N,) losses of an evaluated batch, which its outputs do not tell; None leaves it to the criterion.

        Args:
            model: The module in evaluation mode.
            images: (N, C, R, R), uint8 or normalised float.
            labels: Those of the batch.
        """
        return None

    def criterion(self, loss: Any, classes: int, weights: "Tensor | None" = None) -> Any:
        """Return what the network is trained by, as `visionforge.training.criterion.Criterion` is.

        Args:
            loss: The settings of the loss.
            classes: Number of classes K.
            weights: (K,) weight per class, or None.
        """
        raise NotImplementedError

    def outputs(self) -> Any:
        """Return what keeps the outputs for a split, a new `visionforge.training.split_outputs.SplitOutputs`."""
        raise NotImplementedError

    def targets(self, labels: "Tensor", classes: int) -> "Tensor":
        """Return labels as (N, K) float32 shares, which can be smoothed and mixed."""
        raise NotImplementedError

    def smoothed(self, targets: "Tensor", smoothing: float) -> "Tensor":
        """Return targets (N, K), of which a share goes to what is not said (Szegedy et al., 2016, arXiv:1512.00567)."""
        raise NotImplementedError

    def class_weights(self, counts: "Tensor", images: int, beta: float | None) -> "Tensor":
        """Return (K,) float64 weights of the classes in a loss; a class without images weighs 1.

        Args:
            counts: (K,) training images of each class, at least one above 0.
            images: Number of training images.
            beta: β of the effective number of images (Cui et al., 2019); None balances by the numbers themselves.
        """
        raise NotImplementedError

    # --- predictions

    @property
    def output_meaning(self) -> str:
        """Return what the numbers of an export say."""
        return f"calibrated probability of each {self.nouns[0]}"

    def output_shape(self, spec: Any, settings: Any) -> tuple[int, ...]:
        """Return the shape of what an export gives of one image.

        Args:
            spec: The `TaskSpec`.
            settings: The `ModelSettings`.
        """
        return (len(spec.classes),)

    def scored(self, probabilities: "Array", labels: "Array", spec: Any) -> dict[str, float | None]:
        """Return metrics by name, by which an export is compared with its network.

        Args:
            probabilities: (N, K, …).
            labels: As `stored`.
            spec: The `TaskSpec`.
        """
        raise NotImplementedError

    def agreement(self, one: Any, other: Any, spec: Any) -> Any:
        """Return how far what an export says is from what its network says, an `Agreement`.

        Args:
            one: What `predictor` says of images, with `keep`.
            other: What `answer` says of them.
            spec: The `TaskSpec`.
        """
        raise NotImplementedError

    def predictor(self, model: Any, tta: bool | None = None, keep: bool = False) -> Any:
        """Return what says something of images, a `visionforge.inference.predictor.Predictor`.

        Args:
            model: The trained module.
            tta: Average over the test-time views; None takes the module's setting.
            keep: Its answers have the outputs that `answer` is given, too, as `calibrated`.
        """
        raise NotImplementedError

    def answer(self, outputs: "Array", contract: Any) -> Any:
        """Return what an artifact says of images, as `predictor` would.

        Args:
            outputs: (N, *output_shape), what the artifact gives. Where it runs without torch, this has to, too.
            contract: What it says of itself, a `visionforge.inference.contract.Contract`.
        """
        raise NotImplementedError

    def merged(self, names: Sequence[str], each: "Tensor", weight: float | None, resolution: int) -> "Tensor":
        """Return what several views of images say together.

        Args:
            names: The views; the first is the image itself.
            each: (V, N, …) what `criterion.probabilities` gives of each.
            weight: Weight of the image itself; None gives every view the same.
            resolution: Height and width of the images in pixels.
        """
        raise NotImplementedError

    def probabilities(self, logits: "Tensor") -> "Tensor":
        """Return (N, K) probabilities, in the precision of the logits.

        A network's logits are float32, those of a calibration float64. Every operation has to be one that ONNX has.
        """
        raise NotImplementedError

    def logits(self, probabilities: "Tensor") -> "Tensor":
        """Return (N, K) logits of which `probabilities` are made, up to what cancels there; finite also at 0 and 1."""
        raise NotImplementedError

    def decide(self, probabilities: Any, thresholds: Any = None) -> Any:
        """Return what is predicted, an array or tensor as the probabilities are: (N,) classes, or (N, K) booleans.

        It is asked of probabilities before calibration, also where calibrated ones are shown.

        Args:
            probabilities: (N, K).
            thresholds: (K,), where `thresholds` gives some; None is 0.5.
        """
        raise NotImplementedError

    def hits(self, probabilities: "Tensor", targets: "Tensor") -> "Tensor":
        """Return the share of the targets that is predicted, a scalar; of hard targets that is the accuracy.

        Args:
            probabilities: (N, K).
            targets: Labels, or (N, K) shares as `targets` and a mixer make them.
        """
        raise NotImplementedError

    def thresholds(self, probabilities: "Tensor", labels: "Tensor") -> "Tensor | None":
        """Return (K,) float32 thresholds of labels that the validation split asks for; None if the task has none."""
        return None

    def entropy(self, probabilities: "npt.NDArray[np.float64]") -> "npt.NDArray[np.float64]":
        """Return (N,) entropies in [0, 1]: 0 is sure, 1 is a guess among all classes."""
        raise NotImplementedError

    def confidence(self, probabilities: "Array", predicted: "Array") -> "npt.NDArray[np.float64]":
        """Return the probability of what is predicted: (N,) of the class, or (N, K) of what is said of each label."""
        raise NotImplementedError

    # --- results

    def evaluate(
        self, predictions: Any, spec: Any, split: str, settings: Any, partial: Any = None, clusters: Any = None
    ) -> Any:
        """Return the numbers of a split, a `visionforge.evaluation.evaluation.SplitEvaluation`.

        Args:
            predictions: What `outputs` has left of it.
            spec: The `TaskSpec`.
            split: Name of the split.
            settings: The `EvaluationSettings`.
            partial: How much of the split was evaluated; None is all of it.
            clusters: Groups of images that belong together, `visionforge.scoring.clusters.Clusters`; only given where
                the data has some.
        """
        raise NotImplementedError

    def table_scorer(self, path: Any, tta: bool, positive: int, classes: Sequence[str]) -> Any:
        """Return what computes the metrics of a table of predictions, a `visionforge.evaluation.bootstrap.Scorer`.

        Args:
            path: The CSV file.
            tta: Those with test-time augmentation.
            positive: Of two classes, the one that is to be found.
            classes: Names of the classes.

        Returns:
            None if the table does not have them.

        Raises:
            RunError: If it is no such table, or has no truth.
        """
        raise NotImplementedError

    def write_predictions(
        self, folder: Any, spec: Any, said: Any, truth: "Array | None", side: Any, files: bool = False
    ) -> None:
        """Write what was predicted of a split.

        Args:
            folder: The `Workspace`, whose `predictions` is the table.
            spec: The `TaskSpec`.
            said: What `predictor` or an evaluation says of the images.
            truth: Their labels, or None.
            side: Their names and groups, a `SideTable`.
            files: Write what is more than a row of a table, such as masks, as files of their own.
        """
        raise NotImplementedError

    def present(self, evaluation: Any, images: Any, background: Any, explainer: Any = None) -> Any:
        """Return what figures and report show of an evaluation, a `visionforge.reporting.presentation.Presentation`.

        Args:
            evaluation: What `evaluate` has returned.
            images: The split, an `ArrayDataset`.
            background: The `ReportContext`.
            explainer: Makes overlays that show where the network looked, or None.
        """
        raise NotImplementedError

    def statements(self, probabilities: "Array", predicted: "Array", labels: "Array") -> tuple["Array", "Array"]:
        """Return (N, M) what is stated with which probability, and whether it is true, for calibration curves.

        Those are the predicted class (M = 1), or all labels (M = K).
        """
        raise NotImplementedError

    def decision_figure(self, labels: "Array", predicted: "Array", classes: Sequence[str], title: str) -> "Figure":
        """Return the picture of what was decided, ``figures/confusion_matrix.png``."""
        raise NotImplementedError

    def decision_view(self, labels: "Array", predicted: "Array", classes: Sequence[str]) -> DecisionView:
        """Return what a report shows of what was decided."""
        raise NotImplementedError

    def figures(self, evaluation: Any) -> "Mapping[str, Figure]":
        """Return further pictures of an `Evaluation`, by file name without ``.png``."""
        return {}
