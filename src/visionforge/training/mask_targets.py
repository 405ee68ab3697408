"""What the losses of masks are computed from, checked: logits, shares of the classes, and which pixels count."""

import torch
from torch import Tensor


def checked_masks(
    logits: Tensor, targets: Tensor, weights: Tensor | None, ignore: int | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Return logits and shares of the classes (N, K, …), at least float32, and (N, 1, …) which pixels count, 0 or 1.

    Args:
        logits: (N, K, H, W) or (N, K, D, H, W).
        targets: (N, H, W) or (N, D, H, W) integers, 0 to K-1 or `ignore`; or shares of the classes, as `logits`, of
            which a pixel without any does not count.
        weights: (K,) weight per class, or None.
        ignore: Value of the targets that marks pixels that do not count, or None.

    Raises:
        ValueError: If shapes, types or values do not fit. Values are looked at on the CPU only, so that no
            accelerator has to be waited for.
    """
    if logits.ndim not in (4, 5) or not logits.numel() or not logits.is_floating_point() or logits.shape[1] < 2:
        raise ValueError(
            f"logits: {tuple(logits.shape)} of {logits.dtype}; allowed: floats (N, K, H, W) or (N, K, D, H, W), "
            "at least two classes, the background included"
        )
    classes, hard = logits.shape[1], (len(logits), *logits.shape[2:])
    _check_weights(weights, classes)
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))  # of 16-bit training
    if logits.device.type == "cpu" and not bool(logits.isfinite().all()):
        raise ValueError("logits: a value is not a finite number; the training may have diverged")
    if targets.shape == logits.shape:
        shares = _soft(targets, ignore).to(logits)
        return logits, shares, (shares.sum(dim=1, keepdim=True) > 0).to(logits)
    if targets.shape != hard:
        raise ValueError(f"targets: {tuple(targets.shape)}; allowed: {hard} or {tuple(logits.shape)}")
    if targets.is_floating_point() or targets.is_complex():
        raise ValueError(f"targets: {targets.dtype} of the shape {hard}; allowed: integers, the class of each pixel")
    targets = targets.to(logits.device, torch.int64)
    counted = torch.ones_like(targets, dtype=torch.bool) if ignore is None else targets != ignore
    targets = torch.where(counted, targets, 0)
    if targets.device.type == "cpu" and not 0 <= int(targets.min()) <= int(targets.max()) < classes:
        also = "" if ignore is None else f", or {ignore}, which is ignored"
        raise ValueError(f"targets: {int(targets.min())} to {int(targets.max())}; allowed: 0 to {classes - 1}{also}")
    shares = torch.zeros_like(logits).scatter_(1, targets[:, None], 1.0)
    return logits, shares, counted[:, None].to(logits)


def smoothed_masks(shares: Tensor, smoothing: float) -> Tensor:
    """Return shares of the classes of which a part goes to the uniform distribution (Szegedy et al., 2016).

    Args:
        shares: (N, K, …); of a mixed pixel only what counts of it is spread, of one that does not count nothing.
        smoothing: That part, 0 to 1.
    """
    if smoothing == 0:
        return shares
    return shares * (1 - smoothing) + smoothing / shares.shape[1] * shares.sum(dim=1, keepdim=True)


def _soft(targets: Tensor, ignore: int | None) -> Tensor:
    if ignore is not None:
        raise ValueError(f"ignore: {ignore} is of classes; allowed for shares of the classes: None")
    if targets.device.type == "cpu" and not bool(((targets >= 0) & (targets <= 1)).all()):  # also of NaN
        raise ValueError("targets: a share is not between 0 and 1")
    return targets


def _check_weights(weights: Tensor | None, classes: int) -> None:
    if weights is None:
        return
    if weights.shape != (classes,):
        raise ValueError(f"weights: {tuple(weights.shape)}; allowed: ({classes},)")
    if weights.device.type == "cpu" and not (bool((weights >= 0).all()) and 0 < float(weights.sum()) < float("inf")):
        raise ValueError(f"weights: {weights.tolist()} is not allowed; allowed: numbers, at least 0, one above 0")
