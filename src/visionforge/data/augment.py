"""Augmentation of whole batches on the training device: one affine resampling and one colour matrix per image.

Flip, rotation and random resized crop are composed into a single sampling matrix, so an image is interpolated once.
Brightness, contrast, saturation and the normalisation are composed into a single matrix and offset per image. The
geometry and the ranges are those of torchvision.transforms.v2 (`RandomHorizontalFlip`, `RandomRotation`,
`RandomResizedCrop`, `ColorJitter`), with three differences: crop boxes are not rounded to whole pixels, the colour
operations keep one order (brightness, contrast, saturation), and values are clipped once, at the end.

All random numbers of this pass are functions of a seed and the place of an image in its epoch, made of integers on the
device itself, so every device gets the same ones. Operations that are added come after it; most draw in the same way,
others from a generator of the device.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Any, Self

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from visionforge.config.schema import Augmentation, AugmentationOperation
from visionforge.config.seeding import derive_seed
from visionforge.data.draws import Draws
from visionforge.data.info import DomainFlags
from visionforge.errors import DataError

CROP_RATIO = (3 / 4, 4 / 3)  # torchvision's default range of width / height
CROP_ATTEMPTS = 10  # torchvision's number of tries before it takes the whole image
MAX_MAGNITUDE = 30  # RandAugment's scale
OPERATIONS = {  # largest strength, at MAX_MAGNITUDE, as in torchvision's RandAugment
    "shear_x": 0.3,
    "shear_y": 0.3,
    "translate_x": 2 * 150 / 331,  # of half the width, the unit of the sampling matrix
    "translate_y": 2 * 150 / 331,
    "rotate": math.radians(30),
    "brightness": 0.9,
    "contrast": 0.9,
    "saturation": 0.9,
}
CHUNK_PIXELS = 200_000  # pixels that are augmented together on a CPU, so that they stay in its cache
CHANGED_AT_ONCE = 1 << 20  # values whose random numbers are made together, which take some 50 bytes each for a moment
Operation = Callable[[Tensor, Any], Tensor]
Numbers = Draws | torch.Generator  # what an operation's random numbers come from
GREY_WEIGHTS = (0.2989, 0.587, 0.114)  # ITU-R 601 luma as torchvision rounds it


@dataclass(frozen=True)
class Draw:
    """Random choices for a batch: a dataclass of tensors with one row per image, or None for what is not changed."""

    def to(self, device: torch.device) -> Self:
        """Return the same choices on another device."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=True))

    def __getitem__(self, part: slice) -> Self:
        """Return the choices for some of the images."""
        return self._each(lambda tensor: tensor[part])

    def _each(self, change: Callable[[Tensor], Tensor]) -> Self:
        given = {field.name: getattr(self, field.name) for field in fields(self)}
        return type(self)(**{name: None if tensor is None else change(tensor) for name, tensor in given.items()})


@dataclass(frozen=True)
class AugmentationDraw(Draw):
    """The random choices for one batch.

    Attributes:
        flip: (N,) bool, whether the image is mirrored left to right.
        theta: (N, 2, 3) float32 matrix from output to input coordinates, both in [-1, 1]; None changes no geometry
            beyond the flips. The flips are part of it.
        colour: (N, 3) float32 factors of brightness, contrast and saturation; None changes no colour.
        vflip: (N,) bool, whether the image is mirrored top to bottom; None mirrors none.
    """

    flip: Tensor
    theta: Tensor | None
    colour: Tensor | None
    vflip: Tensor | None = None


def respect_flags(settings: Augmentation, flags: DomainFlags) -> Augmentation:
    """Return the settings without the changes that would alter the label of this kind of image."""
    settings = settings.resolved()
    return settings.model_copy(
        update={
            "hflip": settings.hflip if flags.hflip else 0.0,
            "vflip": settings.vflip if flags.vflip else 0.0,
            "dflip": settings.dflip if flags.dflip else 0.0,
            "rotation_angle": settings.rotation_angle if flags.rotation != "none" else 0,
            "num_ops": settings.num_ops if flags.rotation != "none" else 0,
        }
    )


