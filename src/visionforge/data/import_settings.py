"""What to import, and how."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from visionforge.config.schema import TaskName


@dataclass(frozen=True)
class ImportSettings:
    """What to import, and how.

    Attributes:
        source: A folder of class folders, a folder of `train`, `val` and `test` with class folders, or a CSV file.
        name: Catalog name of the new data set.
        resolution: Height and width of the images, in pixels.
        task: Kind of labels; None follows from what the pictures have.
        fractions: Shares of training, validation and test images, where the source gives no splits.
        seed: Seed of the split.
        label_column: Column of the labels; several labels in one cell are separated by ``|`` or ``;``.
        path_column: Column of the paths; None takes the first of path, file, filename, image.
        split_column: Column that names the split of each picture; used if it is there.
        group_column: Column whose values (a patient, a slide) must not be spread over splits.
        no_groups: Take a table with a column that looks like groups without using it.
        positive: Of two classes, the one that is to be found; None asks the names of the classes.
        hflip: Left and right may be swapped.
        vflip: Top and bottom may be swapped.
        dflip: Front and back of volumes may be swapped.
        rotation: It may be turned: not, by a few degrees, freely.
        replace: Take the place of an entry of the same name.
        root: Folder for the archive; None is where archives lie by default.
    """

    source: Path
    name: str
    resolution: int = 28
    task: TaskName | None = None
    fractions: tuple[float, float, float] = (0.7, 0.1, 0.2)
    seed: int = 42
    label_column: str = "label"
    path_column: str | None = None
    split_column: str = "split"
    group_column: str | None = None
    no_groups: bool = False
    positive: str | None = None
    hflip: bool = True
    vflip: bool = False
    dflip: bool = False
    rotation: Literal["none", "small", "any"] = "small"
    replace: bool = False
    root: str | None = None
