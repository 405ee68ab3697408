"""Cross-validation: the images of several splits, divided into folds of which each is held out once.

Classes keep their shares in every fold (Kohavi, 1995), and groups such as patients stay whole; scikit-learn divides.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from visionforge.config.schema.data import FOLD_POOLS, DataSettings
from visionforge.config.seeding import derive_seed
from visionforge.data.archive import SplitArrays
from visionforge.data.info import Split
from visionforge.data.records import JoinedRecords, is_mapped, records_of
from visionforge.data.stratify import strata_of
from visionforge.errors import DataError

Positions = npt.NDArray[np.int64]
Members = list[tuple[Split, Positions]]


@dataclass(frozen=True)
class FoldPlan:
    """Which images of an archive a split is made of, where one fold of several is held out.

    The fold is the validation split. Where all images are divided, it is the test split, and the next fold validates:
    then an image is tested by a network that neither learnt from it nor was chosen by it.

    Attributes:
        pool: The splits that are divided.
        sizes: Their numbers of images.
        numbers: (N,) the fold of each image of the pool, from 0.
        folds: Number of folds.
        fold: The one that is held out.
    """

    pool: tuple[Split, ...]
    sizes: tuple[int, ...]
    numbers: Positions
    folds: int
    fold: int

    def members(self, split: Split) -> Members:
        """Return which images a split has: (split of the archive, positions there), in that order."""
        held = {"test": self.fold} if "test" in self.pool else {"val": self.fold}
        if "test" in self.pool:
            held["val"] = (self.fold + 1) % self.folds
        chosen = ~np.isin(self.numbers, list(held.values())) if split == "train" else self.numbers == held[split]
        bounds = np.cumsum([0, *self.sizes])
        return [
            (name, np.flatnonzero(chosen[start:end]))
            for name, start, end in zip(self.pool, bounds[:-1], bounds[1:], strict=True)
        ]


def plan_folds(
    settings: DataSettings,
    labels: Sequence[npt.NDArray[Any]],
    groups: Sequence[Sequence[str] | None],
    classes: Sequence[str],
    name: str,
) -> FoldPlan:
    """Divide the images of a data set.

    Args:
        settings: Number of folds, the one that is held out, and how they are made.
        labels: What the images of each split of the pool are divided by: (N,) classes, or (N, L) 0/1.
        groups: What must stay together, for each split; None where the archive does not say.
        classes: Their names.
        name: Of the data set, for messages.

    Raises:
        DataError: If a class has fewer images than there are folds, or lies in one group, if there are fewer groups
            than folds, or if the group of an image is missing.
    """
    assert settings.folds is not None
    assert settings.fold is not None
    every = np.concatenate(labels)
    pool = FOLD_POOLS[settings.fold_pool]
    _require_cases(every, settings.folds, classes, f"{name}, {', '.join(pool)}")
    together = _joined_groups(groups, pool, name) if settings.groups else None
    if together is not None:
        _require_groups(every, together, settings.folds, classes, name)
    repeat, fold = divmod(settings.fold, settings.folds)
    seed = derive_seed(settings.fold_seed, "folds", repeat) % (1 << 32)
    numbers = fold_numbers(every, together, settings.folds, seed)
    return FoldPlan(pool, tuple(map(len, labels)), numbers, settings.folds, fold)


def fold_numbers(
    labels: npt.NDArray[Any], groups: npt.NDArray[Any] | None, folds: int, seed: int
) -> npt.NDArray[np.int64]:
    """Return (N,) the fold of each image, from 0.

    Args:
        labels: (N,) classes, or (N, L) 0/1, of which the rarest of an image counts.
        groups: (N,) what must stay together; None divides the images one by one.
        folds: Number of folds.
        seed: What the division is a function of.
    """
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    strata, nothing = strata_of(labels), np.zeros((len(labels), 1))
    sizes = np.bincount(strata)
    if sizes.max() < folds or (labels.ndim == 2 and sizes[sizes > 0].min() < folds):
        strata = np.zeros(len(labels), dtype=np.int64)  # no stratum reaches all folds
    kind = StratifiedKFold if groups is None else StratifiedGroupKFold
    numbers = np.empty(len(labels), dtype=np.int64)
    for fold, (_, held) in enumerate(kind(folds, shuffle=True, random_state=seed).split(nothing, strata, groups)):
        numbers[held] = fold
    return numbers


def _counts(labels: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    return np.asarray(labels.sum(axis=0) if labels.ndim == 2 else np.bincount(labels), dtype=np.int64)


def _require_cases(labels: npt.NDArray[Any], folds: int, classes: Sequence[str], where: str) -> None:
    if folds > len(labels):
        raise DataError(f"data.folds: {folds} is more than the {len(labels)} images of {where}")
    counts = _counts(labels)
    fewest = int(counts[counts > 0].min()) if counts.any() else len(labels)
    if fewest < folds and len(counts) <= len(classes):
        rare = classes[int(np.flatnonzero(counts == fewest)[0])]
        allowed = f"allowed: 2 to {fewest}" if fewest > 1 else "leave the class out, or get more images"
        raise DataError(
            f"data.folds: {folds} is more than the {fewest} images of the class {rare} ({where}); {allowed}"
        )


def _joined_groups(
    groups: Sequence[Sequence[str] | None], pool: Sequence[Split], name: str
) -> npt.NDArray[np.str_] | None:
    known = [each for each in groups if each is not None]
    if not known:
        return None
    lacking = [split for split, each in zip(pool, groups, strict=True) if each is None]
    if lacking:
        raise DataError(
            f"{name}: its archive has no groups for {', '.join(lacking)}, but for other splits; import it again, or "
            "set data.groups to false"
        )
    found = np.array([text for each in known for text in each])
    missing = int((np.char.strip(found) == "").sum())
    if missing:
        raise DataError(
            f"{name}: {missing:,} of {len(found):,} images have no group; fill them in and import it again, or set "
            "data.groups to false"
        )
    return found


def _require_groups(
    labels: npt.NDArray[Any], groups: npt.NDArray[np.str_], folds: int, classes: Sequence[str], name: str
) -> None:
    count = len(np.unique(groups))
    if count < folds:
        raise DataError(
            f"data.folds: {folds} is more than the {count} groups of {name}; allowed: 2 to {count}, or set data.groups "
            "to false"
        )
    for place in range(len(classes)):
        members = labels[:, place] > 0 if labels.ndim == 2 else labels == place
        if members.any() and len(np.unique(groups[members])) == 1:
            raise DataError(
                f"{name}: all images of the class {classes[place]} are of one group ({groups[members][0]}), so it "
                "cannot be learnt and tested at once; leave the class out, or set data.groups to false"
            )


def joined(parts: Sequence[tuple[SplitArrays, Positions]], in_memory: bool) -> SplitArrays:
    """Return chosen images and labels of several splits as one.

    Args:
        parts: Splits, and positions in each.
        in_memory: Copy them; False reads records of memory maps when they are asked for.
    """
    images = [(arrays.images, chosen) for arrays, chosen in parts]
    labels = [(arrays.labels, chosen) for arrays, chosen in parts]
    return SplitArrays(joined_records(images, in_memory), joined_records(labels, in_memory))


def joined_records(parts: Sequence[tuple[npt.NDArray[Any], Positions]], in_memory: bool = True) -> Any:
    """Return chosen records of several arrays as one array, or as what reads them from their maps; see `joined`."""
    if not in_memory and all(is_mapped(array) for array, _ in parts):
        if any(records_of(array).streams for array, _ in parts):
            raise DataError(
                "data.folds: need all shards on this machine; get them with `visionforge datasets download`, or set "
                "data.cache to ram"
            )
        return JoinedRecords([(records_of(array), chosen) for array, chosen in parts])
    chosen = [array[positions] for array, positions in parts]
    if chosen[0].ndim == 3 and chosen[0].dtype == np.float32:  # boxes: as many rows as the fullest picture has
        most = max(each.shape[1] for each in chosen)
        chosen = [np.pad(each, ((0, 0), (0, most - each.shape[1]), (0, 0)), constant_values=-1) for each in chosen]
    return np.concatenate(chosen)
