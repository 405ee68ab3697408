"""The losses, for hard, smoothed and mixed targets, with class weights; and the probabilities that belong to them.

All are functions of logits and of a target distribution, so that smoothing, MixUp and CutMix need no case of their own.
The weighted mean divides by the weight of the unsmoothed targets, as ``torch.nn.functional.cross_entropy`` does.
"""

from dataclasses import dataclass, replace
from typing import Protocol, Self

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from visionforge.config.schema import Loss, Task, TaskName
from visionforge.config.schema.tasks import fits, task_named
from visionforge.errors import SettingsError


def cumulative_probabilities(logits: Tensor) -> Tensor:
    """Return (N, K) probabilities of grades from (N, K-1) logits of "the grade is above 0, 1, …", which fall.

    A grade's probability is the difference of its neighbours, which is never negative because the logits fall.
    """
    above = F.pad(torch.sigmoid(logits), (1, 0), value=1.0)
    return above - F.pad(above[:, 1:], (0, 1), value=0.0)


class CumulativeLogits(nn.Module):
    """From one score to K-1 logits of "the grade is above k", which share the score's weights and fall with k.

    The rank-consistent form of Cao et al. (2020, arXiv:1901.07884), in which the thresholds are ordered by
    construction: their distances are softplus of free parameters.

    Args:
        classes: Number of grades K.
    """

    def __init__(self, classes: int) -> None:
        super().__init__()
        # of equally frequent grades, the logit of P(grade > k) is that of 1 - (k+1)/K at score 0
        start = torch.logit(1 - torch.arange(1, classes) / classes)
        self.first = nn.Parameter(start[:1].clone())
        gaps = start[:-1] - start[1:]
        self.gaps = nn.Parameter(torch.log(torch.expm1(gaps)))

    def forward(self, score: Tensor) -> Tensor:
        """Map scores (N, 1) to logits (N, K-1), highest first."""
        falls = F.pad(torch.cumsum(F.softplus(self.gaps), dim=0), (1, 0))
        return score + self.first - falls


