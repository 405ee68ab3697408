"""The losses as functions of logits and targets, for use in any training loop.

All take hard targets, or target distributions as MixUp and label smoothing make them, and return the mean over the
batch. `pixel_cross_entropy`, `pixel_focal`, `dice_loss`, `tversky_loss` and `generalized_dice_loss` are of masks, the
others of whole images. Logits of 16 bits are computed with in float32. Errors are `ValueError`.

>>> import torch
>>> from visionforge import losses
>>> logits, labels = torch.tensor([[2.0, 0.0, -1.0], [0.0, 1.0, 0.0]]), torch.tensor([0, 1])
>>> round(float(losses.cross_entropy(logits, labels)), 4)
0.3606
>>> round(float(losses.focal(logits, labels, gamma=2.0)), 4)
0.0516
"""

import torch
from torch import Tensor

from visionforge.config.schema import Loss, TaskName
from visionforge.config.schema.tasks import usual_task
from visionforge.training.criterion import (
    Criterion,
    CumulativeLogits,
    check_gamma,
    check_label_smoothing,
    class_weights,
    cumulative_probabilities,
    is_cumulative,
)
from visionforge.training.mask_losses import (
    dice_loss,
    generalized_dice_loss,
    pixel_cross_entropy,
    pixel_focal,
    tversky_loss,
)

__all__ = [
    "CumulativeLogits",
    "balanced_weights",
    "binary_cross_entropy",
    "cross_entropy",
    "dice_loss",
    "effective_number_weights",
    "focal",
    "generalized_dice_loss",
    "ordinal",
    "ordinal_probabilities",
    "pixel_cross_entropy",
    "pixel_focal",
    "tversky_loss",
]


def cross_entropy(
    logits: Tensor, targets: Tensor, *, label_smoothing: float = 0.0, weights: Tensor | None = None
) -> Tensor:
    """Return the cross-entropy of classes, a scalar.

    It is that of ``torch.nn.functional.cross_entropy``, except that shares with weights give a weighted mean, too: the
    sum is divided by the weight of the targets as they were given, not by N.

    Args:
        logits: (N, K).
        targets: (N,) int64 classes, or (N, K) shares of the classes.
        label_smoothing: Share of the target that goes to the uniform distribution, 0 to 1 (Szegedy et al., 2016).
        weights: (K,) weight per class.

    Raises:
        ValueError: If shapes, types or values do not fit.

    >>> import torch
    >>> logits = torch.zeros(2, 4)
    >>> round(float(cross_entropy(logits, torch.tensor([0, 3]))), 4)  # the logarithm of 4
    1.3863
    """
    return _loss("cross_entropy", False, logits, targets, label_smoothing, weights)


def binary_cross_entropy(
    logits: Tensor, targets: Tensor, *, label_smoothing: float = 0.0, weights: Tensor | None = None
) -> Tensor:
    """Return the binary cross-entropy of labels that do not exclude each other, averaged over images and labels.

    Args:
        logits: (N, L).
        targets: (N, L), 0 to 1.
        label_smoothing: Share s of a target t that goes to one half: t(1-s) + s/2.
        weights: (L,) weight of the positive cases of each label, as `pos_weight` of PyTorch.

    Raises:
        ValueError: If shapes, types or values do not fit.

    >>> import torch
    >>> round(float(binary_cross_entropy(torch.zeros(1, 3), torch.tensor([[1, 0, 1]]))), 4)
    0.6931
    """
    return _loss("bce", True, logits, targets, label_smoothing, weights)


def focal(
    logits: Tensor,
    targets: Tensor,
    *,
    gamma: float = 2.0,
    label_smoothing: float = 0.0,
    weights: Tensor | None = None,
    multi_label: bool = False,
) -> Tensor:
    """Return the focal loss (Lin et al., 2017, arXiv:1708.02002), which weighs cases by how wrong they still are.

    Args:
        logits: (N, K).
        targets: (N,) int64 classes, or (N, K) shares of the classes; (N, K), 0 to 1, with `multi_label`.
        gamma: Exponent γ of (1 - p); 0 is the cross-entropy.
        label_smoothing: As in `cross_entropy` and `binary_cross_entropy`.
        weights: (K,) weight per class, or of the positive cases of each label.
        multi_label: The classes are labels that do not exclude each other.

    Raises:
        ValueError: If shapes, types or values do not fit.

    >>> import torch
    >>> logits, labels = torch.tensor([[3.0, 0.0]]), torch.tensor([0])
    >>> bool(focal(logits, labels) < cross_entropy(logits, labels))
    True
    """
    check_gamma(gamma)
    return _loss("focal", multi_label, logits, targets, label_smoothing, weights, gamma)


