"""Settings, their bounds, and the rules that span them; imports no torch."""

from visionforge.config.schema import (
    Augmentation,
    Backbone,
    DataSettings,
    Loss,
    Mixing,
    ModelSettings,
    Optimizer,
    RunSettings,
    Schedule,
    Synthetic,
    Task,
    TaskName,
)

__all__ = [
    "Augmentation",
    "Backbone",
    "DataSettings",
    "Loss",
    "Mixing",
    "ModelSettings",
    "Optimizer",
    "RunSettings",
    "Schedule",
    "Synthetic",
    "Task",
    "TaskName",
]
