"""What is known of a data set: the catalog entry, and the part of it that a network has to keep."""

from collections.abc import Mapping, Sequence
from math import prod
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, model_validator

from visionforge.config.resizing import network_resolution, resize_problems
from visionforge.config.schema.base import Section
from visionforge.config.schema.data import MAX_VOLUME_RESOLUTION, Resize
from visionforge.config.schema.task import IGNORED, Task
from visionforge.config.schema.tasks import TaskName, task_named, task_of_form, usual_task
from visionforge.data.intensity import INTENSITY_TEXT, Intensity
from visionforge.data.originals import AnyOriginal
from visionforge.errors import DataError

if TYPE_CHECKING:
    import numpy.typing as npt

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")

# Entries and checkpoints may come from strangers, and these numbers decide how much memory is taken
MIN_RESOLUTION, MAX_RESOLUTION = 8, 1024  # pixels, as of data.resolution
MAX_CLASSES = 10_000
MAX_SPLIT = 1 << 31  # images
MAX_TEXT = 500  # characters of a class name
LARGEST_MEAN, SMALLEST_STD, LARGEST_STD = 10.0, 1e-7, 10.0  # far beyond what values in [0, 1] can have
SIDE_TEXTS, SIDE_CHARACTERS = 2, 256  # names and groups beside the images, and the mean length that has room
MAX_COLUMNS = 32  # further columns beside them
MAX_NOTES, MAX_NOTE = 32, 2_000  # that an import keeps, and characters of one
SHARDS = ".shards.json"  # how the name of an index of shards ends
_CHARACTER_BYTES = 4  # of NumPy's text arrays

Resolution = Annotated[int, Field(ge=MIN_RESOLUTION, le=MAX_RESOLUTION)]
Text = Annotated[str, Field(min_length=1, max_length=MAX_TEXT)]  # of a name
Prose = Annotated[str, Field(max_length=20_000)]


class Archive(Section):
    """One NPZ file, or the index of many files."""

    url: str | None = Field(
        description="Where it is downloaded from; null if it exists on this machine only, or is made of `original`."
    )
    md5: str | None = Field(None, pattern="^[0-9a-f]{32}$", description="MD5 of the file; null is not checked.")
    file: str | None = Field(
        None,
        pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,199}\.(npz|shards\.json)$",
        description="Its name in the folder of the archives; null is NAME.npz, or NAME_RESOLUTION.npz unless at 28. "
        "NAME.shards.json is the index of shards.",
    )

    @model_validator(mode="after")
    def _shards_are_named(self) -> Self:
        if self.url is not None and self.url.endswith(SHARDS) != (self.file or "").endswith(SHARDS):
            raise ValueError(f"url and file: of shards both end in {SHARDS}, of other archives neither")
        return self


class Splits(Section):
    """Number of images per split."""

    train: int = Field(ge=1, le=MAX_SPLIT, description="Training images.")
    val: int = Field(ge=1, le=MAX_SPLIT, description="Validation images.")
    test: int = Field(ge=1, le=MAX_SPLIT, description="Test images.")


class Normalisation(Section):
    """Mean and standard deviation of the training pixels, per channel, of values scaled to [0, 1]."""

    mean: tuple[float, ...] = Field(description="Mean per channel.")
    std: tuple[float, ...] = Field(description="Standard deviation per channel.")
    source: Literal["computed", "published", "rendered", "assumed"] = Field(
        description="computed from the training images by us, published by others, a property of rendered images, or "
        "assumed: round numbers that bring pixels to about -1 to 1."
    )


def check_constants(mean: Sequence[float], std: Sequence[float], channels: int) -> None:
    """Check the constants of a normalisation.

    Raises:
        ValueError: If there is not one of each per channel, or pixels could not be divided by them.
    """
    if not len(mean) == len(std) == channels:
        raise ValueError(f"normalisation needs {channels} values of mean and of std, one per channel")
    if any(abs(value) > LARGEST_MEAN for value in mean):
        raise ValueError(f"mean {', '.join(map(str, mean))} is not allowed; it is of pixel values from 0 to 1")
    if any(not SMALLEST_STD <= value <= LARGEST_STD for value in std):
        raise ValueError(f"std {', '.join(map(str, std))} is not allowed; it is of pixel values from 0 to 1, above 0")


