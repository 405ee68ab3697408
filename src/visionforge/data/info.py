"""What is known of a data set: the catalog entry, and the part of it that a network has to keep."""

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from visionforge.config.schema import Section, Task

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")


class Archive(Section):
    """One downloadable NPZ file."""

    url: str | None = Field(description="Where it is downloaded from; null if it exists on this machine only.")
    md5: str | None = Field(None, pattern="^[0-9a-f]{32}$", description="MD5 of the file; null is not checked.")


class Splits(Section):
    """Number of images per split."""

    train: int = Field(ge=1, description="Training images.")
    val: int = Field(ge=1, description="Validation images.")
    test: int = Field(ge=1, description="Test images.")


class Normalisation(Section):
    """Mean and standard deviation of the training pixels, per channel, of values scaled to [0, 1]."""

    mean: tuple[float, ...] = Field(description="Mean per channel.")
    std: tuple[float, ...] = Field(description="Standard deviation per channel.")
    source: Literal["computed", "published", "rendered"] = Field(
        description="computed from the training images by us, published by others, or a property of rendered images."
    )


class DomainFlags(Section):
    """Which changes of an image keep its label; augmentation and test-time views follow them."""

    hflip: bool = Field(description="Left and right may be swapped.")
    vflip: bool = Field(description="Top and bottom may be swapped.")
    rotation: Literal["none", "small", "any"] = Field(description="It may be turned: not, by a few degrees, freely.")
    texture_is_label: bool = Field(description="Fine texture tells the classes apart.")
    colour_is_label: bool = Field(description="Hue tells the classes apart.")


class DatasetInfo(Section):
    """One entry of the catalog."""

    name: str = Field(pattern="^[a-z0-9_]+$", description="Name on the command line and in run folders.")
    title: str = Field(description="Name as its authors write it.")
    description: str = Field(description="One sentence on the images and the labels.")
    task: Task = Field(description="Kind of labels.")
    classes: tuple[str, ...] = Field(min_length=2, description="Class, label or grade names, in label order.")
    channels: Literal[1, 3] = Field(description="1 for grey, 3 for colour.")
    splits: Splits = Field(description="Number of images per split.")
    source: str = Field("archive", description="Where the arrays come from: archive, or an embedded source's name.")
    archives: dict[int, Archive] = Field(default_factory=dict, description="Archive per resolution.")
    resolutions: tuple[int, ...] | None = Field(None, description="Offered resolutions; null is any.")
    normalisation: Normalisation = Field(description="Constants for normalising pixels.")
    flags: DomainFlags = Field(description="Which changes keep the label.")
    licence: str = Field(description="Licence of the images.")
    citation: str = Field(description="What to cite.")

    @model_validator(mode="before")
    @classmethod
    def _archives_offer_their_resolutions(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("archives") and values.get("resolutions") is None:
            return {**values, "resolutions": sorted(values["archives"])}
        return values

    @model_validator(mode="after")
    def _constants_fit_channels(self) -> Self:
        if not len(self.normalisation.mean) == len(self.normalisation.std) == self.channels:
            raise ValueError(f"normalisation needs {self.channels} values of mean and of std, one per channel")
        return self

    @property
    def images(self) -> int:
        """Number of images in all splits."""
        return self.splits.train + self.splits.val + self.splits.test

    def max_archive_bytes(self, resolution: int) -> int:
        """Return more bytes than an archive of this entry can have: its arrays uncompressed, and 1 MiB for the rest."""
        labels = 8 * (len(self.classes) if self.task == "multi-label" else 1)
        return self.images * (resolution * resolution * self.channels + labels) + (1 << 20)

    def archive_name(self, resolution: int) -> str:
        """Return the archive's file name, after MedMNIST's convention: the suffix is left out at 28 pixels."""
        return f"{self.name}.npz" if resolution == 28 else f"{self.name}_{resolution}.npz"


class TaskSpec(Section):
    """What a network must know of its data to predict without the data set; stored in every checkpoint."""

    dataset: str = Field(description="Catalog name.")
    task: Task = Field(description="Kind of labels.")
    classes: tuple[str, ...] = Field(description="Class names in label order.")
    channels: Literal[1, 3] = Field(description="Channels that the network takes.")
    resolution: int = Field(description="Height and width of the training images, in pixels.")
    mean: tuple[float, ...] = Field(description="Mean per channel, of values in [0, 1].")
    std: tuple[float, ...] = Field(description="Standard deviation per channel.")
    flags: DomainFlags = Field(description="Which changes keep the label.")

    @classmethod
    def of(cls, info: DatasetInfo, resolution: int, force_rgb: bool) -> "TaskSpec":
        """Bind a catalog entry to a resolution and a number of channels."""
        repeat = 3 if force_rgb and info.channels == 1 else 1
        return cls(
            dataset=info.name,
            task=info.task,
            classes=info.classes,
            channels=3 if repeat == 3 else info.channels,
            resolution=resolution,
            mean=info.normalisation.mean * repeat,
            std=info.normalisation.std * repeat,
            flags=info.flags,
        )
