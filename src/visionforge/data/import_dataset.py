"""Somebody's pictures as a data set, from Python."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from visionforge.config.schema import TaskName
from visionforge.data.import_report import ImportReport
from visionforge.data.import_settings import Frames, ImportSettings, MaskValues
from visionforge.data.importing import import_images
from visionforge.data.intensity import Range
from visionforge.data.placement import Fit
from visionforge.data.registry import name_from


def import_dataset(
    source: str | Path,
    name: str | None = None,
    *,
    resolution: int = 28,
    task: TaskName | None = None,
    fractions: tuple[float, float, float] = (0.7, 0.1, 0.2),
    seed: int = 42,
    path_column: str | None = None,
    label_column: str = "label",
    split_column: str = "split",
    group_column: str | None = None,
    columns: Sequence[str] = (),
    no_groups: bool = False,
    positive: str | None = None,
    masks: str | Path | None = None,
    mask_values: MaskValues | None = None,
    ignore: int | None = None,
    boxes: str | Path | None = None,
    classes: Sequence[str] | None = None,
    fit: Fit | None = None,
    intensity: Range | None = None,
    frames: Frames = "middle",
    hflip: bool = True,
    vflip: bool = False,
    dflip: bool = False,
    rotation: Literal["none", "small", "any"] = "small",
    corrections: str | Path | None = None,
    replace: bool = False,
    root: str | Path | None = None,
) -> ImportReport:
    """Make a data set of pictures or volumes with labels, masks or boxes, as `visionforge datasets import` does.

    Args:
        source: A folder of class folders, of splits, or of pictures with masks or boxes; a table (CSV or
            Excel), or an NPZ file.
        name: Catalog name of the new data set: small letters, digits and _; None is made of the source's.
        resolution: Height and width of the images, 8 to 1024 pixels; of volumes at most 256.
        task: Kind of labels; None follows from what the pictures have.
        fractions: Shares of training, validation and test images, where the source gives no splits.
        seed: Seed of the split.
        path_column: Column of the paths; None takes the first of path, file, filename, image.
        label_column: Column of the labels; several in one cell are separated by ``|`` or ``;``.
        split_column: Column that names the split of each picture; used if it is there.
        group_column: Column whose values (a patient, a slide) must not be spread over splits.
        columns: Further columns to keep, for results by age, sex or site.
        no_groups: Take a table with a column that looks like groups without using it.
        positive: Of two classes, the one that is to be found; None asks the names of the classes.
        masks: Folder of masks with the names of the pictures.
        mask_values: What the values of masks are: classes, or 0 outside and anything else inside (`foreground`).
        ignore: Value of pixels in masks that count for nothing.
        boxes: Files of Pascal VOC or COCO.
        classes: Names of the classes of masks, from 0, or of boxes.
        fit: `crop` cuts the middle out, `pad` fills with black; None pads pictures with boxes and crops others.
        intensity: Grey values of more than eight bits that become 0 and 255, such as Hounsfield units of a CT.
        frames: Of a DICOM file: the frame in the middle is a picture, or all are a volume, as are the files of one
            series.
        hflip: Left and right may be swapped.
        vflip: Top and bottom may be swapped.
        dflip: Front and back of volumes may be swapped.
        rotation: It may be turned: not, by a few degrees, freely.
        corrections: A table such as `suspicious.csv` of an audit, with its column `corrected` filled in.
        replace: Take the place of an entry of the same name.
        root: Folder for the archive; None is where archives lie by default.

    Returns:
        The catalog entry, the archive, what was left out, and what there is to say.

    Raises:
        SettingsError: If a setting is out of its range.
        DataError: If the source or the name cannot be used, or a split would be empty.

    >>> import visionforge as vf
    >>> vf.import_dataset("nowhere", "mine")
    Traceback (most recent call last):
    ...
    visionforge.errors.DataError: nowhere: no such folder or table
    """
    return import_images(
        ImportSettings(
            Path(source),
            name or name_from(Path(source)),
            resolution=resolution,
            task=task,
            fractions=fractions,
            seed=seed,
            path_column=path_column,
            label_column=label_column,
            split_column=split_column,
            group_column=group_column,
            columns=",".join(columns) or None,
            no_groups=no_groups,
            positive=positive,
            masks=_path(masks),
            mask_values=mask_values,
            ignore=ignore,
            boxes=_path(boxes),
            classes=None if classes is None else ",".join(classes),
            fit=fit,
            intensity=intensity,
            frames=frames,
            hflip=hflip,
            vflip=vflip,
            dflip=dflip,
            rotation=rotation,
            corrections=_path(corrections),
            replace=replace,
            root=None if root is None else str(root),
        )
    )


def _path(text: str | Path | None) -> Path | None:
    return None if text is None else Path(text)
