"""A sheet of labelled images, or of volumes by three slices, and beside each what augmentation makes of it."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure

from visionforge.config.schema import Augmentation, Preset
from visionforge.data.datamodule import ImageDataModule
from visionforge.data.info import DatasetInfo
from visionforge.data.source import local_archive, offered_resolution
from visionforge.errors import SettingsError
from visionforge.evaluation.slices import as_picture
from visionforge.reporting.figures.static import is_own_figure, label_names, own_style, save_figure
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
    if target.exists() and not is_own_figure(target):
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
    chosen = _one_of_each_class(dataset.labels, ROWS)
    images, labels = dataset.__getitems__(chosen)
    count = VOLUME_VARIANTS if module.spec.spatial_dims == 3 else VARIANTS
    variants = [module.augment(images, epoch=0, step=step) for step in range(count)]
    with own_style():
        _draw(module, target, images, labels, variants)


def _draw(
    module: ImageDataModule,
    target: Path,
    images: torch.Tensor,
    labels: torch.Tensor,
    variants: Sequence[torch.Tensor],
) -> None:
    dims = module.spec.spatial_dims
    mean, std = (torch.tensor(v).view(-1, *[1] * dims) for v in (module.spec.mean, module.spec.std))
    chosen, width = len(images), 1.35 * (3 if dims == 3 else 1)
    figure = Figure(figsize=(width * (len(variants) + 1) + 1.2, 1.42 * chosen + 0.5), layout="constrained")
    grid = figure.subplots(chosen, len(variants) + 1, squeeze=False)
    for row, axes in enumerate(grid):
        pictures = [images[row].float() / 255, *((v[row] * std + mean).clamp(0, 1) for v in variants)]
        for column, (cell, picture) in enumerate(zip(axes, pictures, strict=True)):
            pixels = as_picture(picture.numpy(), line=1.0)
            grey = pixels.shape[2] == 1 or bool((pixels == pixels[..., :1]).all())
            cell.imshow(pixels[..., 0] if grey else pixels, cmap="gray" if grey else None, vmin=0, vmax=1)
            cell.set(xticks=[], yticks=[])
            cell.spines[:].set_visible(False)
            if column == 0:
                cell.set_ylabel(
                    label_names(labels[row].numpy(), module.info.classes, 22), rotation=0, ha="right", va="center"
                )
            if row == 0:
                cell.set_title(("volume" if dims == 3 else "image") if column == 0 else f"variant {column}", fontsize=9)
    preset = module.settings.augmentation.preset
    what = ", middle slices across depth, height and width" if dims == 3 else ""
    figure.suptitle(f"{module.info.name} at {module.spec.resolution} pixels{what}, augmentation: {preset or 'as set'}")
    save_figure(figure, target)


def _one_of_each_class(labels: torch.Tensor, count: int) -> list[int]:
    """Return up to `count` positions, in turn from every class that there is."""
    keys = labels.numpy() if labels.ndim == 1 else labels.numpy().argmax(axis=1)
    members = [np.flatnonzero(keys == key) for key in np.unique(keys)]
    turns = [int(group[turn]) for turn in range(count) for group in members if turn < len(group)]
    return turns[:count]
