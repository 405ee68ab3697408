"""Augmentation, MixUp, CutMix and test-time views as functions of whole batches, for use in any training loop.

Masks and boxes go with their images. Random numbers are a function of `seed`; without one, it is drawn from torch's
generator. Errors are `ValueError`.

>>> import torch
>>> from visionforge import augmentations
>>> images = torch.randint(0, 256, (8, 3, 28, 28), dtype=torch.uint8)
>>> pixels = augmentations.random_augment(images, "strong", mean=(0.5,) * 3, std=(0.25,) * 3, seed=1)
>>> mixed, targets = augmentations.mixup(pixels, torch.arange(8) % 2, alpha=0.4, classes=2, seed=1)
>>> tuple(mixed.shape), tuple(targets.shape)
((8, 3, 28, 28), (8, 2))
>>> masks = (images[:, 0] > 127).to(torch.uint8)
>>> pixels, masks = augmentations.random_augment(images, "strong", mean=(0.5,) * 3, std=(0.25,) * 3, masks=masks)
>>> tuple(masks.shape), masks.dtype
((8, 28, 28), torch.uint8)
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, get_args, overload

import torch
import torch.nn.functional as F  # noqa: N812
from pydantic import ValidationError
from torch import Tensor

from visionforge.config.problems import validation_problems
from visionforge.config.schema import Augmentation, Preset, TtaMode
from visionforge.config.seeding import derive_seed
from visionforge.data.augment import AugmentationDraw, apply_operations, normalise, numbers_for
from visionforge.data.augment_volumes import apply_draw, draw_for
from visionforge.data.draws import Draws
from visionforge.data.info import DomainFlags
from visionforge.data.move_labels import LEAST_AREA, move_box_lists, move_masks
from visionforge.training.mixing.mixup import MixUp
from visionforge.training.mixup import draw_mix, mix_images, mix_masks, mix_soft_masks, mix_targets
from visionforge.training.tta import average_views, dense_view_functions, tta_views, undo_view

__all__ = ["Augmentation", "DomainFlags", "average_over_views", "cutmix", "mixup", "normalise", "random_augment"]


@overload
def random_augment(
    images: Tensor,
    augmentation: Augmentation | Mapping[str, Any] | Preset = "standard",
    *,
    mean: Sequence[float],
    std: Sequence[float],
    seed: int | None = None,
    masks: None = None,
    boxes: None = None,
    fill: int = 0,
    least_area: float = LEAST_AREA,
) -> Tensor: ...
@overload
def random_augment(
    images: Tensor,
    augmentation: Augmentation | Mapping[str, Any] | Preset = "standard",
    *,
    mean: Sequence[float],
    std: Sequence[float],
    seed: int | None = None,
    masks: Tensor,
    boxes: None = None,
    fill: int = 0,
    least_area: float = LEAST_AREA,
) -> tuple[Tensor, Tensor]: ...
@overload
def random_augment(
    images: Tensor,
    augmentation: Augmentation | Mapping[str, Any] | Preset = "standard",
    *,
    mean: Sequence[float],
    std: Sequence[float],
    seed: int | None = None,
    masks: None = None,
    boxes: Sequence[Tensor],
    fill: int = 0,
    least_area: float = LEAST_AREA,
) -> tuple[Tensor, list[Tensor], list[Tensor]]: ...
@overload
def random_augment(
    images: Tensor,
    augmentation: Augmentation | Mapping[str, Any] | Preset = "standard",
    *,
    mean: Sequence[float],
    std: Sequence[float],
    seed: int | None = None,
    masks: Tensor,
    boxes: Sequence[Tensor],
    fill: int = 0,
    least_area: float = LEAST_AREA,
) -> tuple[Tensor, Tensor, list[Tensor], list[Tensor]]: ...
def random_augment(
    images: Tensor,
    augmentation: Augmentation | Mapping[str, Any] | Preset = "standard",
    *,
    mean: Sequence[float],
    std: Sequence[float],
    seed: int | None = None,
    masks: Tensor | None = None,
    boxes: Sequence[Tensor] | None = None,
    fill: int = 0,
    least_area: float = LEAST_AREA,
) -> (
    Tensor
    | tuple[Tensor, Tensor]
    | tuple[Tensor, list[Tensor], list[Tensor]]
    | tuple[Tensor, Tensor, list[Tensor], list[Tensor]]
):
    """Return a batch flipped, rotated, cropped, coloured and normalised, each image or volume by a draw of its own.

    One resampling and one colour matrix per image, on the device of the images; the draws are the same on every device,
    but those of further `operations` that take a generator.
    The ranges are those of torchvision, and of RandAugment (Cubuk et al., 2020, arXiv:1909.13719).

    Masks and boxes of images, not of volumes, are moved by the same draw. A mask takes the value of the nearest pixel
    where its image is interpolated; a box becomes the smallest upright one around its moved corners, clipped to the
    image. Further `operations`, such as an erased rectangle, leave both as they are.

    Args:
        images: (N, C, R, R) uint8, C is 1 or 3; or volumes (N, C, R, R, R).
        augmentation: The ranges; a word is a preset: ``none``, ``light``, ``standard`` or ``strong``.
        mean: Mean of each output channel, of values in [0, 1].
        std: Standard deviation of each.
        seed: What the draws are a function of; None takes one from torch's generator.
        masks: (N, R, R) of any integer type or bool.
        boxes: For each image (M, 4) floats, x1, y1, x2, y2 in pixels, from 0 at the left or upper border to R; M may
            be 0, and another one for every image.
        fill: Value of a mask where its image shows what is outside.
        least_area: Share of its own area, as it is moved, that must lie within the image for a box to be kept, 0 to 1.

    Returns:
        (N, len(mean), R, R[, R]) float32. A grey image fills all output channels. With masks or boxes it is the first
        of several: the masks, then the boxes that are kept of each image, and for each image (M,) bool, which ones
        they are, to choose their classes by.

    Raises:
        ValueError: If shapes, types or values do not fit.

    >>> images = torch.zeros(2, 1, 28, 28, dtype=torch.uint8)
    >>> found = random_augment(images, {"hflip": 0.5, "rotation_angle": 20}, mean=(0.5,), std=(0.5,))
    >>> tuple(found.shape), float(found.min())
    ((2, 1, 28, 28), -1.0)
    >>> mirrored = {"hflip": 1, "rotation_angle": 0, "min_scale": 1, "jitter_val": 0}
    >>> boxes = [torch.tensor([[0.0, 0.0, 10.0, 20.0]]), torch.zeros(0, 4)]
    >>> found, moved, kept = random_augment(images, mirrored, mean=(0.5,), std=(0.5,), boxes=boxes)
    >>> moved[0].tolist(), kept[0].tolist(), len(moved[1])
    ([[18.0, 0.0, 28.0, 20.0]], [True], 0)
    """
    settings = _settings_of(images, augmentation, mean, std)
    if images.ndim == 5 and (masks is not None or boxes is not None):
        raise ValueError("masks, boxes: volumes have none that could be moved; allowed: those of images (N, C, R, R)")
    if masks is not None and masks.shape[1:] != images.shape[2:]:
        raise ValueError(f"masks: {tuple(masks.shape)}; allowed for these images: {_without_channels(images)}")
    seed = _seed(seed)
    further = len(settings.operations) > 0
    channels = images.shape[1]
    constants = ((0.0,) * channels, (1.0,) * channels) if further else (mean, std)
    labels: tuple[Tensor | list[Tensor], ...] = ()
    draws = Draws.at(seed % (1 << 63), torch.arange(len(images), device=images.device))
    draw = draw_for(images.ndim - 2, draws, settings)
    if isinstance(draw, AugmentationDraw):
        if masks is not None:
            labels = (move_masks(masks, draw.to(masks.device), fill),)
        if boxes is not None:
            labels = (*labels, *move_box_lists(boxes, draw, (images.shape[-2], images.shape[-1]), least_area))
    pixels = apply_draw(images, draw, *constants)
    if further:
        own = derive_seed(seed % (1 << 63), "operations")
        numbers = numbers_for(settings.operations, own, torch.arange(len(images), device=images.device), own)
        operations = [operation.build() for operation in settings.operations]
        pixels = apply_operations(pixels, operations, numbers, mean, std)
    return (pixels, *labels) if labels else pixels  # type: ignore[return-value]  # the overloads tell which


def mixup(
    images: Tensor,
    targets: Tensor,
    *,
    alpha: float,
    classes: int | None = None,
    per_image: bool = False,
    seed: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Return images (N, C, H, W) and targets (N, K), each mixed with those of a partner in the batch.

    Zhang et al. (2018, arXiv:1710.09412): λ·image + (1-λ)·partner, λ from Beta(alpha, alpha).

    Args:
        images: (N, C, H, W) floats, or volumes (N, C, D, H, W).
        targets: (N,) int64 classes, or (N, K) shares; or masks (N, H, W) of classes, which become shares (N, K, H, W),
            where values that are none of the classes give no share.
        alpha: Strength, above 0 to 1.
        classes: Number of classes K; needed for targets (N,) and for masks.
        per_image: Draw λ for every image instead of once.
        seed: What the draw is a function of; None takes one from torch's generator.

    Raises:
        ValueError: If shapes, types or values do not fit.

    >>> mixed, targets = mixup(torch.zeros(4, 3, 8, 8), torch.tensor([0, 1, 2, 0]), alpha=1.0, classes=3)
    >>> targets.sum(dim=1).tolist()
    [1.0, 1.0, 1.0, 1.0]
    """
    _check_strength(alpha)
    return _mixed(images, targets, MixUp(alpha=alpha, cutmix_alpha=0.0, per_image=per_image), classes, seed)