def ordinal(logits: Tensor, targets: Tensor, *, label_smoothing: float = 0.0, weights: Tensor | None = None) -> Tensor:
    """Return the loss of ordered grades: binary cross-entropies of "the grade is above k", summed over k.

    Cao et al. (2020, arXiv:1901.07884). `CumulativeLogits` makes such logits from one score.

    Args:
        logits: (N, K-1), falling in k.
        targets: (N,) int64 grades 0 to K-1, or (N, K) shares of the grades.
        label_smoothing: As in `cross_entropy`.
        weights: (K,) weight per grade.

    Raises:
        ValueError: If shapes, types or values do not fit.

    >>> import torch
    >>> head = CumulativeLogits(4)
    >>> logits = head(torch.tensor([[0.5], [-1.0]]))
    >>> tuple(logits.shape), tuple(ordinal_probabilities(logits).shape)
    ((2, 3), (2, 4))
    >>> bool(ordinal(logits, torch.tensor([2, 0])) > 0)
    True
    """
    return _loss("ordinal", False, logits, targets, label_smoothing, weights)


def ordinal_probabilities(logits: Tensor) -> Tensor:
    """Return (N, K) probabilities of the grades from (N, K-1) cumulative logits that fall in k."""
    return cumulative_probabilities(logits.float())


def balanced_weights(counts: Tensor, *, images: int | None = None) -> Tensor:
    """Return weights (K,) float64 that are inverse to the class counts.

    Of classes, N / (K·n), as scikit-learn's ``balanced``; a class without images weighs 1.

    Args:
        counts: (K,) images per class, or positive images per label.
        images: Of labels that do not exclude each other, the number N of all images: a label's weight is then that of
            its positive cases, (N-n)/n. None for classes.

    >>> import torch
    >>> balanced_weights(torch.tensor([10, 30])).tolist()
    [2.0, 0.6666666666666666]
    """
    return _weights(Loss(class_weights="balanced"), counts, images)


def effective_number_weights(counts: Tensor, *, beta: float = 0.999, images: int | None = None) -> Tensor:
    """Return weights (K,) float64 by the effective number of images, (1-β)/(1-βⁿ), scaled to the mean 1.

    Cui et al. (2019, arXiv:1901.05555).

    Args:
        counts: (K,) images per class, or positive images per label.
        beta: β, between 0 and 1; the nearer to 1, the nearer to `balanced_weights`.
        images: As in `balanced_weights`.

    >>> import torch
    >>> [round(weight, 2) for weight in effective_number_weights(torch.tensor([10, 1000])).tolist()]
    [1.97, 0.03]
    """
    if not 0 < beta < 1:
        raise ValueError(f"beta: {beta} is not allowed; allowed: a number, above 0 to below 1")
    return _weights(Loss(class_weights="effective-number", effective_beta=beta), counts, images)


def _weights(settings: Loss, counts: Tensor, images: int | None) -> Tensor:
    if counts.ndim != 1 or not len(counts) or bool((counts < 0).any()) or not bool((counts > 0).any()):
        raise ValueError(f"counts: {counts.tolist()} is not allowed; allowed: (K,) numbers of images, not all 0")
    if images is not None and images < int(counts.max()):
        raise ValueError(f"images: {images} is not allowed; a label has {int(counts.max())}")
    task = _task(images is not None)
    total = int(counts.sum()) if images is None else images
    found = class_weights(settings, counts, tuple(map(str, range(len(counts)))), task, total)
    assert found is not None, "only `none` has no weights"
    return found


def _task(several: bool) -> TaskName:
    """Return a task of classes that exclude each other, or of labels that do not."""
    return usual_task(several, 3, own=True)


def _loss(
    name: str,
    several: bool,
    logits: Tensor,
    targets: Tensor,
    smoothing: float,
    weights: Tensor | None,
    gamma: float = 0.0,
) -> Tensor:
    if logits.ndim != 2 or not logits.numel() or not logits.is_floating_point():
        raise ValueError(f"logits: {tuple(logits.shape)} of {logits.dtype}; allowed: floats (N, K), at least one image")
    classes = logits.shape[1] + is_cumulative(name)
    check_label_smoothing(smoothing)
    if weights is not None and weights.shape != (classes,):
        raise ValueError(f"weights: {tuple(weights.shape)}; allowed: ({classes},)")
    if targets.shape == (len(logits), classes):
        pass
    elif several or targets.shape != (len(logits),):
        hard = "" if several else f"({len(logits)},) or "
        raise ValueError(f"targets: {tuple(targets.shape)}; allowed: {hard}({len(logits)}, {classes})")
    elif targets.is_floating_point() or targets.dtype == torch.bool:
        raise ValueError(f"targets: {targets.dtype} of the shape (N,); allowed: int64 classes")
    elif targets.device.type == "cpu" and not 0 <= int(targets.min()) <= int(targets.max()) < classes:
        raise ValueError(f"targets: {int(targets.min())} to {int(targets.max())}; allowed: 0 to {classes - 1}")
    else:
        targets = targets.long()
    return Criterion(name, _task(several), classes, smoothing, gamma, weights)(logits, targets)