def check_volume_resolutions(resolutions: Sequence[int]) -> None:
    """Check the resolutions of volumes, whose memory grows with the third power.

    Raises:
        ValueError: If one is too large.
    """
    if any(resolution > MAX_VOLUME_RESOLUTION for resolution in resolutions):
        raise ValueError(
            f"resolution: {max(resolutions)} is not allowed for volumes; allowed: {MIN_RESOLUTION} to "
            f"{MAX_VOLUME_RESOLUTION}"
        )


def check_task(task: TaskName, classes: int, spatial_dims: int) -> None:
    """Check that a task takes so many classes, and images or volumes.

    Raises:
        ValueError: If it does not.
    """
    kind = task_named(task)
    if classes < kind.least_classes:
        raise ValueError(f"classes: {classes} is not allowed; allowed for {task} data: at least {kind.least_classes}")
    if spatial_dims not in kind.spatial_dims:
        raise ValueError(f"task: {task} is of images; volumes are not supported")
    if kind.most_classes is not None and classes > kind.most_classes:
        raise ValueError(f"classes: {classes} are not allowed; allowed for {task} data: at most {kind.most_classes}")


class DomainFlags(Section):
    """Which changes of an image keep its label; augmentation and test-time views follow them."""

    hflip: bool = Field(description="Left and right may be swapped.")
    vflip: bool = Field(description="Top and bottom may be swapped.")
    dflip: bool = Field(default=False, description="Front and back of a volume, its first axis, may be swapped.")
    rotation: Literal["none", "small", "any"] = Field(description="It may be turned: not, by a few degrees, freely.")
    texture_is_label: bool = Field(description="Fine texture tells the classes apart.")
    colour_is_label: bool = Field(description="Hue tells the classes apart.")


NO_CHANGES = DomainFlags(hflip=False, vflip=False, rotation="small", texture_is_label=True, colour_is_label=True)


FIT_TEXT = "How a picture becomes a square: cut to its middle, or scaled as a whole and filled with black (pad)."


