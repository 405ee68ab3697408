"""A sheet of labelled images, or of volumes by three slices, and beside each what augmentation makes of it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from visionforge.config.schema import Augmentation, Preset
from visionforge.data.datamodule import ImageDataModule
from visionforge.data.info import DatasetInfo
from visionforge.data.source import local_archive, offered_resolution
from visionforge.errors import SettingsError
from visionforge.evaluation.label_colours import class_colours
from visionforge.evaluation.slices import as_picture
from visionforge.reporting.figures.static import label_names, own_style, save_figure
from visionforge.runs.own_pictures import is_own_picture
from visionforge.runs.paths import shown, writable

ROWS = 6
VARIANTS = 6  # of images
VOLUME_VARIANTS = 3  # each of three slices


def dataset_sheet(
    info: DatasetInfo,
    target: Path,
    preset: Preset = "standard",
    resolution: int | None = None,
    root: str | None = None,
) -> None:
    """Write the sheet of a data set.

    Args:
        info: The data set.
        target: The PNG file; an earlier sheet is replaced, another file is not.
        preset: The augmentation.
        resolution: Height and width in pixels; None is the smallest.
        root: Folder of the archives; None is where they lie by default.

    Raises:
        SettingsError: If the data set does not offer the resolution, or the file cannot be written.
        DataError: If the archive is missing.
    """
    resolution = offered_resolution(info, resolution)
    if info.archives:
        local_archive(info, resolution, root)
    if target.exists() and not is_own_picture(target):
        raise SettingsError(
            f"--output: {shown(target)} exists already, and visionforge has not made it; name another file"
        )
    if not writable(target.absolute().parent):
        raise SettingsError(f"--output: {shown(target.parent)} cannot be written; name a file in another folder")
    module = ImageDataModule(
        info.name,
        root=root,
        resolution=resolution,
        download=False,
        cache="mmap",
        augmentation=Augmentation(preset=preset),
    )
    augmentation_sheet(module, target)


def augmentation_sheet(module: ImageDataModule, target: Path) -> None:
    """Write a PNG with one row per image, from different classes where there are as many: the image, then variants.

    A volume is shown by its middle slices across depth, height and width, side by side.

    Args:
        module: The data; its augmentation is shown.
        target: The PNG file.
    """
    dataset = module.dataset_for("train")
    kind, names = module.spec.kind, module.info.classes
    parts = [kind.image_labels(part, len(names)) for part in dataset.label_parts()]
    chosen = _one_of_each_class(np.concatenate(parts), ROWS)
    images, labels = dataset.__getitems__(chosen)
    count = VOLUME_VARIANTS if module.spec.spatial_dims == 3 else VARIANTS
    variants = [module.augment_pairs(images, labels, epoch=0, step=step) for step in range(count)]
    with own_style():
        _draw(module, target, images, labels, variants)


def _draw(
    module: ImageDataModule,
    target: Path,
    images: torch.Tensor,
    labels: torch.Tensor,
    variants: Sequence[tuple[torch.Tensor, torch.Tensor]],
) -> None:
    kind, names = module.spec.kind, module.info.classes
    said = kind.image_labels(labels.numpy(), len(names))
    dims = module.spec.spatial_dims
    mean, std = (torch.tensor(v).view(-1, *[1] * dims) for v in (module.spec.mean, module.spec.std))
    chosen, width = len(images), 1.35 * (3 if dims == 3 else 1)
    figure = Figure(figsize=(width * (len(variants) + 1) + 1.2, 1.42 * chosen + 0.5), layout="constrained")
    grid = figure.subplots(chosen, len(variants) + 1, squeeze=False)
    for row, axes in enumerate(grid):
        pictures = [images[row].float() / 255, *((v[row] * std + mean).clamp(0, 1) for v, _ in variants)]
        places = [labels[row].numpy(), *(moved[row].numpy() for _, moved in variants)]
        for column, (cell, picture) in enumerate(zip(axes, pictures, strict=True)):
            pixels = as_picture(picture.numpy(), line=1.0)
            grey = pixels.shape[2] == 1 or bool((pixels == pixels[..., :1]).all())
            cell.imshow(pixels[..., 0] if grey else pixels, cmap="gray" if grey else None, vmin=0, vmax=1)
            if "masks" in kind.forms:
                outline_mask(cell, places[column], len(names))
            elif "boxes" in kind.forms:
                outline_boxes(cell, places[column], len(names))
            cell.set(xticks=[], yticks=[])
            cell.spines[:].set_visible(False)
            if column == 0:
                cell.set_ylabel(label_names(said[row], names, 22), rotation=0, ha="right", va="center")
            if row == 0:
                cell.set_title(("volume" if dims == 3 else "image") if column == 0 else f"variant {column}", fontsize=9)
    preset = module.settings.augmentation.preset
    what = ", middle slices across depth, height and width" if dims == 3 else ""
    figure.suptitle(f"{module.info.name} at {module.spec.resolution} pixels{what}, augmentation: {preset or 'as set'}")
    save_figure(figure, target)


def outline_mask(cell: Axes, mask: npt.NDArray[Any], classes: int) -> None:
    """Draw the border of each class of a mask (H, W) but the first, each in its colour."""
    colours = class_colours(classes)
    for kind in range(1, classes):
        inside = mask == kind
        if inside.any() and not inside.all():
            cell.contour(inside, levels=[0.5], colors=[colours[kind] / 255], linewidths=0.8)


def outline_boxes(cell: Axes, boxes: npt.NDArray[Any], classes: int) -> None:
    """Draw boxes (M, 5) of class, x1, y1, x2, y2 in the colours of their classes; a class below 0 is no box."""
    colours = class_colours(classes) / 255
    for kind, x1, y1, x2, y2 in boxes.tolist():
        if kind >= 0:
            corner, colour = (x1 - 0.5, y1 - 0.5), colours[int(kind)]  # the middle of the first pixel is at 0
            cell.add_patch(Rectangle(corner, x2 - x1, y2 - y1, fill=False, edgecolor=colour, linewidth=0.8))


def _one_of_each_class(labels: npt.NDArray[Any], count: int) -> list[int]:
    """Return up to `count` positions, in turn from every class that there is."""
    keys = labels if labels.ndim == 1 else labels.argmax(axis=1)
    members = [np.flatnonzero(keys == key) for key in np.unique(keys)]
    turns = [int(group[turn]) for turn in range(count) for group in members if turn < len(group)]
    return turns[:count]
