"""visionforge: PyTorch Lightning for small images; public names load on first use, so importing this loads no torch."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from visionforge.data.datamodule import MedMNISTDataModule
    from visionforge.data.info import DatasetInfo, TaskSpec
    from visionforge.data.registry import dataset_info, dataset_names, register_dataset
    from visionforge.errors import VisionForgeError
    from visionforge.models.registry import backbone_names, register_backbone
    from visionforge.training.classifier import ImageClassifier

_HOMES = {
    "DatasetInfo": "visionforge.data.info",
    "ImageClassifier": "visionforge.training.classifier",
    "MedMNISTDataModule": "visionforge.data.datamodule",
    "TaskSpec": "visionforge.data.info",
    "VisionForgeError": "visionforge.errors",
    "backbone_names": "visionforge.models.registry",
    "dataset_info": "visionforge.data.registry",
    "dataset_names": "visionforge.data.registry",
    "register_backbone": "visionforge.models.registry",
    "register_dataset": "visionforge.data.registry",
}

__all__ = [
    "DatasetInfo",
    "ImageClassifier",
    "MedMNISTDataModule",
    "TaskSpec",
    "VisionForgeError",
    "__version__",
    "backbone_names",
    "dataset_info",
    "dataset_names",
    "register_backbone",
    "register_dataset",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("visionforge")
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