class DatasetInfo(Section):
    """One entry of the catalog."""

    name: str = Field(
        pattern="^[a-z0-9_]+$", max_length=100, description="Name on the command line and in run folders."
    )
    title: Text = Field(description="Name as its authors write it.")
    description: Prose = Field(description="One sentence on the images and the labels.")
    task: TaskName = Field(description="Kind of labels.")
    classes: tuple[Text, ...] = Field(
        min_length=1, max_length=MAX_CLASSES, description="Class, label or grade names, in label order."
    )
    positive: str | None = Field(
        None, description="Of two classes, the one that is to be found; null is the last one, class 1."
    )
    channels: Literal[1, 3] = Field(description="1 for grey, 3 for colour.")
    spatial_dims: Literal[2, 3] = Field(2, description="2 for images, 3 for volumes, which are cubes.")
    fit: Literal["crop", "pad"] = Field("crop", description=FIT_TEXT)
    intensity: Intensity | None = Field(None, description=INTENSITY_TEXT)
    splits: Splits = Field(description="Number of images per split.")
    columns: tuple[Text, ...] = Field(
        (),
        max_length=MAX_COLUMNS,
        description="Columns that the archive keeps beside the images, such as age, sex and site.",
    )
    source: Text = Field("archive", description="Where the arrays come from: archive, or an embedded source's name.")
    made_from: str | None = Field(
        None, max_length=4096, description="Of an import: the folder or table, on that machine."
    )
    notes: tuple[Annotated[str, Field(max_length=MAX_NOTE)], ...] = Field(
        (), max_length=MAX_NOTES, description="Of an import: what was left out, or looks odd; reports repeat it."
    )
    archives: dict[Resolution, Archive] = Field(default_factory=dict, description="Archive per resolution.")
    original: AnyOriginal | None = Field(
        None, description="Published files of another format, of which the archives without an address are made."
    )
    resolutions: tuple[Resolution, ...] | None = Field(None, description="Offered resolutions; null is any.")
    normalisation: Normalisation = Field(description="Constants for normalising pixels.")
    flags: DomainFlags = Field(description="Which changes keep the label.")
    licence: Prose = Field(description="Licence of the images.")
    citation: Prose = Field(description="What to cite.")

    @model_validator(mode="before")
    @classmethod
    def _archives_offer_their_resolutions(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("archives") and values.get("resolutions") is None:
            return {**values, "resolutions": sorted(values["archives"])}
        return values

    @model_validator(mode="after")
    def _volumes_are_bounded(self) -> Self:
        if self.spatial_dims == 3:
            check_volume_resolutions((*self.archives, *(self.resolutions or ())))
        return self

    @model_validator(mode="after")
    def _constants_fit_channels(self) -> Self:
        check_constants(self.normalisation.mean, self.normalisation.std, self.channels)
        return self

    @model_validator(mode="after")
    def _task_takes_them(self) -> Self:
        check_task(self.task, len(self.classes), self.spatial_dims)
        return self

    @model_validator(mode="after")
    def _archives_can_be_made(self) -> Self:
        original = self.original
        if original is None:
            return self
        if self.spatial_dims != 2 or task_named(self.task).forms != ("classes",):
            raise ValueError("original: archives are made of images with one class each")
        if any(resolution > original.resolution for resolution in self.archives):
            raise ValueError(
                f"archives: {max(self.archives)} is larger than the {original.resolution} pixels of original"
            )
        return self

    @model_validator(mode="after")
    def _positive_is_a_class(self) -> Self:
        if self.positive is not None and not task_named(self.task).has_positive:
            raise ValueError(f"positive: {self.positive!r} is not allowed; a {self.task} task has no positive class")
        if self.positive is not None and self.positive not in self.classes:
            raise ValueError(f"positive: {self.positive!r} is not allowed; allowed: {', '.join(self.classes[:20])}")
        if len(set(self.classes)) < len(self.classes):
            raise ValueError("classes: a name stands there twice")
        return self

    @property
    def images(self) -> int:
        """Number of images in all splits."""
        return self.splits.train + self.splits.val + self.splits.test

    def max_archive_bytes(self, resolution: int) -> int:
        """Return more bytes than an archive of this entry can have: its arrays uncompressed, and 1 MiB for the rest.

        The arrays are images and labels, and the names, groups and columns that may be beside them.
        """
        sides = self.image_shape(resolution)[: self.spatial_dims]
        labels = task_named(self.task).label_bytes(len(self.classes), sides)
        side = (SIDE_TEXTS + len(self.columns)) * SIDE_CHARACTERS * _CHARACTER_BYTES
        return self.images * (self.image_bytes(resolution) + labels + side) + (1 << 20)

    def image_shape(self, resolution: int) -> tuple[int, ...]:
        """Return the shape of one image in an archive: (R, R), of volumes (R, R, R), with 3 at the end for colour."""
        return (resolution,) * self.spatial_dims + ((3,) if self.channels == 3 else ())

    def image_bytes(self, resolution: int) -> int:
        """Return the bytes of one uint8 image."""
        return prod(self.image_shape(resolution))

    def archive_name(self, resolution: int) -> str:
        """Return the archive's file name: the entry's, else by MedMNIST's convention (no suffix at 28 pixels)."""
        archive = self.archives.get(resolution)
        if archive is not None and archive.file is not None:
            return archive.file
        return f"{self.name}.npz" if resolution == 28 else f"{self.name}_{resolution}.npz"


class TaskSpec(Section):
    """What a network must know of its data to predict without the data set; stored in every checkpoint.

    Only the classes have to be given: their number, or their names. They are then taken to exclude each other, images
    are of 28 pixels with 3 channels, pixels are normalised to [-1, 1], and of the changes that may keep a label only
    small rotations are allowed. `of_arrays` takes all of it from arrays.

    Raises:
        pydantic.ValidationError: If a value is not allowed.

    >>> spec = TaskSpec(classes=3, channels=1, resolution=32)
    >>> spec.classes, spec.mean
    (('0', '1', '2'), (0.5,))
    """

    dataset: Text = Field(default="data", description="Catalog name.")
    task: TaskName = Field(description="Kind of labels.")
    classes: tuple[Text, ...] = Field(min_length=1, max_length=MAX_CLASSES, description="Class names in label order.")
    channels: Literal[1, 3] = Field(description="Channels that the network takes.")
    spatial_dims: Literal[2, 3] = Field(default=2, description="2 for images, 3 for volumes.")
    resolution: Resolution = Field(default=28, description="Height and width, and depth, of the training images.")
    mean: tuple[float, ...] = Field(description="Mean per channel, of values in [0, 1].")
    std: tuple[float, ...] = Field(description="Standard deviation per channel.")
    flags: DomainFlags = Field(default=NO_CHANGES, description="Which changes keep the label.")
    fit: Literal["crop", "pad"] = Field(default="crop", description=FIT_TEXT)
    intensity: Intensity | None = Field(default=None, description=INTENSITY_TEXT)
    resize: Resize = Field(default=Resize(), description="The size that the network reads, as of `data.resize`.")
    positive: int | None = Field(
        default=None,
        description="Of two classes, index of the one that is to be found; null is 1, as in old checkpoints.",
    )

    if TYPE_CHECKING:

        def __init__(
            self,
            *,
            classes: int | Sequence[str],
            task: TaskName | None = None,
            dataset: str = "data",
            channels: int = 3,
            spatial_dims: Literal[2, 3] = 2,
            resolution: int = 28,
            mean: Sequence[float] | None = None,
            std: Sequence[float] | None = None,
            flags: DomainFlags | Mapping[str, Any] = NO_CHANGES,
            fit: Literal["crop", "pad"] = "crop",
            intensity: tuple[float, float] | None = None,
            resize: Resize | Mapping[str, Any] = Resize(),  # noqa: B008  # frozen
            positive: int | None = None,
        ) -> None: ...

    @model_validator(mode="before")
    @classmethod
    def _the_rest_follows(cls, values: Any) -> Any:
        if not isinstance(values, dict) or "classes" not in values:
            return values
        given = {name: value for name, value in values.items() if value is not None or name == "positive"}
        if type(given["classes"]) is int and given["classes"] <= MAX_CLASSES:
            given["classes"] = tuple(map(str, range(given["classes"])))
        count = len(given["classes"]) if isinstance(given["classes"], list | tuple) else 0
        given.setdefault("task", usual_task(False, count))
        mean = given.get("mean")
        given.setdefault("channels", len(mean) if isinstance(mean, list | tuple) else 3)
        for name in ("mean", "std"):
            given.setdefault(name, (0.5,) * (3 if given["channels"] == 3 else 1))
        return given

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        check_constants(self.mean, self.std, self.channels)
        if self.spatial_dims == 3:
            check_volume_resolutions((self.resolution,))
        check_task(self.task, len(self.classes), self.spatial_dims)
        if problems := resize_problems(self.resize, self.resolution, self.task, self.spatial_dims):
            raise ValueError("; ".join(problems))
        if self.positive is not None and not 0 <= self.positive < len(self.classes):
            raise ValueError(f"positive: {self.positive} is not allowed; allowed: 0 to {len(self.classes) - 1}")
        return self

    @property
    def kind(self) -> Task:
        """The task."""
        return task_named(self.task)

    @property
    def sides_text(self) -> str:
        """Sides of an image or volume, as 28×28 or 28×28×28."""
        return "×".join([str(self.resolution)] * self.spatial_dims)

    @property
    def size_text(self) -> str:
        """Size of an image or volume, as sentences name it.

        >>> TaskSpec(classes=2, spatial_dims=3, resolution=28).size_text
        '28×28×28 voxels'
        """
        return f"{self.sides_text} {'voxels' if self.spatial_dims == 3 else 'pixels'}"

    @property
    def network_resolution(self) -> int:
        """Height and width, and depth, of what the network reads.

        >>> TaskSpec(classes=2, resize={"size": 64}).network_resolution
        64
        """
        return network_resolution(self.resize, self.resolution)

    @property
    def resized_text(self) -> str:
        """Size of the images, and that which the network reads if it is another, as reports name it.

        >>> TaskSpec(classes=2, resize={"size": 64}).resized_text
        '28 pixels, resized to 64 (bilinear)'
        """
        if self.network_resolution == self.resolution:
            return f"{self.resolution} pixels"
        how = "padded" if self.resize.mode == "pad" else "resized"
        kind = "" if self.resize.mode == "pad" else f" ({self.resize.mode})"
        return f"{self.resolution} pixels, {how} to {self.resize.size}{kind}"

    @property
    def positive_index(self) -> int:
        """Index of the class that is to be found, of two."""
        return 1 if self.positive is None else self.positive

    @classmethod
    def of(cls, info: DatasetInfo, resolution: int, force_rgb: bool, resize: Resize = Resize()) -> "TaskSpec":  # noqa: B008
        """Bind a catalog entry to a resolution, a number of channels, and the size that the network reads."""
        repeat = 3 if force_rgb and info.channels == 1 else 1
        return cls(
            dataset=info.name,
            task=info.task,
            classes=info.classes,
            channels=3 if repeat == 3 else info.channels,
            spatial_dims=info.spatial_dims,
            resolution=resolution,
            mean=info.normalisation.mean * repeat,
            std=info.normalisation.std * repeat,
            flags=info.flags,
            fit=info.fit,
            intensity=info.intensity,
            resize=resize,
            positive=None if info.positive is None else info.classes.index(info.positive),
        )

    @classmethod
    def of_arrays(
        cls,
        images: "npt.NDArray[Any]",
        labels: "npt.NDArray[Any]",
        *,
        classes: Sequence[str] | None = None,
        task: TaskName | None = None,
        dataset: str = "data",
        positive: str | None = None,
        flags: DomainFlags | None = None,
        spatial_dims: Literal[2, 3] = 2,
    ) -> "TaskSpec":
        """Return the task of somebody's own arrays; what is not said follows from them.

        Args:
            images: (N, R, R), (N, R, R, C) or (N, C, R, R) with 1 or 3 channels C, uint8 or floats in [0, 1], of the
                training split: mean and standard deviation are theirs. Of volumes the same with (R, R, R).
            labels: (N,) classes counted from 0, or (N, L) of zeros and ones; or masks (N, R, R) of classes, in which
                255 does not count.
            classes: Names of the classes, or of the labels; None numbers them.
            task: Kind of labels; None follows from their shape and the number of classes.
            dataset: Name of the data.
            positive: Of two classes, the one that is to be found; None is the last one.
            flags: Which changes of an image keep its label; None allows none but small rotations.
            spatial_dims: 3 says that the arrays are volumes, which four axes alone do not tell from images.

        Raises:
            DataError: If the arrays cannot be images and labels of one split.

        >>> import numpy as np
        >>> spec = TaskSpec.of_arrays(np.zeros((4, 28, 28), np.uint8), np.array([0, 1, 1, 0]), classes=("no", "yes"))
        >>> spec.classes, spec.channels, spec.resolution
        (('no', 'yes'), 1, 28)
        """
        import numpy as np  # which light commands do without

        pixels, targets = np.asarray(images), np.asarray(labels)
        if spatial_dims not in (2, 3):
            raise DataError(f"spatial_dims: {spatial_dims!r} is not allowed; allowed: 2 for images, 3 for volumes")
        if pixels.ndim == 1 + spatial_dims:
            pixels = pixels[..., None]
        elif pixels.ndim == 2 + spatial_dims and pixels.shape[-1] not in (1, 3) and pixels.shape[1] in (1, 3):
            pixels = np.moveaxis(pixels, 1, -1)
        is_square = pixels.ndim == 2 + spatial_dims and len(set(pixels.shape[1:-1])) == 1
        if not is_square or pixels.shape[-1] not in (1, 3) or not len(pixels):
            sides = ", ".join("R" * spatial_dims)
            hint = "; spatial_dims=3 takes volumes" if spatial_dims == 2 and pixels.ndim in (4, 5) else ""
            raise DataError(
                f"images: shape {np.shape(images)} is not allowed; allowed: (N, {sides}), (N, {sides}, C) or "
                f"(N, C, {sides}) with 1 or 3 channels C{hint}"
            )
        masks = targets.shape == pixels.shape[:-1] and targets.dtype.kind in "iu"
        if len(targets) != len(pixels) or not (masks or targets.ndim in (1, 2)):
            raise DataError(
                f"labels: shape {targets.shape} does not fit {len(pixels):,} images; allowed: (N,), (N, L), or masks, "
                f"integers {pixels.shape[:-1]}"
            )
        if masks:
            targets = targets[targets != IGNORED]
        count = targets.shape[1] if targets.ndim == 2 else max(2, int(targets.max(initial=0)) + 1)
        names = tuple(map(str, range(count))) if classes is None else tuple(map(str, classes))
        if masks and classes is None:
            names = ("background", *names[1:])
        if len(names) < count:
            raise DataError(f"classes: {len(names)} names, but the labels need {count}")
        kind = task or (task_of_form("masks") if masks else usual_task(targets.ndim == 2, len(names)))
        scale = 255.0 if pixels.dtype == np.uint8 else 1.0
        axes = tuple(range(1 + spatial_dims))
        std = np.maximum(pixels.std(axis=axes, dtype=np.float64) / scale, SMALLEST_STD)
        try:
            return cls(
                dataset=dataset,
                task=kind,
                classes=names,
                channels=pixels.shape[-1],
                spatial_dims=spatial_dims,
                resolution=pixels.shape[1],
                mean=tuple((pixels.mean(axis=axes, dtype=np.float64) / scale).tolist()),
                std=tuple(std.tolist()),
                flags=flags or NO_CHANGES,
                positive=None if positive is None else names.index(positive),
            )
        except ValidationError as error:
            raise DataError(
                [f"{item['loc'][0] if item['loc'] else 'arrays'}: {item['msg']}" for item in error.errors()]
            ) from error
        except ValueError as error:
            raise DataError(f"positive: {positive!r} is no class; allowed: {', '.join(names[:20])}") from error
