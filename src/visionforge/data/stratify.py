"""Subsets that keep the shares of the classes."""

import numpy as np
import numpy.typing as npt


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
