"""The check of a data set: its archive, groups and pictures that splits share, and a page of what was found."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from visionforge.data.info import DatasetInfo
from visionforge.data.registry import dataset_info
from visionforge.data.source import offered_resolution
from visionforge.errors import SettingsError

if TYPE_CHECKING:
    from visionforge.data.checks import ArchiveReport, Features
    from visionforge.engine.run import Run

PIXELS = "pixels"  # the embedding that needs no network


def check_dataset(
    dataset: "str | DatasetInfo",
    resolution: int | None = None,
    root: str | Path | None = None,
    *,
    exactly: bool = False,
    embedding: "str | Path | Run | None" = None,
    pictures: str | Path | None = None,
) -> "ArchiveReport":
    """Compare the archive of a data set with the catalog, and look for what its splits share.

    Args:
        dataset: Catalog name, or an entry.
        resolution: Height and width in pixels; None is the smallest.
        root: Folder of the archives; None is where they lie by default.
        exactly: Compare pictures by equal pixels only, which takes seconds for any number.
        embedding: Compare them by features, too: ``pixels``, or a trained run or checkpoint, whose network then says
            what looks alike.
        pictures: A folder for `index.html`, which shows the pairs, and `pairs.csv`; those of an earlier check are
            replaced, and nothing else.

    Returns:
        What was found; `duplicates` and `groups` hold it as objects.

    Raises:
        SettingsError: If the data set does not offer the resolution, or an argument is not allowed.
        DataError: If the archive is missing.
        RunError: If the run cannot be used, or the folder not be written.
    """
    from visionforge.data.checks import check_dataset as check

    info = dataset if isinstance(dataset, DatasetInfo) else dataset_info(dataset)
    if exactly and embedding is not None:
        raise SettingsError("embedding: is not used where pictures are compared by equal pixels only; leave one out")
    folder = None
    if pictures is not None:
        from visionforge.reporting.pairs_page import owned_folder

        folder = owned_folder(Path(pictures))
        folder.require([], overwrite=True)
    features = None if embedding is None else _features(info, offered_resolution(info, resolution), embedding)
    report = check(info, resolution, None if root is None else str(root), exactly=exactly, features=features)
    if folder is not None and report.duplicates is not None:
        from visionforge.reporting.pairs_page import write_pairs

        return replace(report, page=write_pairs(folder, report, info))
    return report


def _features(info: DatasetInfo, resolution: int, embedding: "str | Path | Run") -> "Features":
    """Return what makes features of images.

    Raises:
        SettingsError: If there are none of volumes, or the network takes other images.
        RunError: If the run cannot be used.
    """
    if info.spatial_dims == 3:
        raise SettingsError(f"embedding: {info.name} has volumes, of which none is made; leave it out")
    if embedding == PIXELS:
        from visionforge.data.pixel_features import pixel_features

        return pixel_features
    from visionforge.inference.embedding import network_features

    run = embedding if isinstance(embedding, str | Path) else embedding.path
    return network_features(run, resolution)
