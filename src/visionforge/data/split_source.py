"""The images of a split, wherever in the archive they lie: those of one of its splits, or chosen ones of several."""

from typing import Any

import numpy as np
import numpy.typing as npt

from visionforge.config.schema import DataSettings
from visionforge.config.schema.data import FOLD_POOLS
from visionforge.data.archive import SplitArrays
from visionforge.data.batches import ArrayDataset
from visionforge.data.folds import FoldPlan, joined, joined_records, plan_folds
from visionforge.data.info import SPLITS, DatasetInfo, Split, TaskSpec
from visionforge.data.side_table import SideTable
from visionforge.data.source import load_split, stored_side_table

Chosen = npt.NDArray[np.int64] | None  # positions in a split of the archive; None is all of them
Origin = tuple[Split, int]  # a split of the archive, and a position there


class SplitSource:
    """The splits of a data set as the settings ask for them.

    Args:
        info: The data set, whose archive is verified before anything is read.
        spec: The task.
        settings: Where the archive lies, and the folds.
    """

    def __init__(self, info: DatasetInfo, spec: TaskSpec, settings: DataSettings) -> None:
        self._info = info
        self._spec = spec
        self._settings = settings
        self._plan: FoldPlan | None = None

    def members(self, split: Split) -> list[tuple[Split, Chosen]]:
        """Return of which images a split is made: (split of the archive, positions there), in that order.

        Raises:
            DataError: If there are folds that cannot be made.
        """
        settings = self._settings
        if settings.fold is None:
            return [(split, None)]
        if self._plan is None:
            pool = FOLD_POOLS[settings.fold_pool]
            kind, classes = self._spec.kind, len(self._info.classes)
            labels = [kind.image_labels(self._whole(name).labels, classes) for name in pool]
            groups = [self._table(name).groups for name in pool]
            self._plan = plan_folds(settings, labels, groups, self._info.classes, self._info.name)
        return list(self._plan.members(split)) if split in self._plan.pool else [(split, None)]

    def sample(self, split: Split) -> SplitArrays:
        """Return a whole split of the archive from which images of a split are; it tells where they lie."""
        return self._whole(self.members(split)[0][0])

    def arrays(self, split: Split, in_memory: bool = True) -> SplitArrays:
        """Return images and labels of a split.

        Args:
            split: The split.
            in_memory: Images of several splits are copied; False reads them from memory maps when they are asked for.
        """
        members = self.members(split)
        if members[0][1] is None:
            return self._whole(split)
        return joined([(self._whole(name), chosen) for name, chosen in members if chosen is not None], in_memory)

    def labels(self, split: Split) -> npt.NDArray[Any]:
        """Return the labels of all images of a split, as their task keeps them."""
        members = self.members(split)
        if members[0][1] is None:
            return self._whole(split).labels
        parts = [(self._whole(name).labels, chosen) for name, chosen in members if chosen is not None]
        found: npt.NDArray[Any] = joined_records(parts)
        return found

    def side_table(self, split: Split) -> SideTable:
        """Return names and groups of all images of a split, where the archive has them."""
        return SideTable.joined([self._table(name).at(chosen) for name, chosen in self.members(split)])

    def origins(self, split: Split) -> list[Origin]:
        """Return where in the archive each image of a split lies."""
        sizes = self._info.splits.model_dump()
        return [
            (name, int(position))
            for name, chosen in self.members(split)
            for position in (range(sizes[name]) if chosen is None else chosen)
        ]

    def sizes(self) -> dict[Split, int]:
        """Return the number of images of each split."""
        whole = self._info.splits.model_dump()
        return {
            split: sum(whole[name] if chosen is None else len(chosen) for name, chosen in self.members(split))
            for split in SPLITS
        }

    def pool(self, in_memory: bool = True) -> tuple[ArrayDataset, list[Origin]]:
        """Return all images that are divided into folds, and where in the archive each lies."""
        names, sizes = FOLD_POOLS[self._settings.fold_pool], self._info.splits.model_dump()
        arrays = joined([(self._whole(name), np.arange(sizes[name])) for name in names], in_memory)
        return ArrayDataset(arrays, in_memory=in_memory), [(name, k) for name in names for k in range(sizes[name])]

    def pool_table(self) -> SideTable:
        """Return names and groups of all images that are divided into folds."""
        return SideTable.joined([self._table(name) for name in FOLD_POOLS[self._settings.fold_pool]])

    def _whole(self, split: Split) -> SplitArrays:
        settings = self._settings
        return load_split(self._info, settings.resolution, settings.root, split, settings.download)

    def _table(self, split: Split) -> SideTable:
        settings = self._settings
        return stored_side_table(self._info, settings.resolution, settings.root, split, settings.download)
