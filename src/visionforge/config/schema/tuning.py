"""Settings of a search."""

import re
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from visionforge.config.schema.base import Section
from visionforge.config.schema.metrics import ALWAYS, watched_problem

Scalar = bool | int | float | str | None


class Dimension(Section):
    """One parameter of the search: either a range, or choices."""

    low: float | None = Field(default=None, description="Lowest value of a range.")
    high: float | None = Field(default=None, description="Highest value of a range.")
    log: bool = Field(default=False, description="Search a range on a logarithmic scale.")
    step: float | None = Field(
        default=None, gt=0.0, description="Distance of the values of a range; null searches all."
    )
    choices: tuple[Scalar, ...] | None = Field(default=None, min_length=1, description="The values of a choice.")

    @model_validator(mode="after")
    def _range_or_choices(self) -> Self:
        bounds = (self.low, self.high)
        if self.choices is not None:
            if bounds != (None, None) or self.log or self.step is not None:
                raise ValueError("choices stand alone, without low, high, log and step")
            if len(set(self.choices)) < len(self.choices):
                raise ValueError("choices must differ from each other")
            return self
        if self.low is None or self.high is None:
            raise ValueError("give either low and high, or choices")
        if self.low > self.high:
            raise ValueError(f"low ({self.low:g}) is above high ({self.high:g})")
        if self.log and self.low <= 0:
            raise ValueError(f"low ({self.low:g}) must be above 0 with log")
        if self.log and self.step is not None:
            raise ValueError("log and step do not go together")
        return self


SecondMetric = Literal["multiply_adds", "parameters"]


class TuneSettings(Section):
    """The search of `visionforge tune`; all other commands pass over it."""

    n_trials: int = Field(
        default=50, ge=1, le=100_000, description="Trials of the whole study, over all workers and resumes."
    )
    preset: Literal["quick", "full", "architectures", "none"] = Field(
        default="full",
        description="quick: learning rate, weight decay, batch size, dropout; full: thirteen parameters; "
        "architectures: quick and the backbone; none: only `space`.",
    )
    space: dict[str, Dimension | None] = Field(
        default={},
        description="Dotted setting → `{low, high, log, step}` or `{choices}`; adds to the preset or replaces its "
        "range, null takes a parameter out.",
    )
    pool: tuple[str, ...] | None = Field(
        default=None,
        min_length=1,
        description="Backbones of `architectures`; null takes all built-in ones that fit the images.",
    )
    metric: str = Field(
        default="auto",
        description="What is searched for: val/loss, or val/NAME of any metric that fits the task; auto is what the "
        "task's epochs are compared by, val/auc of classes and val/mean_dice of masks. The best epoch of a trial "
        "counts.",
    )
    second_metric: SecondMetric | None = Field(
        default=None, description="Second objective, which is kept low (nsgaii)."
    )
    epochs: int | None = Field(
        default=None,
        ge=1,
        le=1000,
        description="Epochs of a trial; null is trainer.max_epochs.",
        json_schema_extra={"unit": "epochs"},
    )
    sampler: Literal["tpe", "random", "cmaes", "gp", "grid", "nsgaii"] = Field(
        default="tpe",
        description="How values are proposed; tpe is multivariate, gp (a Gaussian process) suits a few dozen trials.",
    )
    pruner: Literal["median", "percentile", "hyperband", "halving", "patient", "none"] = Field(
        default="median",
        description="How poor trials are ended early. halving pauses them: the best go on from their checkpoints.",
    )
    n_startup_trials: int = Field(
        default=5,
        ge=0,
        description="Trials that are finished before the pruner begins; tpe and gp start at random as long.",
    )
    n_warmup_epochs: int = Field(
        default=3,
        ge=0,
        description="Epochs of a trial in which it is not pruned; halving compares trials after them first.",
        json_schema_extra={"unit": "epochs"},
    )
    reduction_factor: int = Field(
        default=3, ge=2, le=10, description="halving, hyperband: one trial of so many goes on; rungs grow by the same."
    )
    percentile: float = Field(
        default=25.0, gt=0.0, lt=100.0, description="percentile: share of trials that may go on, in %."
    )
    patience: int = Field(
        default=3, ge=1, description="patient: epochs without improvement.", json_schema_extra={"unit": "epochs"}
    )
    target: float | None = Field(
        default=0.9999,
        description="Stop when the metric is as good as this; null never stops. "
        "Not used where lower is better, or with two objectives.",
    )
    target_trials: int = Field(
        default=3, ge=1, description="Trials that have to be finished before `target` stops the search."
    )
    timeout_minutes: float | None = Field(
        default=None, gt=0.0, description="Begin no trial after this time.", json_schema_extra={"unit": "minutes"}
    )
    max_failures: int = Field(default=5, ge=1, description="Stop after this many failed trials in a row.")
    study: str | None = Field(
        default=None,
        description="Name of the study; null is made of data set, backbone and a digest of what is searched.",
    )
    storage: str | None = Field(
        default=None,
        description="Database: null is SQLite in the study's folder, `journal` a journal file there, or any URL of "
        "Optuna's, such as postgresql://USER@HOST/NAME.",
    )
    start_from: tuple[str, ...] | None = Field(
        default=None,
        min_length=1,
        description="Earlier studies, by folder or name, also on other images: the values of their best trials are "
        "tried after the configuration's own.",
    )
    start_trials: int = Field(default=5, ge=1, le=1000, description="start_from: so many trials of each study.")
    workers: int = Field(default=1, ge=1, le=256, description="Processes on this machine that share the study.")
    heartbeat_seconds: int = Field(
        default=60,
        ge=1,
        le=3600,
        description="Interval of the sign of life of a trial; one that is silent for twice as long is retried.",
        json_schema_extra={"unit": "seconds"},
    )
    cross_validate: bool = Field(
        default=False,
        description="Every trial trains all folds of data.folds, and its value is their mean; it is pruned between "
        "folds. `tune --folds 5` sets this and data.folds.",
    )
    refit: bool = Field(
        default=False, description="At the end, train the best trial for trainer.max_epochs and test it."
    )

    @field_validator("metric")
    @classmethod
    def _registered(cls, value: str) -> str:
        if value not in ("auto", *ALWAYS) and (
            problem := watched_problem(value)
        ):  # the first need no look at the others
            raise ValueError(problem)
        return value

    @field_validator("study")
    @classmethod
    def _plain_name(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}", value):
            raise ValueError(f"{value!r} is not allowed; letters, digits, _, . and -, at most 100, no / in it")
        return value
