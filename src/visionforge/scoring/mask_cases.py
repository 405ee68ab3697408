"""Masks with their truth, and what weightings of the pictures have in common, however many metrics ask."""

from functools import cached_property

import numpy as np

from visionforge.scoring.boundaries import boundary_f1
from visionforge.scoring.masks import Counts, WeightedMasks, class_sizes, dice_of
from visionforge.scoring.rates import Array, Floats, mean


class MaskCases:
    """Masks of N pictures and their truth.

    Args:
        labels: (N, H, W) or (N, D, H, W) integers, 0 to K-1, or `ignore`.
        predicted: The same shape.
        classes: Number of classes K, the background included.
        ignore: Value of `labels` that marks pixels that do not count; None has none.
        background: A class that is in no mean over the classes; None has all of them in.
        tolerance: Distance in pixels up to which boundaries agree; None leaves them out.

    Attributes:
        labels: As given.
        predicted: As given.
        probabilities: None: those of pixels are not kept.
    """

    probabilities = None

    def __init__(
        self,
        labels: Array,
        predicted: Array,
        classes: int,
        ignore: int | None = None,
        background: int | None = None,
        tolerance: float | None = None,
    ) -> None:
        self.labels = labels
        self.predicted = predicted
        self.classes = classes
        self.ignore = ignore
        self.background = background
        self.tolerance = tolerance

    @classmethod
    def of_sizes(cls, shared: Counts, true: Counts, said: Counts, background: int | None = None) -> "MaskCases":
        """Return cases of which the overlaps are known, and the masks are not.

        Args:
            shared: (N, K) pixels of each class in both masks.
            true: (N, K) pixels of each class in the truth.
            said: (N, K) pixels of each class in the prediction.
            background: A class that is in no mean over the classes.

        Raises:
            ValueError: If the numbers cannot be of masks.
        """
        if not shared.shape == true.shape == said.shape or shared.ndim != 2:
            raise ValueError("pixels are not counted for the same pictures and classes")
        if bool((shared < 0).any() or (shared > true).any() or (shared > said).any()):
            raise ValueError("pixels that masks share are more than they have")
        empty = np.empty((len(shared), 0), dtype=np.int64)
        cases = cls(empty, empty, shared.shape[1], background=background)
        cases.sizes = shared.astype(np.int64), true.astype(np.int64), said.astype(np.int64)
        return cases

    @property
    def truth(self) -> Counts:
        """Return (N, K) true pixels of each class, by which two sets of masks show that theirs are the same."""
        return self.sizes[1]

    def weighted(self, weights: Floats) -> "WeightedMaskCases":
        """Return B weightings (N, B) of the pictures."""
        return WeightedMaskCases(self, weights)

    @cached_property
    def sizes(self) -> tuple[Counts, Counts, Counts]:
        """Return (N, K) pixels of each picture and class that are shared, true and predicted."""
        return class_sizes(self.labels, self.predicted, self.classes, self.ignore)

    @property
    def overlaps(self) -> tuple[Floats, Floats]:
        """Return (N, K) shared pixels of each picture and class, and those in truth and prediction together."""
        shared, true, said = self.sizes
        return shared.astype(np.float64), (true + said).astype(np.float64)

    @cached_property
    def boundary(self) -> Floats | None:
        """Return (N, K) boundary F1 of each picture and class; None without a tolerance."""
        if self.tolerance is None:
            return None
        return boundary_f1(self.labels, self.predicted, self.classes, self.tolerance, self.ignore)

    @cached_property
    def dice(self) -> Floats:
        """Return (N,) the mean Dice of each picture over its classes without the background; NaN if it has none."""
        values = dice_of(*self.overlaps)
        kept = values if self.background is None else np.delete(values, self.background, axis=1)
        return mean(kept.T)


class WeightedMaskCases(WeightedMasks):
    """B weightings of pictures, and what several metrics need of them.

    Args:
        cases: The pictures.
        weights: (N, B), how often each picture counts.
    """

    def __init__(self, cases: MaskCases, weights: Floats) -> None:
        super().__init__(*cases.overlaps, weights, cases.background)
        self.cases = cases
        self.weights = weights

    @cached_property
    def boundary_f1(self) -> Floats | None:
        """Return (K, B) means of the boundary F1 over the pictures that have the class; None without a tolerance."""
        return None if self.cases.boundary is None else self.by_picture(self.cases.boundary)

    @property
    def per_class(self) -> dict[str, Floats]:
        """Return name → (K, B) of everything that is told of each class."""
        found = {
            "dice": self.dice,
            "iou": self.iou,
            "dice_by_picture": self.dice_by_picture,
            "iou_by_picture": self.iou_by_picture,
        }
        return found if self.boundary_f1 is None else {**found, "boundary_f1": self.boundary_f1}