class AnyCriterion(Protocol):
    """What a network is trained by, and the probabilities that belong to its outputs."""

    @property
    def cumulative(self) -> bool:
        """Return whether the network's outputs are K-1 cumulative logits, and not K that are the task's."""

    def probabilities(self, logits: Tensor) -> Tensor:
        """Return (N, K, …) float32 probabilities of the network's outputs."""

    def plain(self) -> Self:
        """Return the same loss without what only the training needs, for comparisons between runs."""

    def divisor(self, targets: Tensor) -> Tensor | None:
        """Return what makes a mean of a sum over the batch, a scalar, where that is not the number of its images.

        None, too, where the loss is no such mean.
        """

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the mean loss of a batch, a scalar."""


@dataclass(frozen=True)
class Criterion:
    """The configured loss of one task of whole images.

    Attributes:
        name: Which loss.
        task: Kind of labels.
        classes: Number of classes K.
        smoothing: Share s of the target that goes to the uniform distribution (Szegedy et al., 2016); per label, the
            target is t(1-s) + s/2.
        focal_gamma: Exponent γ of the focal loss.
        weights: (K,) weight per class; of labels, the weight of the positive cases of each.
        own: A loss of another package, which computes itself.
    """

    name: str
    task: TaskName
    classes: int
    smoothing: float = 0.0
    focal_gamma: float = 0.0
    weights: Tensor | None = None
    own: Loss | None = None

    @classmethod
    def of(cls, settings: Loss, task: TaskName, classes: int, weights: Tensor | None = None) -> "Criterion":
        """Return the loss that the settings mean for a task."""
        loss = settings.of_task(task)
        if not fits(loss.tasks, task):
            raise SettingsError(f"model.loss.name: {loss.name} does not fit labels that are {task}")
        gamma = float(getattr(loss, "focal_gamma", 0.0))
        own = None if type(loss).loss is Loss.loss else loss
        return cls(loss.name, task, classes, loss.label_smoothing, gamma, weights, own)

    @property
    def kind(self) -> Task:
        """Return the task."""
        return task_named(self.task)

    @property
    def cumulative(self) -> bool:
        """Return whether the network's outputs are K-1 cumulative logits, and not K that are the task's."""
        return is_cumulative(self.name)

    def probabilities(self, logits: Tensor) -> Tensor:
        """Return (N, K) float32 probabilities of the network's outputs."""
        logits = logits.float()
        return cumulative_probabilities(logits) if self.cumulative else self.kind.probabilities(logits)

    def plain(self) -> "Criterion":
        """Return the same loss without smoothing, focusing and weights, for comparisons between runs.

        That of another package is compared by the (binary) cross-entropy.
        """
        return replace(self, smoothing=0.0, focal_gamma=0.0, weights=None, own=None)

    def divisor(self, targets: Tensor) -> Tensor | None:
        """Return the weight of the targets before smoothing, if classes have one."""
        if self.weights is None or self.own is not None or self.kind.several:
            return None
        return (self._shares(targets) * self.weights.to(targets.device)).sum()

    def _shares(self, targets: Tensor) -> Tensor:
        return self.kind.targets(targets, self.classes) if targets.ndim == 1 else targets

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the weighted mean loss of a batch.

        Args:
            logits: (N, K), or (N, K-1) cumulative.
            targets: (N,) int64 classes, (N, K) shares of the classes, or (N, K) 0..1 per label.
        """
        targets = self._shares(targets)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))  # of 16-bit training
        targets = targets.to(logits.dtype)
        weights = None if self.weights is None else self.weights.to(logits)
        smooth = self.kind.smoothed(targets, self.smoothing)
        if self.own is not None:
            return self.own.loss(logits, smooth, weights)
        if self.kind.several:
            return self._per_label(logits, smooth, weights)
        count = targets.sum() if weights is None else (targets * weights).sum()
        weighted = smooth if weights is None else smooth * weights
        if self.cumulative:
            return _cumulative_loss(logits, weighted) / count
        log_p = F.log_softmax(logits, dim=1)
        if self.name == "focal":
            weighted = weighted * power(-torch.expm1(log_p), self.focal_gamma)
        return -(weighted * log_p).sum() / count

    def _per_label(self, logits: Tensor, smooth: Tensor, weights: Tensor | None) -> Tensor:
        """Binary cross-entropy or focal loss (Lin et al., 2017), averaged over images and labels."""
        positive, negative = smooth if weights is None else smooth * weights, 1 - smooth
        if self.name == "focal":
            p = torch.sigmoid(logits)
            positive, negative = positive * power(1 - p, self.focal_gamma), negative * power(p, self.focal_gamma)
        return -(positive * F.logsigmoid(logits) + negative * F.logsigmoid(-logits)).mean()


def is_cumulative(name: str) -> bool:
    """Return whether a loss takes cumulative logits."""
    kind = Loss.family.kinds.get(name)
    return bool(getattr(kind, "cumulative", False))


def check_gamma(gamma: float) -> None:
    """Check the exponent of a focal loss.

    Raises:
        ValueError: If it is not allowed.
    """
    if not gamma >= 0:
        raise ValueError(f"gamma: {gamma} is not allowed; allowed: a number, at least 0")


def check_label_smoothing(smoothing: float) -> None:
    """Check the share of a target that goes to the uniform distribution.

    Raises:
        ValueError: If it is not allowed.
    """
    if not 0 <= smoothing <= 1:
        raise ValueError(f"label_smoothing: {smoothing} is not allowed; allowed: a number, 0 to 1")


def power(base: Tensor, exponent: float) -> Tensor:
    """Return base**exponent for 0 <= base <= 1, with a finite gradient at 0 for every exponent."""
    return base.clamp(min=torch.finfo(base.dtype).tiny) ** exponent


def _cumulative_loss(logits: Tensor, shares: Tensor) -> Tensor:
    """Return the sum over images and grades of binary cross-entropies with the target "the grade is above k"."""
    above = shares.flip(1).cumsum(dim=1).flip(1)[:, 1:]
    below = shares.sum(dim=1, keepdim=True) - above
    return -(above * F.logsigmoid(logits) + below * F.logsigmoid(-logits)).sum()


def class_weights(
    settings: Loss, counts: Tensor, classes: tuple[str, ...], task: TaskName, images: int
) -> Tensor | None:
    """Return (K,) float64 weights, or None for none.

    balanced is N / (K·n) as in scikit-learn; effective-number is (1-β)/(1-βⁿ), scaled to the mean 1 (Cui et al., 2019,
    arXiv:1901.05555). Of labels that do not exclude each other, the weight belongs to a label's positive cases and is
    the ratio of the two kinds, (N-n)/n under balanced. A class without images weighs 1.

    Args:
        settings: The loss.
        counts: (K,) training images per class or label.
        classes: Names of the classes.
        task: Kind of labels.
        images: Number of training images N.

    Raises:
        SettingsError: If a mapping names a class that does not exist.
    """
    chosen = settings.class_weights
    if chosen == "none":
        return None
    if isinstance(chosen, dict):
        if unknown := [name for name in chosen if name not in classes]:
            raise SettingsError(
                f"model.loss.class_weights: there is no class {unknown[0]!r}; classes: {', '.join(classes)}"
            )
        return torch.tensor([chosen.get(name, 1.0) for name in classes], dtype=torch.float64)
    beta = None if chosen == "balanced" else settings.effective_beta
    return task_named(task).class_weights(counts.double(), images, beta)
