"""visionforge: PyTorch Lightning for small images; public names load on first use, so importing this loads no torch."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from visionforge import augmentations, losses, metrics
    from visionforge.api import (
        audit,
        benchmark,
        compare,
        embed,
        ensemble,
        evaluate,
        explain,
        export,
        fit,
        open_study,
        predict,
        probe,
        pull,
        push,
        robustness,
        tune,
    )
    from visionforge.benchmarking.found import Benchmark
    from visionforge.config.parts import (
        register_augmentation,
        register_averaging,
        register_decoder,
        register_detector,
        register_loss,
        register_mixing,
        register_optimizer,
        register_sampler,
        register_schedule,
    )
    from visionforge.config.schema import (
        AugmentationOperation,
        Averaging,
        Decoder,
        Detector,
        Loss,
        Mixing,
        Optimizer,
        RunSettings,
        Sampler,
        Schedule,
        Task,
    )
    from visionforge.config.schema.metrics import Metric, register_metric
    from visionforge.config.schema.tasks import register_task
    from visionforge.data.checks import ArchiveReport
    from visionforge.data.corruption import Corruption, register_corruption
    from visionforge.data.datamodule import ImageDataModule, MedMNISTDataModule
    from visionforge.data.duplicates import find_duplicates
    from visionforge.data.import_dataset import import_dataset
    from visionforge.data.import_report import ImportReport
    from visionforge.data.info import DatasetInfo, TaskSpec
    from visionforge.data.registry import dataset_info, dataset_names, register_dataset
    from visionforge.data.sharding import shard_dataset, write_shards
    from visionforge.engine.audit import Audit
    from visionforge.engine.comparison import Comparison
    from visionforge.engine.dataset_check import check_dataset
    from visionforge.engine.embeddings import Embeddings
    from visionforge.engine.explanations import Explanations
    from visionforge.engine.folds import FoldRuns
    from visionforge.engine.picture_predictions import PicturePredictions
    from visionforge.engine.robustness import Robustness
    from visionforge.engine.run import EvaluationResult, Run, list_runs, open_run
    from visionforge.engine.run_folder import RunFolder
    from visionforge.engine.split_report import SplitReport
    from visionforge.engine.starter import Starter, starter
    from visionforge.errors import SettingsError, VisionForgeError
    from visionforge.exporting.export import ExportResult
    from visionforge.models.registry import backbone_names, register_backbone
    from visionforge.publishing.pull import PullResult
    from visionforge.publishing.push import PushResult
    from visionforge.reporting.runs_page import runs_page
    from visionforge.serving.server import serve, serving_app
    from visionforge.training.classifier import ImageClassifier
    from visionforge.training.temperature_scaling import TemperatureScaling
    from visionforge.tuning.found import Study

    __version__: str

_HOMES = {
    "ArchiveReport": "visionforge.data.checks",
    "Audit": "visionforge.engine.audit",
    "AugmentationOperation": "visionforge.config.schema",
    "Averaging": "visionforge.config.schema",
    "Benchmark": "visionforge.benchmarking.found",
    "Comparison": "visionforge.engine.comparison",
    "Corruption": "visionforge.data.corruption",
    "DatasetInfo": "visionforge.data.info",
    "Decoder": "visionforge.config.schema",
    "Detector": "visionforge.config.schema",
    "Embeddings": "visionforge.engine.embeddings",
    "EvaluationResult": "visionforge.engine.run",
    "Explanations": "visionforge.engine.explanations",
    "ExportResult": "visionforge.exporting.export",
    "FoldRuns": "visionforge.engine.folds",
    "ImageClassifier": "visionforge.training.classifier",
    "ImageDataModule": "visionforge.data.datamodule",
    "ImportReport": "visionforge.data.import_report",
    "Loss": "visionforge.config.schema",
    "MedMNISTDataModule": "visionforge.data.datamodule",
    "Metric": "visionforge.config.schema.metrics",
    "Mixing": "visionforge.config.schema",
    "Optimizer": "visionforge.config.schema",
    "PicturePredictions": "visionforge.engine.picture_predictions",
    "PullResult": "visionforge.publishing.pull",
    "PushResult": "visionforge.publishing.push",
    "Robustness": "visionforge.engine.robustness",
    "Run": "visionforge.engine.run",
    "RunFolder": "visionforge.engine.run_folder",
    "RunSettings": "visionforge.config.schema",
    "Sampler": "visionforge.config.schema",
    "Schedule": "visionforge.config.schema",
    "SettingsError": "visionforge.errors",
    "SplitReport": "visionforge.engine.split_report",
    "Starter": "visionforge.engine.starter",
    "Study": "visionforge.tuning.found",
    "Task": "visionforge.config.schema",
    "TaskSpec": "visionforge.data.info",
    "TemperatureScaling": "visionforge.training.temperature_scaling",
    "VisionForgeError": "visionforge.errors",
    "audit": "visionforge.api",
    "benchmark": "visionforge.api",
    "backbone_names": "visionforge.models.registry",
    "check_dataset": "visionforge.engine.dataset_check",
    "compare": "visionforge.api",
    "dataset_info": "visionforge.data.registry",
    "dataset_names": "visionforge.data.registry",
    "embed": "visionforge.api",
    "ensemble": "visionforge.api",
    "evaluate": "visionforge.api",
    "explain": "visionforge.api",
    "export": "visionforge.api",
    "find_duplicates": "visionforge.data.duplicates",
    "fit": "visionforge.api",
    "import_dataset": "visionforge.data.import_dataset",
    "list_runs": "visionforge.engine.run",
    "open_run": "visionforge.engine.run",
    "open_study": "visionforge.api",
    "predict": "visionforge.api",
    "probe": "visionforge.api",
    "pull": "visionforge.api",
    "push": "visionforge.api",
    "register_augmentation": "visionforge.config.parts",
    "register_averaging": "visionforge.config.parts",
    "register_backbone": "visionforge.models.registry",
    "register_corruption": "visionforge.data.corruption",
    "register_dataset": "visionforge.data.registry",
    "register_decoder": "visionforge.config.parts",
    "register_detector": "visionforge.config.parts",
    "register_loss": "visionforge.config.parts",
    "register_metric": "visionforge.config.schema.metrics",
    "register_mixing": "visionforge.config.parts",
    "register_optimizer": "visionforge.config.parts",
    "register_sampler": "visionforge.config.parts",
    "register_schedule": "visionforge.config.parts",
    "register_task": "visionforge.config.schema.tasks",
    "robustness": "visionforge.api",
    "runs_page": "visionforge.reporting.runs_page",
    "serve": "visionforge.serving.server",
    "serving_app": "visionforge.serving.server",
    "shard_dataset": "visionforge.data.sharding",
    "starter": "visionforge.engine.starter",
    "tune": "visionforge.api",
    "write_shards": "visionforge.data.sharding",
}

_MODULES = ("augmentations", "losses", "metrics")

__all__ = [
    "ArchiveReport",
    "Audit",
    "AugmentationOperation",
    "Averaging",
    "Benchmark",
    "Comparison",
    "Corruption",
    "DatasetInfo",
    "Decoder",
    "Detector",
    "Embeddings",
    "EvaluationResult",
    "Explanations",
    "ExportResult",
    "FoldRuns",
    "ImageClassifier",
    "ImageDataModule",
    "ImportReport",
    "Loss",
    "MedMNISTDataModule",
    "Metric",
    "Mixing",
    "Optimizer",
    "PicturePredictions",
    "PullResult",
    "PushResult",
    "Robustness",
    "Run",
    "RunFolder",
    "RunSettings",
    "Sampler",
    "Schedule",
    "SettingsError",
    "SplitReport",
    "Starter",
    "Study",
    "Task",
    "TaskSpec",
    "TemperatureScaling",
    "VisionForgeError",
    "__version__",
    "audit",
    "augmentations",
    "backbone_names",
    "benchmark",
    "check_dataset",
    "compare",
    "dataset_info",
    "dataset_names",
    "embed",
    "ensemble",
    "evaluate",
    "explain",
    "export",
    "find_duplicates",
    "fit",
    "import_dataset",
    "list_runs",
    "losses",
    "metrics",
    "open_run",
    "open_study",
    "predict",
    "probe",
    "pull",
    "push",
    "register_augmentation",
    "register_averaging",
    "register_backbone",
    "register_corruption",
    "register_dataset",
    "register_decoder",
    "register_detector",
    "register_loss",
    "register_metric",
    "register_mixing",
    "register_optimizer",
    "register_sampler",
    "register_schedule",
    "register_task",
    "robustness",
    "runs_page",
    "serve",
    "serving_app",
    "shard_dataset",
    "starter",
    "tune",
    "write_shards",
]


def __dir__() -> list[str]:
    return __all__


if not TYPE_CHECKING:  # which would take every name for one of the package's

    def __getattr__(name: str) -> Any:
        if name == "__version__":
            from visionforge.distribution import own_version

            return own_version()
        if name in _MODULES:
            return import_module(f"visionforge.{name}")
        if name in _HOMES:
            return getattr(import_module(_HOMES[name]), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
