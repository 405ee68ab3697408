"""Images: the catalog, verified archives, whole batches, and the LightningDataModule; names load when first used."""

from typing import TYPE_CHECKING, Any

from visionforge.data.info import DatasetInfo, TaskSpec
from visionforge.data.registry import dataset_info, dataset_names, register_dataset

if TYPE_CHECKING:
    from visionforge.data.datamodule import ImageDataModule, MedMNISTDataModule

__all__ = [
    "DatasetInfo",
    "ImageDataModule",
    "MedMNISTDataModule",
    "TaskSpec",
    "dataset_info",
    "dataset_names",
    "register_dataset",
]


def __getattr__(name: str) -> Any:
    if name in ("ImageDataModule", "MedMNISTDataModule"):  # need torch, which the catalog does not
        from visionforge.data import datamodule

        return getattr(datamodule, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
