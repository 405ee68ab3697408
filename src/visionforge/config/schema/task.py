"""What a task is: the kind of labels that a data set has, and everything that follows from it.

The classes of this package are in `visionforge.tasks`, those of others where somebody registers them; the rest of
visionforge asks them, and compares no names. Arrays are NumPy's where the data is read and results are told, and
tensors where a network is trained; `decide` takes both.
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


REQUIRED = (  # methods without which there is no task
    "batch_labels",
    "class_weights",
    "confidence",
    "counts",
    "decide",
    "decision_figure",
    "decision_view",
    "encoded",
    "entropy",
    "highest_label",
    "hits",
    "indicators",
    "label_shapes",
    "label_text",
    "labels_of",
    "logits",
    "probabilities",
    "rendered",
    "smoothed",
    "statements",
    "stored",
    "targets",
    "value_problem",
)


class Task:
    """A kind of labels; a class without state, of which one object serves all.

    Most tasks of other packages are a built-in one with something changed, so derive from
    `visionforge.tasks.classes.ClassTask`, `visionforge.tasks.multi_label.MultiLabel` or one of the others. Below, N are
    images and K are classes or labels.

    Attributes:
        name: By which data sets, settings and checkpoints call it: small letters, digits and ``-``.
        position: Among the tasks, where it is listed.
        forms: What metrics and losses go by: ``classes`` that exclude each other, ``labels`` that do not, and
            ``grades`` beside ``classes`` where these have an order.
        nouns: What a class is called: one, and several of them.
        drawn: What a class of rendered images is called.
        class_count: The number of classes that it has in any case; None is any.
        several: An image may have several classes, or none; so it is of labels.
        has_positive: It has two classes, of which one is to be found.
        default_loss: Name of the loss that `auto` stands for.
        headlines: Names of the metrics on top of a report.
    """

    name: ClassVar[str] = ""
    position: ClassVar[int] = 100
    forms: ClassVar[tuple[str, ...]] = ()
    nouns: ClassVar[tuple[str, str]] = ("class", "classes")
    drawn: ClassVar[str] = "class"
    class_count: ClassVar[int | None] = None
    several: ClassVar[bool] = False
    has_positive: ClassVar[bool] = False
    default_loss: ClassVar[str] = ""
    headlines: ClassVar[tuple[str, ...]] = ()

    def is_usual(self, several: bool, classes: int) -> bool:
        """Return whether it is meant where nobody says what the labels are.

        Args:
            several: Whether images have several labels, or none.
            classes: Number of classes K.
        """
        return False

    # --- labels

    def label_shapes(self, images: int, classes: int) -> list[tuple[int, ...]]:
        """Return the shapes that the labels of N images may have in an archive; the last is that in memory."""
        raise NotImplementedError

    def highest_label(self, classes: int) -> int:
        """Return the largest value of a label in an archive; the smallest is 0."""
        raise NotImplementedError

    def stored(self, labels: "Integers") -> "Integers":
        """Return labels of an archive as they are kept: (N,) int64, or (N, K) uint8."""
        raise NotImplementedError

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

    def counts(self, labels: "Array", classes: int) -> "npt.NDArray[np.int64]":
        """Return (K,) images of each class."""
        raise NotImplementedError

    def rendered(self, generator: "np.random.Generator", images: int, classes: int) -> "Integers":
        """Return labels for rendered images, as `stored`."""
        raise NotImplementedError

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