def cutmix(
    images: Tensor,
    targets: Tensor,
    *,
    alpha: float,
    classes: int | None = None,
    per_image: bool = False,
    seed: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Return images (N, C, R, R) with a patch of a partner in the batch, and targets (N, K) mixed by its area.

    Yun et al. (2019, arXiv:1905.04899): the share of the image that stays is from Beta(alpha, alpha).

    Args:
        images: (N, C, R, R) floats, or volumes (N, C, R, R, R), whose patch is a box.
        targets: As in `mixup`; but masks stay masks of any type, with the patch of their partner.
        alpha: As there.
        classes: As there.
        per_image: Draw a patch for every image instead of once.
        seed: As there.

    Raises:
        ValueError: If shapes, types or values do not fit.

    >>> mixed, targets = cutmix(torch.rand(4, 1, 8, 8), torch.eye(4), alpha=1.0, seed=0)
    >>> tuple(mixed.shape)
    (4, 1, 8, 8)
    >>> masks = torch.arange(4)[:, None, None].expand(4, 8, 8)
    >>> mixed, pasted = cutmix(masks[:, None].float(), masks, alpha=1.0, seed=0)
    >>> torch.equal(mixed[:, 0].long(), pasted)
    True
    """
    _check_strength(alpha)
    _check_square(images)
    return _mixed(images, targets, MixUp(alpha=0.0, cutmix_alpha=alpha, per_image=per_image), classes, seed)


def average_over_views(
    predict: Callable[[Tensor], Tensor],
    images: Tensor,
    flags: DomainFlags,
    mode: TtaMode = "full",
    *,
    weight: float | None = None,
    dense: bool = False,
) -> Tensor:
    """Return the mean (N, K) of a network's probabilities over views of the images that keep their label.

    All views are exact: flips, quarter turns, shifts by whole pixels.

    Args:
        predict: From images (V·N, C, R, R) to probabilities (V·N, K), or with `dense` (V·N, K, H, W).
        images: (N, C, R, R), normalised; or volumes (N, C, R, R, R), whose views include those along the depth.
        flags: Which changes keep the label.
        mode: ``full``; ``light``, flips only; or ``off``.
        weight: Weight of the image itself, between 0 and 1; None gives every view the same.
        dense: The probabilities are those of pixels, and each view's are turned back before the mean, (N, K, H, W), is
            taken. Shifts are then left out, because they lose the border.

    Raises:
        ValueError: If shapes or values do not fit.

    >>> flags = DomainFlags(
    ...     hflip=True, vflip=False, rotation="none", texture_is_label=False, colour_is_label=False
    ... )
    >>> left = lambda views: views[:, 0, :, :14].mean(dim=(1, 2))[:, None]
    >>> images = torch.zeros(1, 1, 28, 28)
    >>> images[..., :14] = 1.0
    >>> float(average_over_views(left, images, flags, "light"))
    0.5
    >>> torch.equal(average_over_views(lambda views: views, images, flags, dense=True), images)
    True
    """
    if mode not in get_args(TtaMode):
        raise ValueError(f"mode: {mode!r} is not allowed; allowed: {', '.join(get_args(TtaMode))}")
    if weight is not None and not 0 < weight < 1:
        raise ValueError(f"weight: {weight} is not allowed; allowed: above 0 to below 1, or None")
    _check_square(images)
    if dense:
        functions = dense_view_functions(flags, mode, images.shape[-1], images.ndim - 2)
        views = torch.stack([view(images) for view in functions.values()])
    else:
        views = tta_views(images, flags, mode)
    found = predict(views.flatten(0, 1))
    each = found.reshape(*views.shape[:2], *found.shape[1:])
    if dense:
        each = torch.stack([undo_view(name, outputs) for name, outputs in zip(functions, each, strict=True)])
    return average_views(each, None if len(views) == 1 else weight)


def _settings_of(
    images: Tensor,
    augmentation: Augmentation | Mapping[str, Any] | Preset,
    mean: Sequence[float],
    std: Sequence[float],
) -> Augmentation:
    """Return the settings of `random_augment` after its arguments are checked."""
    given = {"preset": augmentation} if isinstance(augmentation, str) else augmentation
    try:
        settings = Augmentation.model_validate(given)
    except ValidationError as error:
        raise ValueError("; ".join(validation_problems(error, Augmentation, "augmentation."))) from error
    if images.ndim not in (4, 5) or images.dtype != torch.uint8 or images.shape[1] not in (1, 3):
        raise ValueError(
            f"images: {tuple(images.shape)} of {images.dtype}; allowed: uint8 (N, 1 or 3, R, R), or volumes "
            "(N, 1 or 3, R, R, R)"
        )
    _check_square(images)
    if images.ndim == 4 and settings.dflip > 0:
        raise ValueError(f"augmentation.dflip: {settings.dflip:g} is not allowed with images; allowed: 0")
    channels = images.shape[1]
    if len(mean) != len(std) or len(mean) not in (channels, 3) or not all(value > 0 for value in std):
        raise ValueError(f"mean, std: {len(mean)} and {len(std)} values; allowed: {channels} of each, std above 0")
    return settings


def _without_channels(images: Tensor) -> str:
    return f"({', '.join(map(str, (len(images), *images.shape[2:])))})"


def _seed(seed: int | None) -> int:
    return int(torch.randint(1 << 62, ())) if seed is None else seed


def _check_square(images: Tensor) -> None:
    if images.ndim not in (4, 5) or len(set(images.shape[2:])) > 1:
        raise ValueError(f"images: {tuple(images.shape)}; allowed: (N, C, R, R), or volumes (N, C, R, R, R)")


def _check_strength(alpha: float) -> None:
    if not 0 < alpha <= 1:
        raise ValueError(f"alpha: {alpha} is not allowed; allowed: above 0 to 1")


def _mixed(
    images: Tensor, targets: Tensor, settings: MixUp, classes: int | None, seed: int | None
) -> tuple[Tensor, Tensor]:
    if images.ndim not in (4, 5) or not images.is_floating_point():
        raise ValueError(
            f"images: {tuple(images.shape)} of {images.dtype}; allowed: floats (N, C, H, W), or (N, C, D, H, W)"
        )
    masks = targets.ndim == images.ndim - 1
    fits = targets.shape[1:] == images.shape[2:] if masks else targets.ndim in (1, 2)
    if not fits or len(targets) != len(images):
        raise ValueError(
            f"targets: {tuple(targets.shape)} for {len(images)} images; allowed: (N,), (N, K), or masks "
            f"{_without_channels(images)}"
        )
    whole = targets.ndim == 2
    if not whole and targets.is_floating_point():
        raise ValueError(f"targets: {targets.dtype}; allowed for (N,) and for masks: integers")
    draw = draw_mix(len(images), settings, images.shape[-1], _seed(seed), images.ndim - 2)
    assert draw is not None, "a strength is above 0"
    mixed = mix_images(images, draw)
    if masks and settings.alpha == 0:
        return mixed, mix_masks(targets, draw)
    if not whole:
        if classes is None:
            raise ValueError("targets: (N,) and masks have to be integer classes, and `classes` their number")
        if masks:
            return mixed, mix_soft_masks(targets, draw, classes)
        targets = F.one_hot(targets.long(), classes)
    return mixed, mix_targets(targets.to(torch.promote_types(targets.dtype, torch.float32)), draw)
