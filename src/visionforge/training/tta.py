"""Test-time augmentation: several views of each image, chosen so that they keep its label.

All views are exact: flips, quarter turns, and shifts by whole pixels, 1/28 of the width rounded down. Interpolation
would blur the image, which costs accuracy at small sizes; below 28 pixels there are therefore no shifts. Volumes are
turned within their slices, and flipped and shifted along the depth as well.

Outputs for every pixel follow the view, and are brought back before they are averaged. Flips and quarter turns have an
exact inverse. A shift has none: what it pushes over the border is in no output of that view.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from visionforge.config.schema import TtaMode
from visionforge.data.info import DomainFlags, TaskSpec

SHIFT_DIVISOR = 28  # a shift is the resolution divided by this, in whole pixels
View = Callable[[Tensor], Tensor]
INVERSES: dict[str, View] = {
    "identity": lambda x: x,
    "hflip": lambda x: x.flip(-1),
    "vflip": lambda x: x.flip(-2),
    "dflip": lambda x: x.flip(-3),
    "rotate 90": lambda x: torch.rot90(x, -1, (-2, -1)),
    "rotate 180": lambda x: torch.rot90(x, -2, (-2, -1)),
    "rotate 270": lambda x: torch.rot90(x, -3, (-2, -1)),
}


def shift(images: Tensor, right: int, down: int, deeper: int = 0) -> Tensor:
    """Move (N, C, H, W) images or (N, C, D, H, W) volumes by whole pixels; those of the border are repeated."""
    steps = (right, down, deeper)[: images.ndim - 2]
    padded = F.pad(images, [abs(step) for step in steps for _ in (0, 1)], mode="replicate")
    for axis, step in enumerate(steps, start=1):
        padded = padded.narrow(-axis, abs(step) - step, images.shape[-axis])
    return padded


def view_functions(flags: DomainFlags, mode: TtaMode, resolution: int, spatial_dims: int = 2) -> dict[str, View]:
    """Return the views of an image by name, the image itself first.

    Args:
        flags: Which changes keep the label of this kind of image.
        mode: `light` flips, or shifts to the right and left where no flip is allowed; `full` adds quarter turns and
            shifts; `off` is the image alone.
        resolution: Height and width in pixels, or side of volumes in voxels.
        spatial_dims: 2 for images, 3 for volumes.
    """
    views: dict[str, View] = {"identity": lambda x: x}
    if mode == "off":
        return views
    if flags.hflip:
        views["hflip"] = lambda x: x.flip(-1)
    if flags.vflip:
        views["vflip"] = lambda x: x.flip(-2)
    if spatial_dims == 3 and flags.dflip:
        views["dflip"] = lambda x: x.flip(-3)
    pixels = resolution // SHIFT_DIVISOR
    if mode == "light":
        if len(views) == 1 and pixels:
            views["shift right"] = lambda x: shift(x, pixels, 0)
            views["shift left"] = lambda x: shift(x, -pixels, 0)
        return views
    if flags.rotation == "any":
        views["rotate 90"] = lambda x: torch.rot90(x, 1, (-2, -1))
        views["rotate 180"] = lambda x: torch.rot90(x, 2, (-2, -1))
        views["rotate 270"] = lambda x: torch.rot90(x, 3, (-2, -1))
    if pixels:
        views["shift right"] = lambda x: shift(x, pixels, 0)
        views["shift left"] = lambda x: shift(x, -pixels, 0)
        views["shift down"] = lambda x: shift(x, 0, pixels)
        views["shift up"] = lambda x: shift(x, 0, -pixels)
    if pixels and spatial_dims == 3:
        views["shift deeper"] = lambda x: shift(x, 0, 0, pixels)
        views["shift shallower"] = lambda x: shift(x, 0, 0, -pixels)
    return views


def dense_view_functions(flags: DomainFlags, mode: TtaMode, resolution: int, spatial_dims: int = 2) -> dict[str, View]:
    """Return the views of `view_functions` that `undo_view` can undo: all but the shifts."""
    views = view_functions(flags, mode, resolution, spatial_dims)
    return {name: view for name, view in views.items() if name in INVERSES}


def named_views(spec: TaskSpec, mode: TtaMode, resolution: int) -> dict[str, View]:
    """Return the views of a task's images by name; of one whose outputs have places those that can be undone."""
    functions = dense_view_functions if spec.kind.located else view_functions
    return functions(spec.flags, mode, resolution, spec.spatial_dims)


def undo_view(name: str, outputs: Tensor) -> Tensor:
    """Return outputs for every pixel of a view as outputs for the pixels of the image; exact.

    Args:
        name: The view, one of `dense_view_functions`.
        outputs: (N, K, H, W) that a network gave for the view, at its resolution or a fraction of it; of volumes
            (N, K, D, H, W).

    Raises:
        ValueError: If the view has no exact inverse, or the outputs are not for every pixel.
    """
    if name not in INVERSES:
        raise ValueError(f"view: {name!r} has no exact inverse; allowed: {', '.join(INVERSES)}")
    if outputs.ndim not in (4, 5) or (name == "dflip" and outputs.ndim == 4):
        raise ValueError(
            f"outputs: {tuple(outputs.shape)} of the view {name!r}; allowed: (N, K, H, W), or (N, K, D, H, W)"
        )
    return INVERSES[name](outputs)


def tta_views(images: Tensor, flags: DomainFlags, mode: TtaMode = "full") -> Tensor:
    """Return (V, N, C, H, W) views of normalised images (N, C, H, W), the images themselves first; likewise volumes."""
    views = view_functions(flags, mode, images.shape[-1], images.ndim - 2)
    return torch.stack([view(images) for view in views.values()])


def average_views(probabilities: Tensor, weight: float | None = None) -> Tensor:
    """Return the mean (N, K) of probabilities (V, N, K) over the views; those of pixels, (V, N, K, H, W), likewise.

    Args:
        probabilities: Those of the image itself first; of pixels after `undo_view`.
        weight: Weight of the image itself, the others share the rest; None gives every view the same.
    """
    if weight is None:
        return probabilities.mean(dim=0)
    return weight * probabilities[0] + (1 - weight) * probabilities[1:].mean(dim=0)
