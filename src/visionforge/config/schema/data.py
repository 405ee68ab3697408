"""Settings of the data: what is read, and how training images are changed."""

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from visionforge.config.schema.base import Probability, Section, Task

Preset = Literal["none", "light", "standard", "strong"]


class Augmentation(Section):
    """Random changes of training images, drawn anew for every image and epoch."""

    preset: Preset | None = Field(
        default=None,
        description="A named set of all the values below, which are then left out; null takes them as given.",
    )

    hflip: Probability = Field(
        default=0.5, description="Probability of a left-right flip; off where the data set forbids flips."
    )
    rotation_angle: int = Field(
        default=10, ge=0, le=180, description="Largest rotation to either side.", json_schema_extra={"unit": "degrees"}
    )
    jitter_val: Probability = Field(
        default=0.2,
        description="Strength j of the colour jitter: brightness, contrast and saturation factors from [1-j, 1+j].",
    )
    min_scale: float = Field(
        default=0.95, gt=0.0, le=1.0, description="Smallest share of the image's area that a random resized crop keeps."
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

    @model_validator(mode="after")
    def _preset_stands_alone(self) -> Self:
        if self.preset is not None:
            changed = [n for n, f in type(self).model_fields.items() if n != "preset" and getattr(self, n) != f.default]
            if changed:
                raise ValueError(
                    f"preset {self.preset!r} sets every value, so leave out {', '.join(changed)}, or set preset to null"
                )
        return self

    def resolved(self) -> "Augmentation":
        """Return the values that a preset stands for; without a preset, the values as given."""
        return self if self.preset is None else Augmentation(**PRESETS[self.preset])


PRESETS: dict[str, dict[str, Any]] = {
    "none": {"hflip": 0.0, "rotation_angle": 0, "jitter_val": 0.0, "min_scale": 1.0},
    "light": {"hflip": 0.5, "rotation_angle": 0, "jitter_val": 0.1, "min_scale": 0.95},
    "standard": {},
    "strong": {"hflip": 0.5, "rotation_angle": 15, "jitter_val": 0.3, "min_scale": 0.7, "num_ops": 2, "magnitude": 9},
}


class Synthetic(Section):
    """What the data set `synthetic` renders; other data sets do not read it."""

    task: Task = Field(default="multi-class", description="Kind of labels.")
    classes: int = Field(
        default=4, ge=2, le=100, description="Number of classes, labels or grades; a binary task always has 2."
    )
    channels: Literal[1, 3] = Field(default=3, description="1 renders grey images, 3 renders colour.")
    train: int = Field(default=256, ge=1, le=1_000_000, description="Training images.")
    val: int = Field(default=64, ge=1, le=1_000_000, description="Validation images.")
    test: int = Field(default=64, ge=1, le=1_000_000, description="Test images.")


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
        description="Height and width of the images; the data set must offer it.",
        json_schema_extra={"unit": "pixels"},
    )
    batch_size: int = Field(default=128, ge=1, le=2048, description="Images per batch and device.")
    num_workers: int = Field(
        default=0, ge=0, le=64, description="Loader processes; batches come from memory, so 0 is fastest for most."
    )
    cache: Literal["auto", "ram", "mmap", "device"] = Field(
        default="auto",
        description="Where the images are kept: in memory, read in slices from a memory map, or on the training GPU; "
        "auto decides by their number and the free memory.",
    )
    balanced_sampling: bool = Field(default=True, description="Draw training images with weights 1 / class count.")
    max_samples: int | None = Field(
        default=None, ge=1, description="Keep at most this many training images, a stratified subset; null keeps all."
    )
    force_rgb: bool = Field(default=True, description="Give grey images three equal channels.")
    augmentation: Augmentation = Field(default=Augmentation(), description="Random changes of training images.")
    synthetic: Synthetic = Field(default=Synthetic(), description="What the data set `synthetic` renders.")
