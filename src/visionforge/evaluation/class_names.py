"""What the classes of an image are called in every table: one text for a class, one for a set of labels."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from visionforge.data.info import TaskSpec

JOINT = "|"  # between the labels of an image
SHOWN, RAW, RAW_TTA = "probability", "raw_probability", "raw_tta_probability"


def unique_names(spec: TaskSpec) -> list[str]:
    """Return a name per class that no other has; names that are equal or empty are told apart by their numbers.

    >>> unique_names(spec_of("other", "cat", "other"))  # doctest: +SKIP
    ['0_other', '1_cat', '2_other']
    """
    names = [name.replace(JOINT, "/") if spec.task == "multi-label" else name for name in spec.classes]
    if len(set(names)) == len(names) and all(names):
        return names
    return [f"{index}_{name}" for index, name in enumerate(names)]


def probability_columns(spec: TaskSpec, kind: str = SHOWN) -> list[str]:
    """Return the names of the columns of the probabilities.

    Args:
        spec: The task.
        kind: `SHOWN` is the probability that a network states: calibrated, over the test-time views if they are on.
            `RAW` is that of the image alone, and `RAW_TTA` the mean over the views, both before calibration.
    """
    return [f"{kind}_{name}" for name in unique_names(spec)]


def label_text(label: Any, names: Sequence[str]) -> str:
    """Return the name of a class, or those of the labels (K,) 0/1 that are set, joined by ``|``."""
    if np.ndim(label):
        return JOINT.join(name for name, present in zip(names, label, strict=True) if present)
    return names[int(label)]


def labels_of(texts: Sequence[str], names: Sequence[str], multi: bool) -> npt.NDArray[np.int64]:
    """Return (N,) classes, or (N, K) 0/1, of which `label_text` made texts.

    Raises:
        KeyError: If a text is no class.
    """
    place: Mapping[str, int] = {name: k for k, name in enumerate(names)}
    if not multi:
        return np.array([place[text] for text in texts], dtype=np.int64)
    labels = np.zeros((len(texts), len(names)), dtype=np.int64)
    for row, text in zip(labels, texts, strict=True):
        row[[place[name] for name in text.split(JOINT)] if text else []] = 1
    return labels
