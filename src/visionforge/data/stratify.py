"""Subsets that keep the shares of the classes."""

import numpy as np
import numpy.typing as npt


def strata_of(labels: npt.NDArray[np.integer]) -> npt.NDArray[np.int64]:
    """Return (N,) the stratum of each item: its class, or for labels (N, L) its rarest label.

    So the items of a rare label stay together, and whatever is drawn by strata is not without them.
    """
    if labels.ndim == 1:
        return labels.astype(np.int64)
    rarity = np.argsort(np.argsort(labels.sum(axis=0), kind="stable"), kind="stable")
    ranks = np.where(labels > 0, rarity, labels.shape[1])
    return np.asarray(ranks.min(axis=1), dtype=np.int64)


def stratified_order(labels: npt.NDArray[np.integer], permutation: npt.NDArray[np.integer]) -> npt.NDArray[np.integer]:
    """Reorder items so that every prefix holds the classes in (nearly) their overall shares.

    Args:
        labels: (N,) class of each item. Several labels of each, (N, L), are not stratified: `permutation` is returned.
        permutation: (N,) random order that decides which members of a class come first.
    """
    if labels.ndim == 2:
        return permutation
    rank = np.empty(len(labels), dtype=np.float64)
    for label in np.unique(labels):
        members = permutation[labels[permutation] == label]
        rank[members] = (np.arange(len(members)) + 0.5) / len(members)
    return np.argsort(rank, kind="stable")
