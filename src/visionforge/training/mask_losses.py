"""The losses of masks: of each pixel by itself, and of how far masks overlap.

All are functions of logits (N, K, H, W) or (N, K, D, H, W), whose softmax over K is the class of a pixel, and of hard
or soft masks. They are float32 for logits of 16 bits, and their gradients are finite where a mask is empty or ignored
altogether. They are part of `visionforge.losses`.
"""

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from visionforge.training.criterion import check_gamma, check_label_smoothing, power
from visionforge.training.mask_targets import checked_masks, smoothed_masks


def pixel_cross_entropy(
    logits: Tensor,
    targets: Tensor,
    *,
    label_smoothing: float = 0.0,
    weights: Tensor | None = None,
    ignore: int | None = None,
) -> Tensor:
    """Return the cross-entropy of the pixels, a scalar: `cross_entropy` over all pixels of the batch that count.

    Args:
        logits: (N, K, H, W) or (N, K, D, H, W).
        targets: (N, H, W) or (N, D, H, W) integers, 0 to K-1 or `ignore`; or shares of the classes, as `logits`.
        label_smoothing: Share of the target that goes to the uniform distribution, 0 to 1 (Szegedy et al., 2016).
        weights: (K,) weight per class.
        ignore: Value of the targets that marks pixels that do not count, such as 255; a batch without others has 0.

    Raises:
        ValueError: If shapes, types or values do not fit. Values are looked at on the CPU only, so that no
            accelerator has to be waited for.

    >>> import torch
    >>> targets = torch.tensor([[[0, 3], [255, 255]]])
    >>> round(float(pixel_cross_entropy(torch.zeros(1, 4, 2, 2), targets, ignore=255)), 4)  # the logarithm of 4
    1.3863
    """
    return _pixel_loss(logits, targets, 0.0, label_smoothing, weights, ignore)


def pixel_focal(
    logits: Tensor,
    targets: Tensor,
    *,
    gamma: float = 2.0,
    label_smoothing: float = 0.0,
    weights: Tensor | None = None,
    ignore: int | None = None,
) -> Tensor:
    """Return the focal loss of the pixels (Lin et al., 2017, arXiv:1708.02002), a scalar: `focal` over all that count.

    Args:
        logits: As in `pixel_cross_entropy`.
        targets: As there.
        gamma: Exponent γ of (1 - p); 0 is the cross-entropy.
        label_smoothing: As there.
        weights: As there.
        ignore: As there.

    Raises:
        ValueError: As there.

    >>> import torch
    >>> logits, targets = torch.zeros(1, 2, 4, 4), torch.zeros(1, 4, 4, dtype=torch.int64)
    >>> round(float(pixel_focal(logits, targets) / pixel_cross_entropy(logits, targets)), 4)  # (1 - 1/2)²
    0.25
    """
    check_gamma(gamma)
    return _pixel_loss(logits, targets, gamma, label_smoothing, weights, ignore)


def dice_loss(
    logits: Tensor,
    targets: Tensor,
    *,
    smoothing: float = 1.0,
    squared: bool = False,
    per_image: bool = False,
    weights: Tensor | None = None,
    ignore: int | None = None,
) -> Tensor:
    """Return 1 minus the soft Dice of the classes, averaged over them; a scalar, 0 to 1.

    The Dice of a class with probabilities p and targets g is (2Σpg + s) / (Σp + Σg + s).

    Args:
        logits: (N, K, H, W) or (N, K, D, H, W).
        targets: (N, H, W) or (N, D, H, W) integers, 0 to K-1 or `ignore`; or shares of the classes, as `logits`.
        smoothing: s, in pixels, above 0. With it, a class that is neither there nor predicted has the loss 0, not 0/0,
            and its gradient is finite. It should be small against the pixels of an object: the larger it is, the less
            small objects count.
        squared: Divide by Σp² + Σg² + s, as Milletari et al. (2016, arXiv:1606.04797) do.
        per_image: Take the Dice of each image by itself, and then their mean; otherwise that of all pixels of the
            batch, which is steadier where classes are missing from many images.
        weights: (K,) weight of each class in the mean over them; 0 leaves one out, such as the background.
        ignore: Value of the targets that marks pixels that do not count, such as 255; a batch without others has 0.

    Raises:
        ValueError: If shapes, types or values do not fit. Values are looked at on the CPU only, so that no
            accelerator has to be waited for.

    >>> import torch
    >>> targets = torch.tensor([[[0, 0], [1, 1]]])
    >>> sure = 20.0 * torch.nn.functional.one_hot(targets, 2).movedim(-1, 1)
    >>> round(float(dice_loss(sure, targets)), 4), round(float(dice_loss(-sure, targets)), 4)
    (0.0, 0.8)
    """
    p, g, counted = _probabilities(logits, targets, weights, ignore)
    _check_smoothing(smoothing)
    sizes = (p**2 + g**2) if squared else p + g
    overlap, size = (_sums(each * counted, per_image) for each in (p * g, sizes))
    return _mean_loss((2 * overlap + smoothing) / (size + smoothing), weights)


