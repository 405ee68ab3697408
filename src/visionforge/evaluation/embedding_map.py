"""Features of images in two dimensions, and which images a network takes for alike."""

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy.linalg import eigh

from visionforge.config.schema.evaluation import EmbeddingMethod
from visionforge.data.batches import ArrayDataset
from visionforge.distribution import how_to_install
from visionforge.errors import SettingsError

MOST_IMAGES = 3000  # of a map, drawn at random from a larger split; a page with more is slow
DRAWN_SEED = 0
UMAP_NEIGHBOURS = 15  # as its authors recommend
_UMAP_PARTS = ("umap", "numba", "pynndescent")  # packages without which it cannot be imported
Method = Literal["pca", "umap"]
Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Array = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class Features:
    """Features of images of a split.

    Attributes:
        split: Its name.
        values: (M, D).
        positions: (M,) of the images in the split, ascending.
        images: The split itself.
    """

    split: str
    values: Array
    positions: Integers
    images: ArrayDataset


@dataclass(frozen=True, eq=False)
class Embedded:
    """What a report knows of features.

    Attributes:
        evaluated: Of images of the evaluated split, or a part of it.
        of: Number of images of that split that were evaluated.
        reference: Of the images among which neighbours are looked for.
        method: How they are brought to two dimensions.
        embed: Gives the features (N, D) of further images (N, C, H, W) uint8.
    """

    evaluated: Features
    of: int
    reference: Features
    method: Method
    embed: Callable[[Array], Array]


@dataclass(frozen=True, eq=False)
class Projection:
    """Features in two dimensions.

    Attributes:
        points: (M, 2).
        axes: What the axes are.
        told: How it was made, as a sentence.
    """

    points: Floats
    axes: tuple[str, str]
    told: str


def umap_installed() -> bool:
    """Return whether UMAP can be used."""
    return all(importlib.util.find_spec(name) is not None for name in _UMAP_PARTS)


def method_of(setting: EmbeddingMethod) -> Method | None:
    """Return the method that `evaluation.embedding` stands for on this machine; None is no map.

    Raises:
        SettingsError: If its package is missing.
    """
    if setting == "none":
        return None
    if setting == "umap" and not umap_installed():
        raise SettingsError(
            f"evaluation.embedding: umap needs the package umap-learn: {how_to_install('umap')}; or choose pca"
        )
    return "umap" if setting == "umap" or (setting == "auto" and umap_installed()) else "pca"


def drawn(count: int) -> npt.NDArray[np.bool_]:
    """Return (count,) which images of a split are on the map: all, or as many of them as it shows, always the same."""
    wanted = np.zeros(count, dtype=np.bool_)
    wanted[np.random.default_rng(DRAWN_SEED).permutation(count)[:MOST_IMAGES]] = True
    return wanted


def project(features: Array, method: Method) -> Projection:
    """Return features (M, D), M from 1 on, in two dimensions."""
    if method == "umap" and len(features) > UMAP_NEIGHBOURS:
        told = (
            f"UMAP (McInnes et al., 2018) with {UMAP_NEIGHBOURS} neighbours and a fixed seed. Which images are close "
            "to each other means something; distances between groups, their sizes, and the axes mean little."
        )
        return Projection(_umap(features), ("UMAP 1", "UMAP 2"), told)
    points, shares = pca(features)
    axes = (f"component 1 ({shares[0]:.0%} of the variance)", f"component 2 ({shares[1]:.0%})")
    told = (
        f"Principal components of the features. The two hold {shares.sum():.0%} of their variance, so images that lie "
        "together here may be apart in other directions."
    )
    return Projection(points, axes, told)


def pca(features: Array) -> tuple[Floats, Floats]:
    """Return the first two principal components (M, 2) of features (M, D), and their shares (2,) of the variance.

    The sign of each is such that the feature which counts most counts positively. Where there are fewer than two
    directions, the others are 0.
    """
    centred = features.astype(np.float64)
    centred -= centred.mean(axis=0)
    count, size = centred.shape
    total = float((centred**2).sum())
    points, shares = np.zeros((count, 2)), np.zeros(2)
    if total <= 0:
        return points, shares
    small = min(count, size)
    gram = centred.T @ centred if size <= count else centred @ centred.T
    values, vectors = eigh(gram, subset_by_index=(max(0, small - 2), small - 1))
    for place, (value, vector) in enumerate(zip(values[::-1], vectors.T[::-1], strict=True)):
        if value <= total * 1e-12:
            break
        direction = vector if size <= count else centred.T @ vector / np.sqrt(value)
        direction = direction * np.sign(direction[np.abs(direction).argmax()])
        points[:, place], shares[place] = centred @ direction, value / total
    return points, shares


def _umap(features: Array) -> Floats:
    import torch

    threads = torch.get_num_threads()
    try:
        from umap import UMAP

        made = UMAP(n_components=2, n_neighbors=UMAP_NEIGHBOURS, random_state=DRAWN_SEED, n_jobs=1)
        return np.asarray(made.fit_transform(features), dtype=np.float64)
    finally:
        torch.set_num_threads(threads)  # numba sets those of the whole process to the number of cores


def nearest(features: Array, reference: Array, count: int, own: Integers | None = None) -> tuple[Integers, Floats]:
    """Return which of some images are the nearest, (N, count), and the cosines of the angles between the features.

    Args:
        features: (N, D).
        reference: (M, D), of the others.
        count: How many; fewer if there are not so many.
        own: (N,) place of each image among the others, which is not its own neighbour, or -1; None is nowhere.
    """
    cosines = _unit(features) @ _unit(reference).T
    most = len(reference)
    if own is not None:
        rows = np.flatnonzero(own >= 0)
        cosines[rows, own[rows]] = -np.inf
        most -= int(len(rows) > 0)
    order = np.argsort(-cosines, axis=1, kind="stable")[:, : min(count, most)]
    return order, np.take_along_axis(cosines, order, axis=1)


def _unit(features: Array) -> Floats:
    values = features.astype(np.float64)
    return np.asarray(values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-12))
