"""Augmentation of whole batches on the training device: one affine resampling and one colour matrix per image.

Flip, rotation and random resized crop are composed into a single sampling matrix, so an image is interpolated once.
Brightness, contrast, saturation and the normalisation are composed into a single matrix and offset per image. The
geometry and the ranges are those of torchvision.transforms.v2 (`RandomHorizontalFlip`, `RandomRotation`,
`RandomResizedCrop`, `ColorJitter`), with three differences: crop boxes are not rounded to whole pixels, the colour
operations keep one order (brightness, contrast, saturation), and values are clipped once, at the end.

All random numbers are drawn on the CPU, so every device gets the same ones.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from visionforge.config.schema import Augmentation
from visionforge.data.info import DomainFlags

CROP_RATIO = (3 / 4, 4 / 3)  # torchvision's default range of width / height
CROP_ATTEMPTS = 10  # torchvision's number of tries before it takes the whole image
GREY_WEIGHTS = (0.2989, 0.587, 0.114)  # ITU-R 601 luma as torchvision rounds it


@dataclass(frozen=True)
class AugmentationDraw:
    """The random choices for one batch.

    Attributes:
        flip: (N,) bool, whether the image is mirrored left to right.
        theta: (N, 2, 3) float32 matrix from output to input coordinates, both in [-1, 1]; None changes no geometry
            beyond the flip. The flip is part of it.
        colour: (N, 3) float32 factors of brightness, contrast and saturation; None changes no colour.
    """

    flip: Tensor
    theta: Tensor | None
    colour: Tensor | None

    def to(self, device: torch.device) -> "AugmentationDraw":
        """Return the same choices on another device."""
        move = [None if t is None else t.to(device, non_blocking=True) for t in (self.flip, self.theta, self.colour)]
        assert move[0] is not None
        return AugmentationDraw(move[0], move[1], move[2])


def respect_flags(settings: Augmentation, flags: DomainFlags) -> Augmentation:
    """Return the settings without the changes that would alter the label of this kind of image."""
    return settings.model_copy(
        update={
            "hflip": settings.hflip if flags.hflip else 0.0,
            "rotation_angle": settings.rotation_angle if flags.rotation != "none" else 0,
        }
    )


def draw_augmentation(count: int, settings: Augmentation, generator: torch.Generator) -> AugmentationDraw:
    """Draw the augmentation of `count` square images, independently for each.

    Args:
        count: Number of images N.
        settings: Probabilities and ranges.
        generator: CPU generator; the draw is a function of its state alone.
    """
    uniform = torch.rand((count, 7), generator=generator)
    flip = uniform[:, 0] < settings.hflip
    angle = (2 * uniform[:, 1] - 1) * math.radians(settings.rotation_angle)
    box = _draw_boxes(count, settings.min_scale, generator, uniform[:, 2:4]) if settings.min_scale < 1 else None
    theta = None
    if settings.rotation_angle > 0 or box is not None:
        theta = sampling_matrix(flip, angle, box)
    colour = None
    if settings.jitter_val > 0:
        colour = 1 + settings.jitter_val * (2 * uniform[:, 4:7] - 1)
    return AugmentationDraw(flip, theta, colour)


def _draw_boxes(count: int, min_scale: float, generator: torch.Generator, position: Tensor) -> Tensor:
    """Return (N, 4) crop boxes (x, y, width, height) as shares of the image, after `RandomResizedCrop`."""
    tries = torch.rand((count, CROP_ATTEMPTS, 2), generator=generator)
    area = min_scale + (1 - min_scale) * tries[..., 0]
    low, high = (math.log(ratio) for ratio in CROP_RATIO)
    ratio = torch.exp(low + (high - low) * tries[..., 1])
    size = torch.stack([torch.sqrt(area * ratio), torch.sqrt(area / ratio)], dim=-1)
    fits = (size <= 1).all(dim=-1)
    first = fits.float().argmax(dim=1)
    size = torch.where(fits.any(dim=1, keepdim=True), size[torch.arange(count), first], torch.ones(()))
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
    pixels = images.float()
    if draw.theta is not None:
        grid = F.affine_grid(draw.theta, list(pixels.shape), align_corners=False)
        pixels = F.grid_sample(pixels, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    else:
        pixels = torch.where(draw.flip[:, None, None, None], pixels.flip(-1), pixels)
    if draw.colour is None:
        return _normalise_float(pixels, mean, std)
    return _colour_and_normalise(pixels, draw.colour, mean, std)


def normalise(images: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Turn (N, C, H, W) uint8 images into (N, len(mean), H, W) float32 with zero mean and unit deviation.

    A grey image fills all output channels.
    """
    return _normalise_float(images.float(), mean, std)


def _constants(like: Tensor, mean: Sequence[float], std: Sequence[float]) -> tuple[Tensor, Tensor]:
    """Return (C,) mean and std for the channels of `like`; grey images have equal ones in all output channels."""
    channels = like.shape[1]
    return like.new_tensor(list(mean)[:channels]), like.new_tensor(list(std)[:channels])


def _normalise_float(pixels: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    centre, spread = _constants(pixels, mean, std)
    scaled = torch.addcmul((-centre / spread)[:, None, None], pixels, (1 / (255 * spread))[:, None, None])
    return scaled.expand(-1, len(mean), -1, -1)


def _colour_and_normalise(pixels: Tensor, colour: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Apply brightness, contrast, saturation and normalisation as one matrix and offset per image.

    With x in [0, 1], g(x) the grey value and m the mean of g over the image: x ← b·x, then x ← c·x + (1-c)·g(m),
    then x ← s·x + (1-s)·g(x), clipped to [0, 1] and normalised.
    """
    count, channels, height, width = pixels.shape
    brightness, contrast, saturation = colour.unbind(dim=1)
    centre, spread = _constants(pixels, mean, std)
    flat = pixels.view(count, channels, height * width)
    grey = pixels.new_tensor(GREY_WEIGHTS if channels == 3 else (1.0,))
    offset = (1 - contrast) * brightness * (flat.mean(dim=2) @ grey) / 255  # grey after the contrast step, per image
    gain = contrast * brightness / 255
    lower, upper = -centre / spread, (1 - centre) / spread
    if channels == 1:
        scale, shift = gain[:, None, None] / spread, (offset[:, None, None] - centre) / spread
        out = torch.addcmul(shift, flat, scale)
    else:
        mixed = saturation[:, None, None] * torch.eye(3, device=pixels.device) + (
            (1 - saturation)[:, None, None] * grey.expand(3, 3)
        )
        matrix = gain[:, None, None] * mixed / spread[:, None]
        shift = (offset * (saturation + (1 - saturation) * grey.sum()))[:, None] - centre
        out = torch.baddbmm((shift / spread)[:, :, None], matrix, flat)
    out = torch.clamp(out, lower[:, None], upper[:, None]).view(count, channels, height, width)
    return out.expand(-1, len(mean), -1, -1)
