"""All settings of a run."""

from typing import Literal

from pydantic import Field

from visionforge.config.schema.base import Section
from visionforge.config.schema.benchmark import BenchmarkSettings
from visionforge.config.schema.data import DataSettings
from visionforge.config.schema.evaluation import EvaluationSettings
from visionforge.config.schema.model import ModelSettings
from visionforge.config.schema.probing import ProbeSettings
from visionforge.config.schema.trainer import TrainerSettings
from visionforge.config.schema.tuning import TuneSettings


class RunSettings(Section):
    """One configuration: the same keys as the YAML file and the command line."""

    imports: tuple[str, ...] = Field(
        default=(), description="Python modules or files to import first: what they register is known by name."
    )
    seed_everything: int = Field(default=42, ge=0, le=2**32 - 1, description="Seed of everything that is random.")
    data: DataSettings = Field(default=DataSettings(), description="Images and batches.")
    model: ModelSettings = Field(default=ModelSettings(), description="Network and training.")
    trainer: TrainerSettings = Field(default=TrainerSettings(), description="Flags of the Lightning Trainer.")
    evaluation: EvaluationSettings = Field(default=EvaluationSettings(), description="What is reported.")
    probe: ProbeSettings = Field(default=ProbeSettings(), description="The classifier of `visionforge probe`.")
    tune: TuneSettings = Field(default=TuneSettings(), description="The search of `visionforge tune`.")
    benchmark: BenchmarkSettings = Field(
        default=BenchmarkSettings(), description="The matrix of `visionforge benchmark`."
    )
    ckpt_path: str | None = Field(default=None, description="Checkpoint: best, last or a file.")
    resume: str | None = Field(
        default=None,
        description="Run to continue: its folder or name; auto continues the newest interrupted run of the same "
        "settings, if there is one; never begins a new run also where one was interrupted.",
    )
    checkpoint_minutes: float = Field(
        default=10.0,
        gt=0.0,
        le=1440.0,
        description="Longest time between two checkpoints; every epoch ends with one anyway.",
        json_schema_extra={"unit": "minutes"},
    )
    exclusive_device: bool = Field(
        default=False, description="Wait until no other run of this user with this flag is on the same device."
    )
    device_wait: float = Field(
        default=3600.0,
        ge=0.0,
        le=604800.0,
        description="Longest wait for a device under `exclusive_device`.",
        json_schema_extra={"unit": "seconds"},
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="Least severity of what the console shows; run.log has everything from info on."
    )