def draw_augmentation(draws: Draws, settings: Augmentation, parity: Tensor | None = None) -> AugmentationDraw:
    """Draw the augmentation of square images, independently for each.

    Args:
        draws: The random numbers of N images, of which nothing was drawn yet; the result is on their device.
        settings: Probabilities and ranges; a preset stands for its values.
        parity: (N,) bool, which images are mirrored, instead of a random draw; without effect where `hflip` is 0.
    """
    settings = settings.resolved()
    uniform = draws.uniform(8)
    flip = uniform[:, 0] < settings.hflip
    if parity is not None and settings.hflip > 0:
        flip = parity
    angle = (2 * uniform[:, 1] - 1) * math.radians(settings.rotation_angle)
    box = None
    if settings.min_scale < 1:
        box = _draw_boxes(draws, settings.min_scale, uniform[:, 2:4])
    else:
        draws.skip(2 * CROP_ATTEMPTS)
    theta = None
    if settings.rotation_angle > 0 or box is not None:
        theta = sampling_matrix(flip, angle, box)
    colour = None
    if settings.jitter_val > 0:
        colour = 1 + settings.jitter_val * (2 * uniform[:, 4:7] - 1)
    if settings.num_ops > 0 and settings.magnitude > 0:
        theta = sampling_matrix(flip, angle, box) if theta is None else theta
        theta, colour = _random_operations(theta, colour, settings, draws)
    vflip = None
    if settings.vflip > 0:
        vflip = uniform[:, 7] < settings.vflip
        if theta is not None:
            theta[:, 1] *= (1.0 - 2.0 * vflip.to(theta.dtype))[:, None]
    return AugmentationDraw(flip, theta, colour, vflip)


def _random_operations(
    theta: Tensor, colour: Tensor | None, settings: Augmentation, draws: Draws
) -> tuple[Tensor, Tensor]:
    """Compose `num_ops` random operations per image into its matrices (after RandAugment, Cubuk et al., 2020).

    The pool holds the operations of the paper that keep the content and can be composed: shear and translation along
    both axes, rotation, brightness, contrast and saturation. The ranges are those of torchvision's `RandAugment`.
    """
    count, level = len(theta), settings.magnitude / MAX_MAGNITUDE
    chosen, sign = draws.below(len(OPERATIONS), settings.num_ops), draws.signs(settings.num_ops)
    colour = theta.new_ones((count, 3)) if colour is None else colour.clone()
    bottom = torch.eye(3, device=theta.device)[2].expand(count, 1, 3)
    for index in range(settings.num_ops):
        strength = {
            name: torch.where(chosen[:, index] == k, sign[:, index] * limit * level, 0.0)
            for k, (name, limit) in enumerate(OPERATIONS.items())
        }
        angle, zero = strength["rotate"], torch.zeros_like(strength["rotate"])
        cos, sin = torch.cos(angle), torch.sin(angle)
        first = torch.stack([cos, -sin + strength["shear_x"], zero + strength["translate_x"]], dim=1)
        second = torch.stack([sin + strength["shear_y"], cos, zero + strength["translate_y"]], dim=1)
        theta = theta @ torch.cat([torch.stack([first, second], dim=1), bottom], dim=1)
        colour *= 1 + torch.stack([strength[n] for n in ("brightness", "contrast", "saturation")], dim=1)
    return theta, colour


def _draw_boxes(draws: Draws, min_scale: float, position: Tensor) -> Tensor:
    """Return (N, 4) crop boxes (x, y, width, height) as shares of the image, after `RandomResizedCrop`."""
    tries = draws.uniform(CROP_ATTEMPTS, 2)
    area = min_scale + (1 - min_scale) * tries[..., 0]
    low, high = (math.log(ratio) for ratio in CROP_RATIO)
    ratio = torch.exp(low + (high - low) * tries[..., 1])
    size = torch.stack([torch.sqrt(area * ratio), torch.sqrt(area / ratio)], dim=-1)
    fits = (size <= 1).all(dim=-1)
    first = fits.float().argmax(dim=1)
    found = size.gather(1, first[:, None, None].expand(-1, 1, 2))[:, 0]
    size = torch.where(fits.any(dim=1, keepdim=True), found, 1.0)
    return torch.cat([position * (1 - size), size], dim=1)


