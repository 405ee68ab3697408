"""Classes that exclude each other: every image is of exactly one. What tasks of that form have in common."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from visionforge.config.schema.task import DecisionView
from visionforge.errors import DataError
from visionforge.tasks.images import ImageTask

if TYPE_CHECKING:  # NumPy, too, which light commands do without
    import numpy as np
    import numpy.typing as npt
    from matplotlib.figure import Figure
    from torch import Tensor

    Array = npt.NDArray[Any]


_SMALLEST = 2.0**-126  # the smallest normal float32: a softmax in float32 gives no less above 0


class ClassTask(ImageTask):
    """Classes that exclude each other. Labels are class numbers (N,) int64, outputs a softmax over K logits."""

    forms: ClassVar[tuple[str, ...]] = ("classes",)
    default_loss: ClassVar[str] = "cross_entropy"
    abstains: ClassVar[bool] = True
    headlines: ClassVar[tuple[str, ...]] = ("auc", "accuracy", "balanced_accuracy", "f1_macro")

    # --- labels

    def label_shapes(self, images: int, classes: int, sides: tuple[int, ...] = ()) -> list[tuple[int | None, ...]]:
        """Return (N, 1), as MedMNIST has it, and (N,)."""
        return [(images, 1), (images,)]

    def highest_label(self, classes: int) -> int:
        """Return the number of the last class."""
        return classes - 1

    def stored(self, labels: Array, images: int) -> Array:
        """Return (N,) int64."""
        import numpy as np

        return labels.reshape(len(labels)).astype(np.int64)

    def encoded(self, names: Sequence[Sequence[str]], classes: Sequence[str]) -> npt.NDArray[np.integer]:
        """Return (N,) class numbers."""
        import numpy as np

        index = {name: k for k, name in enumerate(classes)}
        return np.array([index[of[0]] for of in names], dtype=np.int64)

    def indicators(self, labels: Array, classes: int) -> npt.NDArray[np.int64]:
        """Return one-hot rows."""
        import numpy as np

        return np.asarray(np.eye(classes, dtype=np.int64)[labels])

    def undefined_reason(self, labels: Array, names: Sequence[str]) -> str | None:
        """Return whether all images are of one class, so that nothing can be ranked."""
        import numpy as np

        found = np.unique(labels)
        if len(found) > 1:
            return None
        return f"all of its images are of the class {names[int(found[0])]}" if len(found) else "it has no images"

    def counts(self, labels: Array, classes: int) -> npt.NDArray[np.int64]:
        """Return how often each number occurs."""
        import numpy as np

        return np.bincount(labels, minlength=classes)

    def rendered(self, generator: np.random.Generator, images: int, classes: int) -> npt.NDArray[np.integer]:
        """Return every class equally often, in a random order."""
        import numpy as np

        return np.asarray(generator.permutation(np.arange(images) % classes))

    def label_text(self, label: Any, names: Sequence[str]) -> str:
        """Return the name of the class."""
        return names[int(label)]

    def labels_of(self, texts: Sequence[str], names: Sequence[str]) -> npt.NDArray[np.int64]:
        """Return (N,) class numbers."""
        import numpy as np

        place = {name: k for k, name in enumerate(names)}
        return np.array([place[text] for text in texts], dtype=np.int64)

    # --- training

    def batch_labels(self, labels: Tensor, images: int, classes: tuple[str, ...]) -> Tensor:
        """Return (N,) int64 of integers (N,) or (N, 1)."""
        if labels.ndim == 2 and labels.shape[1] == 1:
            labels = labels[:, 0]
        if labels.ndim != 1 or labels.is_floating_point() or labels.is_complex():
            found, allowed = f"{tuple(labels.shape)} of {labels.dtype}", "integers (N,) or (N, 1)"
            raise DataError(f"labels: {found}; allowed for {self.name} data: {allowed}")
        return labels.long()

    def value_problem(self, labels: Tensor, classes: tuple[str, ...]) -> str | None:
        """Return a line about a number that is no class."""
        last = len(classes) - 1
        labels = labels.double() if labels.is_floating_point() else labels.long()  # few kernels know unsigned integers
        for value in (labels.min().item(), labels.max().item()):
            if not 0 <= value <= last:
                return f"labels: {value} is no class; allowed: 0 to {last} ({', '.join(classes[:20])})"
        return None

    def targets(self, labels: Tensor, classes: int) -> Tensor:
        """Return one-hot rows."""
        from torch.nn.functional import one_hot

        return one_hot(labels, classes).float()

    def smoothed(self, targets: Tensor, smoothing: float) -> Tensor:
        """Spread a share over all classes."""
        return targets * (1 - smoothing) + smoothing / targets.shape[1]

    def class_weights(self, counts: Tensor, images: int, beta: float | None) -> Tensor:
        """Balance as scikit-learn, N / (K·n); or by (1-β)/(1-βⁿ), scaled to the mean 1."""
        import torch

        seen = counts > 0
        rarity = 1 / counts if beta is None else (1 - beta) / (1 - beta**counts)
        scale = images / len(counts) if beta is None else seen.sum() / rarity[seen].sum()
        return torch.where(seen, rarity * scale, 1.0)

    # --- predictions

    def probabilities(self, logits: Tensor) -> Tensor:
        """Return the softmax."""
        return logits.softmax(dim=1)

    def logits(self, probabilities: Tensor) -> Tensor:
        """Return the logarithms, from which the softmax makes the same probabilities."""
        return probabilities.clamp(min=_SMALLEST).log()

    def rescaled(self, probabilities: Array, temperature: float) -> Array:
        """Return the softmax of the divided logarithms."""
        import numpy as np

        logits = np.log(np.maximum(probabilities, _SMALLEST)) / temperature
        shares = np.exp(logits - logits.max(axis=1, keepdims=True))
        return np.asarray(shares / shares.sum(axis=1, keepdims=True))

    def decide(self, probabilities: Any, thresholds: Any = None) -> Any:
        """Return the most probable class."""
        return probabilities.argmax(axis=1)

    def hits(self, probabilities: Tensor, targets: Tensor) -> Tensor:
        """Return the mean target share of the predicted class."""
        predicted: Tensor = self.decide(probabilities)
        if targets.ndim == 1:
            return (predicted == targets).float().mean()
        return targets.gather(1, predicted[:, None]).mean()

    def entropy(self, probabilities: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Return the entropy over the classes as a share of the highest possible."""
        import numpy as np

        p = np.clip(probabilities, 1e-30, 1.0)
        return np.asarray((-(p * np.log(p)).sum(axis=1) / np.log(p.shape[1])).clip(0, 1))

    def confidence(self, probabilities: Array, predicted: Array) -> npt.NDArray[np.float64]:
        """Return (N,) of the predicted class."""
        import numpy as np

        return np.asarray(np.take_along_axis(probabilities.astype(np.float64), predicted[:, None], axis=1)[:, 0])

    # --- results

    def statements(self, probabilities: Array, predicted: Array, labels: Array) -> tuple[Array, Array]:
        """Return (N, 1) how sure the predicted class is, and whether it is right."""
        import numpy as np

        sure = np.take_along_axis(probabilities.astype(np.float64), predicted[:, None], axis=1)
        return sure, (predicted == labels)[:, None].astype(np.float64)

    def decision_figure(self, labels: Array, predicted: Array, classes: Sequence[str], title: str) -> Figure:
        """Return the confusion matrix."""
        from visionforge.reporting.decisions import confusion_matrix

        return confusion_matrix(labels, predicted, classes, title)

    def decision_view(self, labels: Array, predicted: Array, classes: Sequence[str]) -> DecisionView:
        """Return the confusion matrix."""
        from visionforge.reporting.decisions import confusion_view

        return confusion_view(labels, predicted, classes)
