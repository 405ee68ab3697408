"""Settings of a benchmark: a matrix of trainings, each of which is an ordinary fit."""

import re
from typing import Literal

from pydantic import Field, field_validator

from visionforge.config.schema.base import Section

Suite = Literal["medmnist2d", "medmnist3d", "quick"]
DEFAULT_RECIPE = "default"  # the configuration itself
BY_SIZE = "by_size"  # for every data set the shipped recipe for its number of training images


class BenchmarkSettings(Section):
    """The matrix of `visionforge benchmark`; all other commands pass over it."""

    name: str | None = Field(
        default=None,
        description="Name of the benchmark and of its folder; null is that of the suite, or `benchmark`. The same name "
        "with a larger matrix goes on with it.",
    )
    suite: Suite | None = Field(
        default=None,
        description="A matrix that is shipped, of which every setting can be changed. medmnist2d, medmnist3d: all "
        "MedMNIST sets at 28 pixels; quick: two sets that need no download, in about two minutes.",
    )
    datasets: tuple[str, ...] = Field(default=(), description="Data sets; [] is data.dataset alone.")
    resolutions: tuple[int, ...] = Field(
        default=(),
        description="Heights and widths; [] is what a recipe says, else data.resolution alone.",
        json_schema_extra={"unit": "pixels"},
    )
    backbones: tuple[str, ...] = Field(
        default=(), description="Backbones; [] is what a recipe says, else model.backbone.name alone."
    )
    recipes: tuple[str, ...] = Field(
        default=(DEFAULT_RECIPE,),
        min_length=1,
        description="Partial configurations, each laid over the given one and under data set, resolution, backbone and "
        "seed: the name of a shipped recipe or configuration, a YAML file, `default`, which changes nothing, or "
        "`by_size`, the shipped recipe for each data set's number of training images (tiny_28, small_28, large_28). "
        "`stage: probe` in one makes its cells probes instead of fits.",
    )
    seeds: tuple[int, ...] = Field(
        default=(), description="Seeds; [] is seed_everything and the next two.", max_length=100
    )
    workers: int = Field(default=1, ge=1, le=256, description="Processes on this machine that share the cells.")
    storage: str | None = Field(
        default=None,
        description="Database: null is SQLite in the benchmark's folder, `journal` a journal file there, or any URL of "
        "Optuna's, such as postgresql://USER@HOST/NAME, through which several machines share the cells.",
    )
    heartbeat_seconds: int = Field(
        default=60,
        ge=1,
        le=3600,
        description="Interval of the sign of life of a cell; one that is silent for twice as long is retried.",
        json_schema_extra={"unit": "seconds"},
    )
    watts: float | None = Field(
        default=None,
        gt=0.0,
        le=10_000.0,
        description="Power of one busy processor core, from which and from processor time energy is estimated; null "
        "is none, or what the processor itself has counted (RAPL) where that can be read and one worker is at work.",
        json_schema_extra={"unit": "watts"},
    )

    @field_validator("name")
    @classmethod
    def _plain_name(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}", value):
            raise ValueError(f"{value!r} is not allowed; letters, digits, _, . and -, at most 100, no / in it")
        return value

    @field_validator("datasets", "resolutions", "backbones", "recipes", "seeds")
    @classmethod
    def _each_once(cls, value: tuple[str | int, ...]) -> tuple[str | int, ...]:
        if twice := [item for item in value if value.count(item) > 1]:
            raise ValueError(f"{twice[0]} stands there twice")
        return value

    @field_validator("seeds")
    @classmethod
    def _seeds_in_bounds(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if wrong := [seed for seed in value if not 0 <= seed < 2**32]:
            raise ValueError(f"{wrong[0]} is not allowed; allowed: 0 to {2**32 - 1}")
        return value
