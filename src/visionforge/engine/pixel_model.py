"""Out-of-fold probabilities without a network: logistic regression on principal components of the pixels.

It takes seconds where folds of a network take minutes, and knows what pixels at the same places tell, no more. So it
finds labels that are wrong at first sight; of data on which it does no better than chance it finds nothing.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from visionforge.data.info import SPLITS, Split, TaskSpec
from visionforge.errors import SettingsError
from visionforge.evaluation.class_names import unique_names
from visionforge.evaluation.fold_table import FoldTable

if TYPE_CHECKING:
    from visionforge.data.archive import SplitArrays
    from visionforge.data.side_table import SideTable

MODEL = "logistic regression on pixels"
FOLDS, LEAST_FOLDS, MOST_FOLDS = 5, 2, 20
COMPONENTS = 32  # of the pixels; of 8×8 digits 64, which are all, find fewer wrong labels
PENALTY = 0.01  # inverse strength, scikit-learn's C; measured with wrong labels put into digits and breastmnist
MOST_BYTES = 1 << 30  # of the pixels of all images as float32; above, images are averaged to fewer pixels
PART = 4096  # images that are averaged together
_STEPS = 500  # of the solver
Array = npt.NDArray[Any]


def out_of_fold(
    spec: TaskSpec,
    parts: "dict[Split, tuple[SplitArrays, SideTable]]",
    folds: int = FOLDS,
    seed: int = 0,
) -> FoldTable:
    """Return what models say of images that they were not fitted on, all splits taken together.

    The folds keep the shares of the classes; where all images have groups, no group is in two folds.

    Args:
        spec: The task, of classes or labels of images.
        parts: Split → its arrays, and the names and groups of its images.
        folds: Number of models, each fitted on the others' images.
        seed: Seed of the folds and of the components.

    Raises:
        SettingsError: If there are not so many groups, or images.
    """
    arrays, sides = [part for part, _ in parts.values()], [side for _, side in parts.values()]
    labels = np.concatenate([part.labels for part in arrays]).astype(np.int64)
    groups = None
    if all(side.groups is not None for side in sides):
        groups = np.array([group for side in sides for group in side.groups or ()])
    names = None
    if all(side.names is not None for side in sides):
        names = tuple(name for side in sides for name in side.names or ())
    pixels = _pixels([part.images for part in arrays], spec)
    probabilities = np.full((len(labels), len(spec.classes)), np.nan)
    for others, members in _folds(labels, groups, folds, seed):
        probabilities[members] = _predicted(pixels[others], labels[others], pixels[members], len(spec.classes), seed)
    return FoldTable(
        classes=tuple(unique_names(spec)),
        splits=np.concatenate([np.full(len(part.labels), SPLITS.index(split)) for split, (part, _) in parts.items()]),
        indices=np.concatenate([np.arange(len(part.labels)) for part in arrays]),
        labels=labels,
        probabilities=probabilities,
        names=names,
    )


def _pixels(images: Sequence[Array], spec: TaskSpec) -> npt.NDArray[np.float32]:
    """Return (N, D) values of all images, averaged over blocks so that they take no more than `MOST_BYTES`."""
    count, sides, dims = sum(map(len, images)), images[0].shape[1:], spec.spatial_dims
    block = 1
    while 4 * count * np.prod([side // block for side in sides[:dims]]) * np.prod(sides[dims:], initial=1) > MOST_BYTES:
        block += 1
    parts = [part[start : start + PART] for part in images for start in range(0, len(part), PART)]
    return np.concatenate([_averaged(part, block, dims).reshape(len(part), -1) for part in parts])


def _averaged(images: Array, block: int, dims: int) -> npt.NDArray[np.float32]:
    """Return images (N, R, R[, C]) or volumes as float32, means over blocks; what is left at the ends is cut off."""
    values: npt.NDArray[np.float32] = images.astype(np.float32) / np.float32(255)
    for axis in range(1, dims + 1):
        whole = values.shape[axis] // block * block
        cut = np.take(values, np.arange(whole), axis=axis)
        shape = (*cut.shape[:axis], whole // block, block, *cut.shape[axis + 1 :])
        values = cut.reshape(shape).mean(axis=axis + 1, dtype=np.float32)
    return values


def _folds(
    labels: npt.NDArray[np.int64], groups: Array | None, folds: int, seed: int
) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
    """Yield the positions that a model is fitted on, and those that it speaks of."""
    from sklearn.model_selection import StratifiedGroupKFold

    whole = np.arange(len(labels)) if groups is None else np.unique(groups, return_inverse=True)[1]
    units = int(whole.max()) + 1
    if units < folds:
        raise SettingsError(f"folds: {folds} is not allowed for {units} {'images' if groups is None else 'groups'}")
    strata = labels if labels.ndim == 1 else np.unique(labels, axis=0, return_inverse=True)[1].reshape(-1)
    frequent = np.bincount(strata)[strata] >= folds  # rarer ones cannot be spread, and scikit-learn warns of them
    strata = np.where(frequent, strata, strata.max() + 1)
    if np.bincount(strata)[strata].min() < folds:
        strata = np.zeros(len(labels), dtype=np.int64)
    yield from StratifiedGroupKFold(folds, shuffle=True, random_state=seed).split(whole, strata, whole)


def _predicted(fitted: Array, labels: npt.NDArray[np.int64], asked: Array, classes: int, seed: int) -> Array:
    """Return (M, K) probabilities; 0 for a class that is not fitted on, and 0 or 1 for a label of none or all."""
    from sklearn.decomposition import PCA
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    components = min(COMPONENTS, *fitted.shape)
    reduce = make_pipeline(PCA(components, svd_solver="randomized", random_state=seed), StandardScaler())
    known, new = reduce.fit_transform(fitted), reduce.transform(asked)
    said = np.zeros((len(asked), classes))
    if labels.ndim == 1:
        if len(np.unique(labels)) == 1:
            said[:, labels[0]] = 1
            return said
        model = LogisticRegression(C=PENALTY, max_iter=_STEPS).fit(known, labels)
        said[:, model.classes_] = model.predict_proba(new)
        return said
    for number, column in enumerate(labels.T):
        if len(np.unique(column)) == 1:
            said[:, number] = column[0]
        else:
            said[:, number] = LogisticRegression(C=PENALTY, max_iter=_STEPS).fit(known, column).predict_proba(new)[:, 1]
    return said
