"""Settings of the data: what is read, and how training images are changed."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from visionforge.config.schema.base import Probability, Section
from visionforge.config.schema.components import Component, Family
from visionforge.config.schema.tasks import TaskName, default_task

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from torch import Tensor

Preset = Literal["none", "light", "standard", "strong"]
FoldPool = Literal["train+val", "all"]
ResizeMode = Literal["bilinear", "bicubic", "pad"]
FOLD_POOLS: dict[str, tuple[Literal["train", "val", "test"], ...]] = {
    "train+val": ("train", "val"),
    "all": ("train", "val", "test"),
}
MAX_VOLUME_RESOLUTION = 256  # voxels along each axis; one volume of them has 16 MiB


class Sampler(Component):
    """Which training images an epoch shows, and in which order.

    A kind has `weights`, or `indices` for an order of its own.
    """

    family: ClassVar[Family] = Family("data.sampler", "auto", "visionforge.data.samplers", "a sampler")
    required: ClassVar[tuple[str, ...]] = ("indices", "weights")
    balances: ClassVar[bool] = False  # shows the classes equally often

    def resolved(self, balanced: bool) -> "Sampler":
        """Return the sampler that is meant: itself, unless it stands for others.

        Args:
            balanced: The setting `data.balanced_sampling`.
        """
        return self

    def weights(self, labels: "npt.NDArray[np.integer[Any]]") -> "npt.NDArray[np.float64] | None":
        """Return (N,) weights by which images are drawn with replacement; None shows each once, in random order.

        Args:
            labels: (N,) int64 classes, or (N, L) labels of 0 and 1.
        """
        return None

    def indices(
        self, labels: "npt.NDArray[np.integer[Any]]", rng: "np.random.Generator", draws: int
    ) -> "npt.NDArray[np.integer[Any]] | None":
        """Return (draws,) positions of the images of an epoch, in their order; None leaves it to the weights.

        Every process draws the same ones and takes its share; a resumed run leaves out what it has seen.

        Args:
            labels: (N,) int64 classes, or (N, L) labels of 0 and 1.
            rng: All randomness; a function of seed and epoch.
            draws: Number of positions; the number of images N.
        """
        return None


class AugmentationOperation(Component):
    """A random change of training images, after those that are made in one pass.

    A kind has `build`.
    """

    family: ClassVar[Family] = Family(
        "data.augmentation.operations", "", "visionforge.data.operations", "an augmentation operation"
    )
    required: ClassVar[tuple[str, ...]] = ("build",)

    by_image: ClassVar[bool] = False
    """Whether the function takes the `Draws` of the images instead of a generator, and gives each image by itself."""

    def build(self) -> "Callable[[Tensor, Any], Tensor]":
        """Return the function of a batch.

        It is given images (B, C, H, W), or volumes (B, C, D, H, W), float32 from 0 to 1 on the training device, of
        which it may change the values in place, and what all its random numbers come from; it returns images of the
        same shape. What leaves 0 to 1 is clipped after the last operation.

        With `by_image` the second argument is a `visionforge.data.draws.Draws` of B images, whose numbers are a
        function of (seed, epoch, place of the image), so that they depend neither on how many processes train
        together nor on the device; the images may come in parts. Otherwise it is a `torch.Generator` on that device,
        seeded anew for each step and process.
        """
        raise NotImplementedError(f"{type(self).__qualname__}.build")


class Augmentation(Section):
    """Random changes of training images, drawn anew for every image and epoch."""

    preset: Preset | None = Field(
        default=None,
        description="A named set of all the values below but `operations`, which are then left out; null takes them as "
        "given.",
    )

    hflip: Probability = Field(
        default=0.5, description="Probability of a left-right flip; off where the data set forbids flips."
    )
    rotation_angle: int = Field(
        default=10,
        ge=0,
        le=180,
        description="Largest rotation to either side; of volumes, about each of the three axes.",
        json_schema_extra={"unit": "degrees"},
    )
    jitter_val: Probability = Field(
        default=0.2,
        description="Strength j of the colour jitter: brightness, contrast and saturation factors from [1-j, 1+j].",
    )
    min_scale: float = Field(
        default=0.95,
        gt=0.0,
        le=1.0,
        description="Smallest share of the image's area, or of the volume, that a random resized crop keeps.",
    )
    vflip: Probability = Field(
        default=0.0, description="Probability of a top-bottom flip; off where the data set forbids it."
    )
    dflip: Probability = Field(
        default=0.0,
        description="Probability of a front-back flip of volumes; off where the data set forbids it, and not allowed "
        "with images.",
    )
    flip_mode: Literal["random", "alternating"] = Field(
        default="random",
        description="alternating flips every image in every other epoch instead of at random, so that two epochs show "
        "both of its orientations.",
    )
    num_ops: int = Field(
        default=0, ge=0, le=8, description="RandAugment: number of random operations per image, on top of the others."
    )
    magnitude: int = Field(default=9, ge=0, le=30, description="RandAugment: strength of each operation.")
    operations: tuple[AugmentationOperation, ...] = Field(
        default=(), description="Further operations, one after the other, on top of all others; also under a preset."
    )

    @model_validator(mode="after")
    def _preset_stands_alone(self) -> Self:
        if self.preset is not None:
            fields = type(self).model_fields.items()
            on_top = ("preset", "operations")
            changed = [n for n, f in fields if n not in on_top and getattr(self, n) != f.default]
            if changed:
                raise ValueError(
                    f"preset {self.preset!r} sets every value, so leave out {', '.join(changed)}, or set preset to null"
                )
        return self

    def resolved(self) -> "Augmentation":
        """Return the values that a preset stands for; without a preset, the values as given."""
        return self if self.preset is None else Augmentation(**PRESETS[self.preset], operations=self.operations)


PRESETS: dict[str, dict[str, Any]] = {
    "none": {"hflip": 0.0, "rotation_angle": 0, "jitter_val": 0.0, "min_scale": 1.0},
    "light": {"hflip": 0.5, "rotation_angle": 0, "jitter_val": 0.1, "min_scale": 0.95},
    "standard": {},
    "strong": {"hflip": 0.5, "rotation_angle": 15, "jitter_val": 0.3, "min_scale": 0.7, "num_ops": 2, "magnitude": 9},
}


class Synthetic(Section):
    """What the data set `synthetic` renders; other data sets do not read it."""

    task: TaskName = Field(default=default_task(), description="Kind of labels.")
    classes: int = Field(
        default=4,
        ge=2,
        le=100,
        description="Number of classes, labels or grades; a task of two always has 2.",
    )
    channels: Literal[1, 3] = Field(default=3, description="1 renders grey images, 3 renders colour.")
    train: int = Field(default=256, ge=1, le=1_000_000, description="Training images.")
    val: int = Field(default=64, ge=1, le=1_000_000, description="Validation images.")
    test: int = Field(default=64, ge=1, le=1_000_000, description="Test images.")


class Resize(Section):
    """The size that the network reads, apart from that of the images."""

    size: int | None = Field(
        default=None,
        ge=8,
        le=1024,
        description="Height and width that the network reads, and depth of volumes; whole batches are brought to it on "
        "the device, in front of the network; null leaves the images as they are.",
        json_schema_extra={"unit": "pixels"},
    )
    mode: ResizeMode = Field(
        default="bilinear",
        description="bilinear or bicubic interpolate, antialiased where the size is reduced, and of volumes along each "
        "axis; pad puts the image as it is into the middle of a black square.",
    )


def unequal_parts(images: int, devices: int) -> str:
    """Return the line that refuses images of which devices would have unequal parts."""
    return f"data.global_batch_size: {images} cannot be divided among {devices} devices; set a multiple of {devices}"


class DataSettings(Section):
    """Which images are read, and how they become batches."""

    dataset: str = Field(default="bloodmnist", description="Catalog name; `visionforge datasets list` shows them.")
    root: str | None = Field(
        default=None,
        description="Folder that holds the archives; null is $VISIONFORGE_DATA, or the project's folder `dataset` if "
        "it has one, or else the user's cache folder.",
    )
    download: bool = Field(default=True, description="Download a missing archive.")
    resolution: int = Field(
        default=28,
        ge=8,
        le=1024,
        description="Height and width of the images, and depth of volumes; the data set must offer it.",
        json_schema_extra={"unit": "pixels"},
    )
    resize: Resize = Field(default=Resize(), description="The size that the network reads.")
    batch_size: int = Field(default=128, ge=1, le=2048, description="Images per batch and device.")
    global_batch_size: int | None = Field(
        default=None,
        ge=1,
        le=1 << 20,
        description="Images of all devices together, in the place of `batch_size`: each has an equal part of them, so "
        "that a run can go on with another number of devices.",
    )
    num_workers: int = Field(
        default=0, ge=0, le=64, description="Loader processes; batches come from memory, so 0 is fastest for most."
    )
    cache: Literal["auto", "ram", "mmap", "device"] = Field(
        default="auto",
        description="Where the images are kept: in memory, read in slices from a memory map, or on the training GPU; "
        "auto decides by their number and the free memory.",
    )
    balanced_sampling: bool = Field(default=True, description="Draw training images with weights 1 / class count.")
    sampler: Sampler = Field(
        default_factory=Sampler.usual, description="Which training images an epoch shows, and in which order."
    )
    max_samples: int | None = Field(
        default=None, ge=1, description="Keep at most this many training images, a stratified subset; null keeps all."
    )
    folds: int | None = Field(
        default=None,
        ge=2,
        le=100,
        description="Divide the images of `fold_pool` into so many folds; null keeps the splits.",
    )
    fold: int | None = Field(
        default=None,
        ge=0,
        description="The fold that is held out, from 0, under `fold_repeats` up to folds × repeats - 1; "
        "`fit --folds` trains them all.",
    )
    fold_pool: FoldPool = Field(
        default="train+val",
        description="Which splits are divided: train+val, of which a fold validates, and the test split is kept; or "
        "all, for data without a test split of its own: a fold tests, and the next one validates.",
    )
    fold_repeats: int = Field(default=1, ge=1, le=100, description="How often the images are divided, each time anew.")
    fold_seed: int = Field(default=42, ge=0, lt=1 << 32, description="What the folds are a function of.")
    groups: bool = Field(
        default=True,
        description="Keep the groups that an archive has (patients, slides) together in folds, and draw them whole for "
        "intervals.",
    )
    force_rgb: bool = Field(default=True, description="Give grey images three equal channels.")
    augmentation: Augmentation = Field(default=Augmentation(), description="Random changes of training images.")
    synthetic: Synthetic = Field(default=Synthetic(), description="What the data set `synthetic` renders.")

    @model_validator(mode="after")
    def _one_batch_size(self) -> Self:
        usual = type(self).model_fields["batch_size"].default
        if self.global_batch_size is not None and self.batch_size != usual:
            raise ValueError(
                f"global_batch_size {self.global_batch_size} says how many images each device has, so batch_size "
                f"{self.batch_size} would be ignored; leave one of them out (batch_size is {usual} then)"
            )
        return self

    def images_of(self, devices: int) -> int:
        """Return the images of a batch of so many devices together."""
        return self.global_batch_size or self.batch_size * devices

    def batch_of(self, devices: int) -> int:
        """Return the images of a batch of each of so many devices, of unequal parts the largest."""
        return -(-self.images_of(devices) // devices)

    @property
    def balances(self) -> bool:
        """Return whether an epoch shows the classes equally often."""
        return self.sampler.resolved(self.balanced_sampling).balances