def tversky_loss(
    logits: Tensor,
    targets: Tensor,
    *,
    alpha: float = 0.3,
    beta: float = 0.7,
    smoothing: float = 1.0,
    per_image: bool = False,
    weights: Tensor | None = None,
    ignore: int | None = None,
) -> Tensor:
    """Return 1 minus the Tversky index of the classes, averaged over them; a scalar, 0 to 1.

    Salehi et al. (2017, arXiv:1706.05721): (Σpg + s) / (Σpg + αΣp(1-g) + βΣ(1-p)g + s), so that missed pixels may cost
    more than wrong ones. α = β = 1/2 is the Dice loss with twice the smoothing, α = β = 1 the IoU.

    Args:
        logits: As in `dice_loss`.
        targets: As there.
        alpha: α, the cost of pixels that are wrongly said to be of a class, at least 0.
        beta: β, the cost of pixels that are missed, at least 0.
        smoothing: As there.
        per_image: As there.
        weights: As there.
        ignore: As there.

    Raises:
        ValueError: As there.

    >>> import torch
    >>> logits, targets = torch.zeros(1, 2, 4, 4), torch.zeros(1, 4, 4, dtype=torch.int64)
    >>> dice, tversky = dice_loss(logits, targets, smoothing=2), tversky_loss(logits, targets, alpha=0.5, beta=0.5)
    >>> bool(torch.isclose(dice, tversky))
    True
    """
    for name, value in (("alpha", alpha), ("beta", beta)):
        if not 0 <= value < float("inf"):
            raise ValueError(f"{name}: {value} is not allowed; allowed: a number, at least 0")
    if alpha == beta == 0:
        raise ValueError("alpha, beta: both are 0, so that no mistake costs anything; allowed: one above 0")
    p, g, counted = _probabilities(logits, targets, weights, ignore)
    _check_smoothing(smoothing)
    hits, wrong, missed = (_sums(each * counted, per_image) for each in (p * g, p * (1 - g), (1 - p) * g))
    return _mean_loss((hits + smoothing) / (hits + alpha * wrong + beta * missed + smoothing), weights)


def generalized_dice_loss(
    logits: Tensor,
    targets: Tensor,
    *,
    smoothing: float = 1.0,
    per_image: bool = False,
    ignore: int | None = None,
) -> Tensor:
    """Return the generalised Dice loss, in which a class counts by the inverse square of its size; a scalar, 0 to 1.

    Sudre et al. (2017, arXiv:1707.03237): 1 - (2Σw·Σpg + s) / (Σw·Σ(p+g) + s), the outer sums over the classes, with
    w = 1/(Σg)². The weights are divided by the largest, that of the rarest class, whose pixels s is counted in. A class
    that is not there has that weight, too.

    Args:
        logits: As in `dice_loss`.
        targets: As there.
        smoothing: s, in pixels of the rarest class, above 0.
        per_image: As there.
        ignore: As there.

    Raises:
        ValueError: As there.

    >>> import torch
    >>> targets = torch.zeros(1, 8, 8, dtype=torch.int64)
    >>> targets[0, :2, :2] = 1
    >>> nothing_found = 20.0 * torch.tensor([1.0, 0.0]).reshape(1, 2, 1, 1).expand(1, 2, 8, 8)
    >>> bool(generalized_dice_loss(nothing_found, targets) > dice_loss(nothing_found, targets))
    True
    """
    p, g, counted = _probabilities(logits, targets, None, ignore)
    _check_smoothing(smoothing)
    overlap, size, volume = (_sums(each * counted, per_image) for each in (p * g, p + g, g))
    there = volume > 0
    rarest = torch.where(there, volume, torch.inf).amin(dim=-1, keepdim=True)
    scale = torch.where(there, (rarest / volume.clamp(min=torch.finfo(volume.dtype).tiny)) ** 2, 1.0)
    above, below = ((scale * each).sum(dim=-1) for each in (overlap, size))
    return 1 - ((2 * above + smoothing) / (below + smoothing)).mean()


def _pixel_loss(
    logits: Tensor, targets: Tensor, gamma: float, smoothing: float, weights: Tensor | None, ignore: int | None
) -> Tensor:
    check_label_smoothing(smoothing)
    logits, shares, counted = checked_masks(logits, targets, weights, ignore)
    log_p = F.log_softmax(logits, dim=1)
    by_class = torch.ones_like(logits[:1]) if weights is None else _along(weights.to(logits), logits)
    weighted = smoothed_masks(shares, smoothing) * by_class * counted
    if gamma > 0:
        weighted = weighted * power(-torch.expm1(log_p), gamma)
    count = (shares * by_class * counted).sum()
    return -(weighted * log_p).sum() / torch.where(count > 0, count, 1.0)  # nothing that counts costs nothing


def _probabilities(
    logits: Tensor, targets: Tensor, weights: Tensor | None, ignore: int | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Return probabilities and targets (N, K, …), and (N, 1, …) which pixels count, 0 or 1."""
    logits, shares, counted = checked_masks(logits, targets, weights, ignore)
    return torch.softmax(logits, dim=1), shares, counted


def _check_smoothing(smoothing: float) -> None:
    if not 0 < smoothing < float("inf"):
        raise ValueError(f"smoothing: {smoothing} is not allowed; allowed: a number of pixels above 0")


def _along(weights: Tensor, logits: Tensor) -> Tensor:
    return weights.reshape(1, -1, *[1] * (logits.ndim - 2))


def _sums(values: Tensor, per_image: bool) -> Tensor:
    """Return (N, K) sums over the pixels of each image, or (1, K) over those of all."""
    found = values.flatten(2).sum(dim=2)
    return found if per_image else found.sum(dim=0, keepdim=True)


def _mean_loss(overlap: Tensor, weights: Tensor | None) -> Tensor:
    """Return 1 minus the weighted mean of (N, K) over the classes, averaged over N."""
    if weights is None:
        return 1 - overlap.mean()
    weights = weights.to(overlap)
    return 1 - ((overlap * weights).sum(dim=1) / weights.sum()).mean()
