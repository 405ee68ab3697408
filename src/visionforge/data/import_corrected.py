"""A new data set from the archive of another one, with corrected labels; splits, images and constants stay."""

from dataclasses import fields

import numpy as np

from visionforge.config.schema.tasks import task_named
from visionforge.data.archive import SplitArrays
from visionforge.data.corrections import apply_corrections
from visionforge.data.import_settings import ImportSettings
from visionforge.data.info import SPLITS, DatasetInfo, Split
from visionforge.data.registry import dataset_info, dataset_names
from visionforge.data.side_table import SideTable
from visionforge.data.source import load_split, offered_resolution, stored_side_table
from visionforge.errors import DataError, SettingsError

_TAKEN = ("source", "name", "resolution", "corrections", "replace", "root")


def is_data_set(settings: ImportSettings) -> bool:
    """Return whether corrections are of a data set of the catalog: of its name there is no file or folder."""
    source = settings.source
    return settings.corrections is not None and not source.exists() and str(source) in dataset_names()


def corrected_parts(
    settings: ImportSettings,
) -> tuple[DatasetInfo, dict[Split, tuple[SplitArrays, SideTable]], str]:
    """Return the entry of the new data set without archive, its splits, and what was changed.

    Raises:
        SettingsError: If the data set does not offer the resolution.
        DataError: If it has no classes or labels, its archive is missing, the corrections do not fit, or a split would
            be empty.
    """
    for each in fields(ImportSettings):
        if each.name not in _TAKEN and getattr(settings, each.name) != each.default:
            raise SettingsError(f"{each.name}: is that of {settings.source}, whose labels are corrected; leave it out")
    info = dataset_info(str(settings.source))
    task = task_named(info.task)
    if not {"classes", "labels"} & set(task.forms):
        raise DataError(f"corrections: are for classes and labels of images; {info.name} is {info.task}")
    resolution = offered_resolution(info, settings.resolution)
    parts = {split: load_split(info, resolution, settings.root, split) for split in SPLITS}
    sides = {split: stored_side_table(info, resolution, settings.root, split) for split in SPLITS}
    side = SideTable.joined([sides[split] for split in SPLITS])
    places = [(split, index) for split in SPLITS for index in range(len(parts[split].labels))]
    labels = np.concatenate([parts[split].labels for split in SPLITS])
    assert settings.corrections is not None
    done = apply_corrections(settings.corrections, labels, info.classes, info.task, side.names, places)
    new: dict[Split, tuple[SplitArrays, SideTable]] = {}
    start = 0
    for split in SPLITS:
        of = slice(start, start + len(parts[split].labels))
        kept = np.flatnonzero(~done.removed[of])
        if not len(kept):
            raise DataError(f"corrections: {settings.corrections} leaves no picture of {split}")
        new[split] = (SplitArrays(parts[split].images[kept], done.labels[of][kept]), sides[split].at(kept))
        start = of.stop
    counts: dict[str, int] = {split: len(part.labels) for split, (part, _) in new.items()}
    entry = info.model_copy(
        update={
            "name": settings.name,
            "title": settings.name,
            "description": f"{info.description} From {info.name}: {done.summary}.",
            "splits": info.splits.model_copy(update=counts),
            "source": "archive",
            "archives": {},
        }
    )
    return entry, new, done.summary
