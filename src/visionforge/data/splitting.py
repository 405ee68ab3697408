"""Which split each picture of an import goes to: as given, by whole groups, or stratified by class."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from visionforge.data.group_splits import divide_groups
from visionforge.data.import_settings import ImportSettings
from visionforge.data.info import SPLITS, Split
from visionforge.data.listing import Listing, some
from visionforge.data.stratify import stratified_order
from visionforge.errors import DataError


def assign_splits(
    listing: Listing, strata: npt.NDArray[np.integer] | None, settings: ImportSettings
) -> tuple[npt.NDArray[np.str_], list[str]]:
    """Return the split of each picture, and what there is to say of it.

    Splits that the source gives are kept. Where it gives a training split and not all of the others, those are made
    from its training pictures.

    Args:
        listing: The pictures.
        strata: (N,) or (N, L), their labels; None divides at random, as masks and boxes are.
        settings: Shares and seed.

    Raises:
        DataError: If a group lies in several of the given splits, or a split would be empty.
    """
    groups = None if listing.groups is None else np.array(listing.groups)
    notes: list[str] = []
    at_random = strata is None or strata.ndim > 1
    labels = np.zeros(len(listing.paths), dtype=np.int64) if strata is None else strata
    if listing.splits is None:
        assigned = _divide(labels, groups, SPLITS, settings)
    else:
        assigned = np.array(listing.splits, dtype="<U5")
        if groups is not None:
            _check_groups(groups, assigned, settings)
        assigned, notes = _complete(assigned, labels, groups, settings, at_random)
    empty = [split for split in SPLITS if not (assigned == split).any()]
    if empty:
        raise DataError(f"{settings.source}: no pictures for {', '.join(empty)}; more pictures or groups are needed")
    return assigned, notes


def _check_groups(groups: npt.NDArray[np.str_], assigned: npt.NDArray[np.str_], settings: ImportSettings) -> None:
    splits_of: dict[str, set[str]] = {}
    for group, split in zip(groups.tolist(), assigned.tolist(), strict=True):
        splits_of.setdefault(group, set()).add(split)
    spread = [
        f"{group} ({', '.join(split for split in SPLITS if split in splits)})"
        for group, splits in splits_of.items()
        if len(splits) > 1
    ]
    if spread:
        raise DataError(
            f"{settings.source}: {len(spread):,} of {len(splits_of):,} groups of the column {settings.group_column} "
            f"lie in several splits: {some(spread)}; mend the splits, or remove their column to have them made"
        )


def _complete(
    assigned: npt.NDArray[np.str_],
    labels: npt.NDArray[np.integer],
    groups: npt.NDArray[np.str_] | None,
    settings: ImportSettings,
    at_random: bool,
) -> tuple[npt.NDArray[np.str_], list[str]]:
    """Make the splits that are missing from the training pictures."""
    missing = [split for split in SPLITS if not (assigned == split).any()]
    if not missing or "train" in missing:
        return assigned, []
    of_train = np.flatnonzero(assigned == "train")
    wanted = [split for split in SPLITS if split == "train" or split in missing]
    assigned[of_train] = _divide(labels[of_train], None if groups is None else groups[of_train], wanted, settings)
    how = "by whole groups" if groups is not None else "at random" if at_random else "by class"
    made = " and ".join(f"{split} ({int((assigned == split).sum()):,} pictures)" for split in missing)
    return assigned, [f"the source has no {' and no '.join(missing)}: {made} taken from train, {how}"]


def _divide(
    labels: npt.NDArray[np.integer],
    groups: npt.NDArray[np.str_] | None,
    wanted: Sequence[Split],
    settings: ImportSettings,
) -> npt.NDArray[np.str_]:
    """Divide pictures into the wanted splits."""
    shares = dict(zip(SPLITS, settings.fractions, strict=True))
    if len(wanted) < len(SPLITS):  # else exactly as they were given, since the least rounding moves a picture
        total = sum(shares[split] for split in wanted)
        shares = {split: shares[split] / total for split in wanted}
    if groups is not None:
        if (count := len(np.unique(groups))) < len(shares):
            raise DataError(f"{settings.source}: {count} groups cannot be spread over {len(shares)} splits")
        return np.array(wanted)[divide_groups(labels, groups, [shares[split] for split in wanted], settings.seed)]
    order = stratified_order(labels, np.random.default_rng(settings.seed).permutation(len(labels)))
    bounds = np.rint(np.cumsum(list(shares.values())) * len(labels)).astype(np.int64)
    assigned = np.empty(len(labels), dtype="<U5")
    for split, start, end in zip(shares, [0, *bounds[:-1]], bounds, strict=True):
        assigned[order[start:end]] = split
    return assigned
