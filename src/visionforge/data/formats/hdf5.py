"""HDF5 files with all images in one array and their labels in another, read through h5py a block at a time."""

from collections.abc import Mapping
from importlib.util import find_spec
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from visionforge.data.formats.pool import Pool, Wanted, damaged
from visionforge.data.originals import Hdf5Original
from visionforge.distribution import how_to_install
from visionforge.errors import DataError

NEEDS_H5PY = f"needs the package h5py: {how_to_install('hdf5')}"
MAX_CHUNK = 1 << 28  # bytes that the library unpacks at once


def has_h5py() -> bool:
    """Return whether the package that reads these files is installed."""
    return find_spec("h5py") is not None


def hdf5_pools(original: Hdf5Original, paths: Mapping[str, Path], wanted: Wanted) -> list[Pool]:
    """Return the images, all in one.

    Args:
        original: What the catalog says of the file.
        paths: Where it is, by its name.
        wanted: What has to be in it.

    Raises:
        DataError: If it is not what the catalog says, or h5py is not installed.
    """
    path = paths[original.archive.file]
    if not has_h5py():
        raise DataError(f"{path}: {NEEDS_H5PY}")
    import h5py

    try:
        file = wanted.files.enter_context(h5py.File(path, "r"))
        images = _array(file, original.images, (wanted.train, *wanted.shape))
        labels = _array(file, original.labels, (wanted.train,))
        if images.dtype != np.uint8:
            raise ValueError(f"{original.images} is of {images.dtype}, expected uint8")
        if labels.dtype.kind not in "iu":
            raise ValueError(f"{original.labels} is of {labels.dtype}, expected integers")
        classes = np.asarray(labels[()])
        keys = [np.asarray(_array(file, name, (wanted.train,))[()]) for name in original.groups]
    except (OSError, KeyError, ValueError, RuntimeError, TypeError) as error:
        raise damaged(path, f"not the HDF5 file that was expected ({error})") from error

    def block(start: int, stop: int) -> npt.NDArray[np.uint8]:
        try:
            return np.asarray(images[start:stop])
        except (OSError, RuntimeError) as error:
            raise damaged(path, f"{original.images} cannot be unpacked ({error})") from error

    return [Pool(classes, block, _alone(keys) if keys else None)]


def _alone(keys: list[npt.NDArray[Any]]) -> npt.NDArray[np.bool_]:
    """Return (N,) whether no other image agrees in all keys, each (N,)."""
    numbers = np.stack([np.unique(key, return_inverse=True)[1].reshape(-1) for key in keys], axis=1)
    _, inverse, counts = np.unique(numbers, axis=0, return_inverse=True, return_counts=True)
    return np.asarray(counts[inverse.reshape(-1)] == 1)


def _array(file: Any, name: str, shape: tuple[int, ...]) -> Any:
    """Return an array of an HDF5 file, whose data is in the file itself and in pieces that memory can hold."""
    import h5py

    if name not in file:
        raise ValueError(f"lacks {name}; it has {', '.join(list(file)[:8]) or 'nothing'}")
    if not isinstance(file.get(name, getlink=True), h5py.HardLink):
        raise ValueError(f"{name} is a link to something else")
    found = file[name]
    if not isinstance(found, h5py.Dataset):
        raise ValueError(f"{name} is no array")
    if found.external or found.is_virtual:
        raise ValueError(f"the data of {name} is in other files")
    if found.shape != shape:
        raise ValueError(f"{name} has the shape {found.shape}, expected {shape}")
    if found.chunks is not None and prod(found.chunks) * found.dtype.itemsize > MAX_CHUNK:
        raise ValueError(f"{name} is packed in pieces of more than {MAX_CHUNK:,} bytes")
    return found