def sampling_matrix(flip: Tensor, angle: Tensor, box: Tensor | None) -> Tensor:
    """Compose flip, rotation and crop, in this order, into matrices for `affine_grid`.

    Args:
        flip: (N,) bool.
        angle: (N,) radians, positive turns counter-clockwise.
        box: (N, 4) crop (x, y, width, height) as shares of the image; None keeps the whole image.

    Returns:
        (N, 2, 3) matrices from output to input coordinates.
    """
    cos, sin = torch.cos(angle), torch.sin(angle)
    sign = 1.0 - 2.0 * flip.to(angle.dtype)
    rotation = torch.stack([sign * cos, -sign * sin, sin, cos], dim=1).view(-1, 2, 2)
    if box is None:
        return torch.cat([rotation, torch.zeros_like(rotation[:, :, :1])], dim=2)
    size, centre = box[:, 2:], 2 * box[:, :2] + box[:, 2:] - 1
    return torch.cat([rotation * size[:, None, :], rotation @ centre[:, :, None]], dim=2)


def augment(images: Tensor, draw: AugmentationDraw, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Apply a draw to a batch and normalise it.

    Args:
        images: (N, C, H, W) uint8, C is 1 or 3.
        draw: Random choices for the N images, on the device of the images.
        mean: Mean per channel of values in [0, 1]; one value per output channel.
        std: Standard deviation per output channel.

    Returns:
        (N, len(mean), H, W) float32, normalised. A grey image fills all output channels.
    """
    if fills_unequal(images, mean, std):
        return normalise_each(augment(images, draw, (0.0,), (1.0,)), mean, std)
    if images.device.type == "cpu":
        size = max(1, CHUNK_PIXELS // (images.shape[2] * images.shape[3]))
        if len(images) > size:
            out = images.new_empty((len(images), *images.shape[1:]), dtype=torch.float32)
            for start in range(0, len(images), size):
                part = slice(start, start + size)
                _augment(images[part], draw[part], mean, std, out[part])
            return fill_channels(out, len(mean))
    return fill_channels(_augment(images, draw, mean, std), len(mean))


def fills_unequal(images: Tensor, mean: Sequence[float], std: Sequence[float]) -> bool:
    """Return whether grey images fill channels that are normalised by different constants."""
    return images.shape[1] == 1 and (len(set(mean)) > 1 or len(set(std)) > 1)


def normalise_each(pixels: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Normalise grey values from 0 to 1, (N, 1[, D], H, W), to (N, len(mean)[, D], H, W), each channel by its own."""
    centre, spread = (_per_channel(plain_tensor(tuple(values), pixels), pixels) for values in (mean, std))
    return (pixels - centre) / spread


def numbers_for(
    operations: Sequence[AugmentationOperation], seed: int, places: Tensor, own_seed: int
) -> Iterator[Numbers]:
    """Yield what the random numbers of each operation come from.

    Args:
        operations: Their settings, in their order.
        seed: Of the numbers of an image, which are also a function of its place.
        places: (N,) int64 places of the images, on their device.
        own_seed: Of the generator that operations share which do not draw by image.
    """
    generator: torch.Generator | None = None  # made where it is needed: most batches need none
    for place, operation in enumerate(operations):
        if operation.by_image:
            yield Draws.at(derive_seed(seed, "operation", place), places)
            continue
        if generator is None:
            generator = torch.Generator(places.device).manual_seed(own_seed)
        yield generator


def apply_operations(
    pixels: Tensor,
    operations: Sequence[Operation],
    numbers: Iterable[Numbers],
    mean: Sequence[float],
    std: Sequence[float],
) -> Tensor:
    """Apply operations one after the other to values from 0 to 1, (N, C[, D], H, W) float32; clip and normalise.

    Args:
        pixels: The values, which may be changed in place.
        operations: Functions of a batch and of what their random numbers come from.
        numbers: For each of them what that is; by draws of the images, these are changed a few at a time.
        mean: Mean of each output channel.
        std: Standard deviation of each.

    Raises:
        DataError: If an operation returns something of another shape or type.
    """
    for operation, source in zip(operations, numbers, strict=True):
        if not isinstance(source, Draws):
            pixels = _changed(pixels, operation, source)
            continue
        size = max(1, CHANGED_AT_ONCE // max(1, pixels[:1].numel()))
        for start in range(0, len(pixels), size):
            part = slice(start, start + size)
            pixels[part] = _changed(pixels[part], operation, source[part])
    if fills_unequal(pixels, mean, std):
        return normalise_each(pixels.clamp(0, 1), mean, std)
    centre, spread = (_per_channel(values, pixels) for values in _constants(pixels, mean, std))
    return fill_channels((pixels.clamp(0, 1) - centre) / spread, len(mean))


def _changed(pixels: Tensor, operation: Operation, numbers: Numbers) -> Tensor:
    changed = operation(pixels, numbers)
    if changed.shape != pixels.shape or changed.dtype != pixels.dtype:
        name = getattr(operation, "__qualname__", type(operation).__qualname__)
        raise DataError(
            f"data.augmentation.operations: {name} returned {tuple(changed.shape)} of {changed.dtype}; "
            f"allowed: {tuple(pixels.shape)} of {pixels.dtype}"
        )
    return changed


def _augment(
    images: Tensor, draw: AugmentationDraw, mean: Sequence[float], std: Sequence[float], out: Tensor | None = None
) -> Tensor:
    """Augment one chunk, (N, C, H, W), keeping its number of channels."""
    pixels = images.float()
    if draw.theta is not None:
        grid = _sampling_grid(draw.theta, pixels.shape[2], pixels.shape[3])
        pixels = F.grid_sample(pixels, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    else:
        pixels = torch.where(draw.flip[:, None, None, None], pixels.flip(-1), pixels)
        if draw.vflip is not None:
            pixels = torch.where(draw.vflip[:, None, None, None], pixels.flip(-2), pixels)
    if draw.colour is None:
        return normalise_float(pixels, mean, std, out)
    return colour_and_normalise(pixels, draw.colour, mean, std, out)


def _sampling_grid(theta: Tensor, height: int, width: int) -> Tensor:
    """Return (N, H, W, 2) input coordinates, the values of ``affine_grid(theta, …, align_corners=False)``.

    A matrix applied to a regular grid is a row plus a column, which is ten times as fast as multiplying it out.
    """
    grid = theta.new_empty((len(theta), height, width, 2))
    rows, columns = axis_terms(theta, height, width)
    for axis in (0, 1):
        torch.add(columns[:, axis, :, None], rows[:, axis, None, :], out=grid[..., axis])
    return grid


def axis_terms(theta: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Return (N, 2, W) and (N, 2, H), whose sums are the input coordinates x and y.

    Args:
        theta: (N, 2, 3) matrices from output to input coordinates.
        height: Height of the images in pixels.
        width: Width.
    """
    x = (torch.arange(width, device=theta.device) * 2 + 1) / width - 1
    y = (torch.arange(height, device=theta.device) * 2 + 1) / height - 1
    return theta[:, :, :1] * x, theta[:, :, 1:2] * y + theta[:, :, 2:]


def normalise(images: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Turn (N, C, H, W) uint8 images into (N, len(mean), H, W) float32 with zero mean and unit deviation.

    A grey image fills all output channels. Volumes (N, C, D, H, W) become (N, len(mean), D, H, W).
    """
    if fills_unequal(images, mean, std):
        return normalise_each(images.float() / 255, mean, std)
    return fill_channels(normalise_float(images.float(), mean, std), len(mean))


def fill_channels(pixels: Tensor, channels: int) -> Tensor:
    """Return (N, C, …) as (N, channels, …); a grey image, repeated without being copied, fills all of them."""
    return pixels.expand(-1, channels, *pixels.shape[2:])


def _per_channel(values: Tensor, like: Tensor) -> Tensor:
    """Return (C,) values as (C, 1, 1[, 1]), which apply to (N, C, H, W) or (N, C, D, H, W)."""
    return values.view(-1, *[1] * (like.ndim - 2))


def _constants(like: Tensor, mean: Sequence[float], std: Sequence[float]) -> tuple[Tensor, Tensor]:
    """Return (C,) mean and std for the channels of `like`; grey images have equal ones in all output channels."""
    channels = like.shape[1]
    return plain_tensor(tuple(mean)[:channels], like), plain_tensor(tuple(std)[:channels], like)


def plain_tensor(values: tuple[float, ...], like: Tensor) -> Tensor:
    """Return numbers as a tensor of the type and on the device of another; not to be written to.

    They are sent to a GPU once: each time would let the program wait for all that the GPU has been given to do.
    """
    if like.device.type == "cpu" or type(like) is not Tensor:
        return like.new_tensor(values)
    return _sent(values, like.device, like.dtype)


@lru_cache(maxsize=256)
def _sent(values: tuple[float, ...], device: torch.device, dtype: torch.dtype) -> Tensor:
    with torch.inference_mode(False):
        return torch.tensor(values, dtype=dtype, device=device)


def normalise_float(pixels: Tensor, mean: Sequence[float], std: Sequence[float], out: Tensor | None = None) -> Tensor:
    """Normalise (N, C[, D], H, W) float32 values from 0 to 255, keeping the number of channels."""
    centre, spread = _constants(pixels, mean, std)
    shift, scale = _per_channel(-centre / spread, pixels), _per_channel(1 / (255 * spread), pixels)
    return torch.addcmul(shift, pixels, scale, out=out)


def colour_and_normalise(
    pixels: Tensor, colour: Tensor, mean: Sequence[float], std: Sequence[float], out: Tensor | None = None
) -> Tensor:
    """Apply brightness, contrast, saturation and normalisation as one matrix and offset per image.

    With x in [0, 1], g(x) the grey value and m the mean of g over the image: x ← b·x, then x ← c·x + (1-c)·g(m),
    then x ← s·x + (1-s)·g(x), clipped to [0, 1] and normalised.
    """
    count, channels, height, width = pixels.shape
    brightness, contrast, saturation = colour.unbind(dim=1)
    centre, spread = _constants(pixels, mean, std)
    flat = pixels.view(count, channels, height * width)
    grey = plain_tensor(GREY_WEIGHTS if channels == 3 else (1.0,), pixels)
    offset = (1 - contrast) * brightness * (flat.mean(dim=2) @ grey) / 255  # grey after the contrast step, per image
    gain = contrast * brightness / 255
    if channels == 1:
        scale, shift = gain[:, None, None] / spread, (offset[:, None, None] - centre) / spread
        done = torch.addcmul(shift, flat, scale, out=None if out is None else out.view(flat.shape))
    else:
        mixed = saturation[:, None, None] * torch.eye(3, device=pixels.device) + (
            (1 - saturation)[:, None, None] * grey.expand(3, 3)
        )
        matrix = gain[:, None, None] * mixed / spread[:, None]
        shift = (offset * (saturation + (1 - saturation) * grey.sum()))[:, None] - centre
        bias = (shift / spread)[:, :, None]
        done = torch.baddbmm(bias, matrix, flat, out=None if out is None else out.view(flat.shape))
    for channel in range(channels):  # bounds as plain numbers: several times as fast as tensors
        done[:, channel].clamp_(-mean[channel] / std[channel], (1 - mean[channel]) / std[channel])
    return done.view(count, channels, height, width)
