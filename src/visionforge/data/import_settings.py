"""What to import, and how."""

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from visionforge.config.schema import TaskName
from visionforge.config.schema.tasks import task_names
from visionforge.data.intensity import Range
from visionforge.data.placement import Fit

MaskValues = Literal["classes", "foreground"]
Frames = Literal["middle", "volume"]


def _flag(text: str, **more: Any) -> dict[str, Any]:
    """Return what a parser has to know of a setting: its help, and what its value may be."""
    return {"help": text, **more}


@dataclass(frozen=True)
class ImportSettings:
    """What to import, and how.

    Attributes:
        source: A folder of class folders, a folder of `train`, `val` and `test` with class folders, or a table; or
            pictures with masks or boxes.
        name: Catalog name of the new data set.
        resolution: Height and width of the images, in pixels.
        task: Kind of labels; None follows from what the pictures have.
        fractions: Shares of training, validation and test images, where the source gives no splits.
        seed: Seed of the split.
        path_column: Column of the paths; None takes the first of path, file, filename, image.
        label_column: Column of the labels; several labels in one cell are separated by ``|`` or ``;``.
        split_column: Column that names the split of each picture; used if it is there.
        group_column: Column whose values (a patient, a slide) must not be spread over splits.
        columns: Further columns of a table that the archive keeps as texts, separated by commas, such as
            ``age,sex,site``; evaluations then tell results of subgroups, too.
        no_groups: Take a table with a column that looks like groups without using it, and DICOM files without
            keeping those of one patient in one split.
        positive: Of two classes, the one that is to be found; None asks the names of the classes.
        masks: Folder of masks with the names of the pictures; None looks for folders `images` and `masks` in the
            source.
        mask_values: What the values of masks are: the numbers of classes, or 0 outside of what is to be found and
            anything else in it.
        ignore: Value of pixels in masks that count for nothing; they are stored as 255.
        boxes: Folder of Pascal VOC's XML files, a JSON file of COCO, or a folder of such; None looks for
            `JPEGImages` with `Annotations`, or `annotations/*.json`, in the source.
        classes: Names of the classes of masks, from 0, or of boxes, separated by commas; None takes the numbers, or the
            names that the files have.
        fit: `crop` scales the shorter side of a picture and cuts the middle out, `pad` scales the longer one and fills
            the rest with black; None pads pictures with boxes and crops others.
        intensity: Grey values of more than eight bits that become 0 and 255; of DICOM in the units of the modality,
            such as Hounsfield units. None takes the window of each DICOM file, percentiles of each volume, and of
            other pictures one range for all. What is said or found is stored with the data set.
        frames: Of a DICOM file with several frames: the one in the middle is a picture, or all are a volume, as are
            the files of one series.
        hflip: Left and right may be swapped.
        vflip: Top and bottom may be swapped.
        dflip: Front and back of volumes may be swapped.
        corrections: A table such as `suspicious.csv` of an audit, whose column `corrected` names the right class, or
            says `remove`. Splits are those that the pictures would have without it. The source may then also be the
            name of a data set, of which a new one is made.
        rotation: It may be turned: not, by a few degrees, freely.
        replace: Take the place of an entry of the same name.
        root: Folder for the archive; None is where archives lie by default.
    """

    source: Path
    name: str
    resolution: int = field(default=28, metadata=_flag("height and width in pixels; default 28", type=int))
    task: TaskName | None = field(default=None, metadata=_flag("default: by labels"))
    fractions: tuple[float, float, float] = field(
        default=(0.7, 0.1, 0.2),
        metadata=_flag("shares where no splits are given", type=float, nargs=3, metavar=("TRAIN", "VAL", "TEST")),
    )
    seed: int = field(default=42, metadata=_flag("seed of the split", type=int))
    path_column: str | None = field(default=None, metadata=_flag("table: default path, file, filename or image"))
    label_column: str = field(default="label", metadata=_flag("table: several labels are separated by | or ;"))
    split_column: str = field(default="split", metadata=_flag("table: used if the column is there"))
    group_column: str | None = field(
        default=None, metadata=_flag("table: values that must not be spread over splits, such as patients")
    )
    columns: str | None = field(
        default=None,
        metadata=_flag("table: further columns to keep, for results by age, sex, site, …", metavar="NAME,NAME"),
    )
    no_groups: bool = field(
        default=False, metadata=_flag("a column that looks like groups is none, and DICOM files are divided one by one")
    )
    positive: str | None = field(
        default=None, metadata=_flag("of two classes, the one that is to be found", metavar="CLASS")
    )
    masks: Path | None = field(
        default=None, metadata=_flag("folder of masks; default: masks/ beside images/", type=Path, metavar="DIR")
    )
    mask_values: MaskValues | None = field(
        default=None,
        metadata=_flag(
            "values of masks are classes, the default, or all above 0 is one: foreground",
            choices=("classes", "foreground"),
        ),
    )
    ignore: int | None = field(
        default=None, metadata=_flag("value in masks of pixels that count for nothing", type=int, metavar="VALUE")
    )
    boxes: Path | None = field(
        default=None,
        metadata=_flag(
            "XML files of Pascal VOC, or JSON of COCO; default: where they usually lie", type=Path, metavar="PATH"
        ),
    )
    classes: str | None = field(
        default=None, metadata=_flag("names of the classes of masks, from 0, or of boxes", metavar="NAME,NAME")
    )
    fit: Fit | None = field(
        default=None,
        metadata=_flag(
            "crop to the middle, or pad with black; default: pad for boxes, else crop", choices=("crop", "pad")
        ),
    )
    intensity: Range | None = field(
        default=None,
        metadata=_flag(
            "grey values of more than 8 bits that become 0 and 255, such as -1000 400 of a CT; default: a DICOM file's "
            "own window, of other pictures one range for all",
            type=float,
            nargs=2,
            metavar=("LOW", "HIGH"),
        ),
    )
    frames: Frames = field(
        default="middle",
        metadata=_flag(
            "DICOM: the middle frame is a picture, or all frames, or files of a series, are a volume",
            choices=("middle", "volume"),
        ),
    )
    hflip: bool = field(default=True, metadata=_flag("left and right may not be swapped"))
    vflip: bool = field(default=False, metadata=_flag("top and bottom may be swapped"))
    dflip: bool = field(default=False, metadata=_flag("front and back of volumes may be swapped"))
    corrections: Path | None = field(
        default=None,
        metadata=_flag("table of an audit, its column corrected filled in; SOURCE may be a data set", type=Path),
    )
    rotation: Literal["none", "small", "any"] = field(
        default="small", metadata=_flag("how it may be turned", choices=("none", "small", "any"))
    )
    replace: bool = field(default=False, metadata=_flag("take the place of an entry of the same name"))
    root: str | None = field(
        default=None, metadata=_flag("folder for the archive; default $VISIONFORGE_DATA or the cache")
    )

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of `classes`, without surrounding blanks; none if it is not set."""
        return () if self.classes is None else tuple(name.strip() for name in self.classes.split(","))

    @property
    def kept_columns(self) -> tuple[str, ...]:
        """The names of `columns`, without surrounding blanks; none if it is not set."""
        return () if self.columns is None else tuple(name.strip() for name in self.columns.split(","))


def import_flags() -> dict[str, dict[str, Any]]:
    """Return flag → arguments of `argparse` for each setting with a default; one that is on has a flag ``--no-…``."""
    flags = {}
    for each in fields(ImportSettings):
        if not each.metadata:
            continue
        flag = each.name.replace("_", "-")
        if isinstance(each.default, bool):
            more: dict[str, Any] = {"dest": each.name, "action": "store_false" if each.default else "store_true"}
            flag = f"no-{flag}" if each.default else flag
        else:
            more = {"default": each.default, **({"choices": task_names()} if each.name == "task" else {})}
        flags[f"--{flag}"] = {**each.metadata, **more}
    same = {"dest": "group_column", "metavar": "COLUMN", "help": "the same as --group-column"}
    return {**flags, "--groups": {**flags["--group-column"], **same}}
