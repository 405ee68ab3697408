"""Data sets that need no file: the handwritten digits of scikit-learn, and rendered images."""

import numpy as np
import numpy.typing as npt

from visionforge.config.schema.tasks import task_named
from visionforge.data.archive import SplitArrays
from visionforge.data.info import SPLITS, DatasetInfo, Split
from visionforge.data.stratify import stratified_order

_SPLIT_SEED = 20240229  # fixes which digit is in which split; changing it changes every published digits result
_RENDER_SEED = {"train": 1, "val": 2, "test": 3}


def digits_split(info: DatasetInfo, resolution: int, split: Split) -> SplitArrays:
    """Return a split of the 1,797 digits, 8×8, stratified by class.

    The grey levels 0 to 16 of the source become 0 to 255. `RandomState` is used because its stream is frozen, so the
    splits are the same with every NumPy.
    """
    from sklearn.datasets import load_digits

    source = load_digits()
    images = np.rint(source.images * (255 / 16)).astype(np.uint8)
    labels = source.target.astype(np.int64)
    order = stratified_order(labels, np.random.RandomState(_SPLIT_SEED).permutation(len(labels)))
    bounds = np.cumsum([0, *(getattr(info.splits, name) for name in SPLITS)])
    position = SPLITS.index(split)
    chosen = np.sort(order[bounds[position] : bounds[position + 1]])
    return SplitArrays(images[chosen], labels[chosen])


def synthetic_split(info: DatasetInfo, resolution: int, split: Split) -> SplitArrays:
    """Render a split: gratings whose orientation tells the class, discs whose size tells the grade, with noise; shapes.

    The images depend on the entry, the resolution and the split alone. Images with several labels are the sum of the
    gratings of all that are set.
    """
    count, classes = getattr(info.splits, split), len(info.classes)
    rng = np.random.default_rng([_RENDER_SEED[split], resolution, classes, info.channels])
    task = task_named(info.task)
    if (scene := task.scene(rng, count, classes, resolution, info.channels)) is not None:
        return SplitArrays(scene[0][..., 0] if info.channels == 1 else scene[0], scene[1])
    labels = task.rendered(rng, count, classes)
    images = np.empty((count, resolution, resolution, info.channels), dtype=np.uint8)
    for start in range(0, count, 1024):  # bounds the memory of the float images
        part = slice(start, start + 1024)
        images[part] = _render(labels[part], info, resolution, rng)
    return SplitArrays(images[..., 0] if info.channels == 1 else images, labels)


def _render(
    labels: npt.NDArray[np.integer], info: DatasetInfo, resolution: int, rng: np.random.Generator
) -> npt.NDArray[np.uint8]:
    """Return (N, R, R, C) uint8 images of the given labels."""
    count, classes = len(labels), len(info.classes)
    axis = (np.arange(resolution) + 0.5) / resolution - 0.5
    y, x = axis[None, :, None], axis[None, None, :]
    centre = rng.uniform(-0.1, 0.1, (count, 2, 1, 1))
    phase = rng.uniform(0, 2 * np.pi, (count, 1, 1))
    task = task_named(info.task)
    if "grades" in task.forms:
        radius = 0.08 + 0.34 * (labels[:, None, None] + 0.5) / classes
        distance = np.hypot(y - centre[:, 0], x - centre[:, 1])
        pattern = np.tanh((radius - distance) * resolution / 2)
    else:
        weights = task.indicators(labels, classes)
        pattern = np.zeros((count, resolution, resolution))
        for index in range(classes):
            angle = np.pi * index / classes
            wave = np.sin(2 * np.pi * 3 * (x * np.cos(angle) + y * np.sin(angle)) + phase)
            pattern += weights[:, index, None, None] * wave
    tint = rng.uniform(0.6, 1.0, (count, 1, 1, info.channels))
    grey = 0.5 + 0.25 * pattern[..., None] * tint + rng.normal(0, 0.08, (count, resolution, resolution, info.channels))
    return np.rint(np.clip(grey, 0, 1) * 255).astype(np.uint8)
