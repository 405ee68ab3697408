"""Every setting of visionforge, declared once: its default, bounds, unit and meaning.

The sections are frozen pydantic models and at the same time the types of constructor parameters, so the command line,
the error messages and the reference in the docs all derive from these files.
"""

from visionforge.config.schema.base import Probability, Section
from visionforge.config.schema.benchmark import BenchmarkSettings
from visionforge.config.schema.data import (
    PRESETS,
    Augmentation,
    AugmentationOperation,
    DataSettings,
    Preset,
    Resize,
    ResizeMode,
    Sampler,
    Synthetic,
)
from visionforge.config.schema.evaluation import EvaluationSettings
from visionforge.config.schema.model import (
    Averaging,
    Backbone,
    ClassWeights,
    Decoder,
    Detector,
    Distillation,
    Finetuning,
    Loss,
    Mixing,
    ModelSettings,
    Optimizer,
    Schedule,
    TtaMode,
    VolumeConvolution,
    WarmStart,
)
from visionforge.config.schema.probing import ProbeSettings
from visionforge.config.schema.run import RunSettings
from visionforge.config.schema.task import Task
from visionforge.config.schema.tasks import TaskName
from visionforge.config.schema.trainer import TrainerSettings
from visionforge.config.schema.tuning import Dimension, Scalar, SecondMetric, TuneSettings

__all__ = [
    "PRESETS",
    "Augmentation",
    "AugmentationOperation",
    "Averaging",
    "Backbone",
    "BenchmarkSettings",
    "ClassWeights",
    "DataSettings",
    "Decoder",
    "Detector",
    "Dimension",
    "Distillation",
    "EvaluationSettings",
    "Finetuning",
    "Loss",
    "Mixing",
    "ModelSettings",
    "Optimizer",
    "Preset",
    "Probability",
    "ProbeSettings",
    "Resize",
    "ResizeMode",
    "RunSettings",
    "Sampler",
    "Scalar",
    "Schedule",
    "SecondMetric",
    "Section",
    "Synthetic",
    "Task",
    "TaskName",
    "TrainerSettings",
    "TtaMode",
    "TuneSettings",
    "VolumeConvolution",
    "WarmStart",
]
