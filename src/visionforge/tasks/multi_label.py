"""Labels that do not exclude each other: an image has any number of them, also none."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from visionforge.config.schema.task import DecisionView
from visionforge.config.schema.tasks import register_task
from visionforge.errors import DataError
from visionforge.tasks.images import ImageTask

if TYPE_CHECKING:  # NumPy, too, which light commands do without
    import numpy as np
    import numpy.typing as npt
    from matplotlib.figure import Figure
    from torch import Tensor

    Array = npt.NDArray[Any]


JOINT = "|"  # between the labels of an image
_SMALLEST = 2.0**-126  # the smallest normal float32,
_CLOSEST = 2.0**-24  # and how close to 1 a sigmoid in float32 comes
_RENDERED_SHARE = 0.4  # of the rendered images that have a label


@register_task
class MultiLabel(ImageTask):
    """Labels that do not exclude each other. They are (N, K) uint8 of 0 and 1, outputs a sigmoid for each.

    On every validation each label gets the threshold that maximises its F1; `accuracy` is at 0.5, as MedMNIST has it.
    """

    name: ClassVar[str] = "multi-label"
    position: ClassVar[int] = 3
    forms: ClassVar[tuple[str, ...]] = ("labels",)
    nouns: ClassVar[tuple[str, str]] = ("label", "labels")
    drawn: ClassVar[str] = "pattern"
    several: ClassVar[bool] = True
    default_loss: ClassVar[str] = "bce"
    headlines: ClassVar[tuple[str, ...]] = ("auc", "average_precision", "f1_macro", "accuracy")

    def is_usual(self, several: bool, classes: int) -> bool:
        """Return whether images have several labels, or none."""
        return several

    # --- labels

    def label_shapes(self, images: int, classes: int, sides: tuple[int, ...] = ()) -> list[tuple[int | None, ...]]:
        """Return (N, K)."""
        return [(images, classes)]

    def highest_label(self, classes: int) -> int:
        """Return 1, that it is there."""
        return 1

    def stored(self, labels: Array, images: int) -> Array:
        """Return (N, K) uint8."""
        import numpy as np

        return labels.astype(np.uint8)

    def encoded(self, names: Sequence[Sequence[str]], classes: Sequence[str]) -> npt.NDArray[np.integer]:
        """Return (N, K) 0/1."""
        import numpy as np

        index = {name: k for k, name in enumerate(classes)}
        matrix = np.zeros((len(names), len(classes)), dtype=np.uint8)
        for row, of in enumerate(names):
            matrix[row, [index[name] for name in of]] = 1
        return matrix

    def indicators(self, labels: Array, classes: int) -> npt.NDArray[np.int64]:
        """Return the labels themselves."""
        import numpy as np

        return labels.astype(np.int64)

    def undefined_reason(self, labels: Array, names: Sequence[str]) -> str | None:
        """Return whether no label can be ranked."""
        present = labels.sum(axis=0)
        rankable = (present > 0) & (present < len(labels))
        return None if rankable.any() else "no label is there in some of its images and absent from others"

    def counts(self, labels: Array, classes: int) -> npt.NDArray[np.int64]:
        """Return how many images have each label."""
        import numpy as np

        return np.asarray(labels.sum(axis=0, dtype=np.int64))

    def rendered(self, generator: np.random.Generator, images: int, classes: int) -> npt.NDArray[np.integer]:
        """Return each label with a probability of 0.4."""
        import numpy as np

        return (generator.random((images, classes)) < _RENDERED_SHARE).astype(np.uint8)

    def label_text(self, label: Any, names: Sequence[str]) -> str:
        """Return the names of the labels that are there, joined by ``|``."""
        return JOINT.join(name for name, present in zip(names, label, strict=True) if present)

    def labels_of(self, texts: Sequence[str], names: Sequence[str]) -> npt.NDArray[np.int64]:
        """Return (N, K) 0/1."""
        import numpy as np

        place = {name: k for k, name in enumerate(names)}
        labels = np.zeros((len(texts), len(names)), dtype=np.int64)
        for row, text in zip(labels, texts, strict=True):
            row[[place[name] for name in text.split(JOINT)] if text else []] = 1
        return labels

    def cell_name(self, name: str) -> str:
        """Return the name without ``|``, which stands between names."""
        return name.replace(JOINT, "/")

    # --- training

    def batch_labels(self, labels: Tensor, images: int, classes: tuple[str, ...]) -> Tensor:
        """Return (N, K) uint8 of zeros and ones of any type."""
        import torch

        if labels.shape != (images, len(classes)):
            raise DataError(
                f"labels: {tuple(labels.shape)}; allowed for {self.name} data: ({images}, {len(classes)}), a "
                f"column for each of {', '.join(classes[:20])}"
            )
        return labels.to(torch.uint8)

    def value_problem(self, labels: Tensor, classes: tuple[str, ...]) -> str | None:
        """Return a line about what is neither 0 nor 1."""
        wrong = labels[(labels != 0) & (labels != 1)]
        return f"labels: {wrong[0].item()} is not allowed; allowed for {self.name} data: 0 or 1" if len(wrong) else None

    def targets(self, labels: Tensor, classes: int) -> Tensor:
        """Return the labels themselves."""
        return labels.float()

    def smoothed(self, targets: Tensor, smoothing: float) -> Tensor:
        """Draw every label towards one half: t(1-s) + s/2."""
        return targets * (1 - smoothing) + smoothing / 2

    def class_weights(self, counts: Tensor, images: int, beta: float | None) -> Tensor:
        """Weigh a label's positive cases by the ratio of the two kinds, (N-n)/n, or of their effective numbers."""
        import torch

        others = images - counts
        rarity, common = (1 / n if beta is None else (1 - beta) / (1 - beta**n) for n in (counts, others))
        return torch.where((counts > 0) & (others > 0), rarity / common, 1.0)

    # --- predictions

    def probabilities(self, logits: Tensor) -> Tensor:
        """Return the sigmoids."""
        return logits.sigmoid()

    def logits(self, probabilities: Tensor) -> Tensor:
        """Return log(p / (1-p))."""
        near = probabilities.clamp(_SMALLEST, 1 - _CLOSEST)
        return near.log() - (1 - near).log()

    def rescaled(self, probabilities: Array, temperature: float) -> Array:
        """Return the sigmoids of the divided log(p / (1-p))."""
        import numpy as np

        near = np.clip(probabilities, _SMALLEST, 1 - _CLOSEST)
        return np.asarray(1 / (1 + np.exp((np.log(1 - near) - np.log(near)) / temperature)))

    def decide(self, probabilities: Any, thresholds: Any = None) -> Any:
        """Return whether each label is above its threshold."""
        return probabilities > (0.5 if thresholds is None else thresholds)

    def hits(self, probabilities: Tensor, targets: Tensor) -> Tensor:
        """Return how far what is said agrees with the target, averaged over the labels."""
        predicted: Tensor = self.decide(probabilities)
        if not targets.is_floating_point():
            return (predicted == targets.bool()).float().mean()
        return 1 - (predicted.float() - targets.float()).abs().mean()

    def thresholds(self, probabilities: Tensor, labels: Tensor) -> Tensor | None:
        """Return thresholds, each of which maximises its label's F1: a label is set where its probability is above.

        Of equally good thresholds the highest is taken. A threshold lies midway between two probabilities that occur; a
        label without a case keeps 0.5.
        """
        import torch

        ranked, order = probabilities.double().sort(dim=0, descending=True)
        truth = labels.to(ranked.dtype).gather(0, order)
        said = torch.arange(1, len(truth) + 1, dtype=ranked.dtype, device=truth.device)[:, None]
        f1 = 2 * truth.cumsum(dim=0) / (said + truth.sum(dim=0))
        following = torch.cat([ranked[1:], torch.zeros_like(ranked[:1])])
        f1 = torch.where(ranked > following, f1, -1.0)  # no threshold lies between equal probabilities
        best = f1.argmax(dim=0, keepdim=True)
        middle = (ranked.gather(0, best) + following.gather(0, best))[0] / 2
        return torch.where(truth.sum(dim=0) > 0, middle, 0.5).float()

    def entropy(self, probabilities: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Return the mean of the labels' binary entropies."""
        import numpy as np

        p, q = np.clip(probabilities, 1e-30, 1.0), np.clip(1 - probabilities, 1e-30, 1.0)
        return np.asarray((-(p * np.log2(p) + q * np.log2(q))).mean(axis=1).clip(0, 1))

    def confidence(self, probabilities: Array, predicted: Array) -> npt.NDArray[np.float64]:
        """Return (N, K) of what is said of each label, that it is there or not."""
        import numpy as np

        shown = probabilities.astype(np.float64)
        return np.where(predicted > 0, shown, 1 - shown)

    # --- results

    def statements(self, probabilities: Array, predicted: Array, labels: Array) -> tuple[Array, Array]:
        """Return (N, K) how probable each label is, and whether it is there."""
        import numpy as np

        return probabilities.astype(np.float64), labels.astype(np.float64)

    def decision_figure(self, labels: Array, predicted: Array, classes: Sequence[str], title: str) -> Figure:
        """Return bars of hits, misses and false alarms per label."""
        from visionforge.reporting.decisions import label_matrix

        return label_matrix(labels, predicted, classes, title)

    def decision_view(self, labels: Array, predicted: Array, classes: Sequence[str]) -> DecisionView:
        """Return bars of hits, misses and false alarms per label."""
        from visionforge.reporting.decisions import label_view

        return label_view(labels, predicted, classes)
