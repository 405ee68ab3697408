"""Small published data sets of each format, written here byte by byte, and their catalog entries."""

import gzip
import hashlib
import io
import struct
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from visionforge.data.converting import make_archive
from visionforge.data.info import DatasetInfo
from visionforge.errors import DataError
from visionforge.fetch import DEFAULT_RETRIES

TRAIN, VAL, TEST, CLASSES = 40, 10, 20, 5
IDX_NAMES = {
    "train_images": "train-images-idx3-ubyte.gz",
    "train_labels": "train-labels-idx1-ubyte.gz",
    "test_images": "t10k-images-idx3-ubyte.gz",
    "test_labels": "t10k-labels-idx1-ubyte.gz",
}
CIFAR_TRAIN = [f"batches/data_batch_{k}.bin" for k in (1, 2)]
CIFAR_TEST = "batches/test_batch.bin"


def pixels(count: int, side: int = 8, channels: int = 1, seed: int = 0) -> np.ndarray:
    """Return images of which each is another one."""
    shape = (count, side, side) if channels == 1 else (count, side, side, channels)
    return np.random.RandomState(seed).randint(0, 256, shape).astype(np.uint8)  # its stream is frozen


def labels(count: int) -> np.ndarray:
    """Return classes in an order that is neither sorted nor regular."""
    return np.random.RandomState(count).permutation(np.arange(count) % CLASSES).astype(np.uint8)


def entry(original: dict[str, Any], resolutions: tuple[int, ...] = (8,), channels: int = 1, **more: Any) -> DatasetInfo:
    """Return the entry of a data set whose archives are made of published files."""
    return DatasetInfo.model_validate(
        {
            "name": "published",
            "title": "Published",
            "description": "Noise.",
            "task": "multi-class",
            "classes": [f"c{k}" for k in range(CLASSES)],
            "channels": channels,
            "splits": {"train": TRAIN, "val": VAL, "test": TEST},
            "archives": {resolution: {"url": None} for resolution in resolutions},
            "original": {"resolution": 8, **original},
            "normalisation": {"mean": [0.5] * channels, "std": [0.5] * channels, "source": "assumed"},
            "flags": {
                "hflip": True,
                "vflip": False,
                "rotation": "small",
                "texture_is_label": True,
                "colour_is_label": False,
            },
            "licence": "none needed",
            "citation": "none needed",
            **more,
        }
    )


def file_of(content: bytes, name: str, url: str = "https://localhost:1", **more: Any) -> dict[str, Any]:
    """Return what an entry says of a file."""
    md5 = hashlib.md5(content).hexdigest()
    return {"url": f"{url}/{name}", "file": name, "max_bytes": len(content), "md5": md5, **more}


def idx(array: np.ndarray, magic: bytes | None = None, sides: tuple[int, ...] | None = None) -> bytes:
    """Return an IDX file that is not packed."""
    sides = array.shape if sides is None else sides
    beginning = bytes([0, 0, 8, array.ndim]) if magic is None else magic
    return beginning + struct.pack(f">{len(sides)}I", *sides) + array.tobytes()


def idx_set(url: str = "https://localhost:1") -> tuple[DatasetInfo, dict[str, bytes], dict[str, np.ndarray]]:
    """Return an entry of IDX files, the files by name, and the arrays in them."""
    arrays = {
        "train_images": pixels(TRAIN + VAL),
        "train_labels": labels(TRAIN + VAL),
        "test_images": pixels(TEST, seed=1),
        "test_labels": labels(TEST),
    }
    plain = {role: idx(array) for role, array in arrays.items()}
    packed = {role: gzip.compress(content, mtime=0) for role, content in plain.items()}
    files = {
        role: file_of(packed[role], name, url, content_md5=hashlib.md5(plain[role]).hexdigest())
        for role, name in IDX_NAMES.items()
    }
    return entry({"format": "idx", **files}), {IDX_NAMES[role]: packed[role] for role in packed}, arrays


def records(images: np.ndarray, *classes: np.ndarray) -> bytes:
    """Return a file of CIFAR's binary version."""
    planes = images.transpose(0, 3, 1, 2).reshape(len(images), -1)
    return np.concatenate([*(each[:, None] for each in classes), planes], axis=1).astype(np.uint8).tobytes()


def cifar_arrays(side: int = 8) -> dict[str, np.ndarray]:
    """Return colour images and classes of training and test."""
    return {
        "train_images": pixels(TRAIN + VAL, side, 3),
        "train_labels": labels(TRAIN + VAL),
        "test_images": pixels(TEST, side, 3, seed=1),
        "test_labels": labels(TEST),
    }


def cifar_members(arrays: dict[str, np.ndarray], label_bytes: int = 1) -> dict[str, bytes]:
    """Return the files of CIFAR's binary version by name; a superclass is never the class."""

    def part(images: np.ndarray, classes: np.ndarray) -> bytes:
        return records(images, *([classes + 100] * (label_bytes - 1)), classes)

    half = (TRAIN + VAL) // 2
    train, test = ([arrays[f"{name}_{kind}"] for kind in ("images", "labels")] for name in ("train", "test"))
    return {
        CIFAR_TRAIN[1]: part(*(each[half:] for each in train)),  # the order in the archive is not that of their numbers
        "batches/readme.html": b"not wanted",
        CIFAR_TEST: part(*test),
        CIFAR_TRAIN[0]: part(*(each[:half] for each in train)),
    }


def tar(members: dict[str, bytes] | list[tuple[tarfile.TarInfo, bytes]]) -> bytes:
    """Return a .tar.gz."""
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w:gz") as archive:
        listed = members if isinstance(members, list) else [(tarfile.TarInfo(n), c) for n, c in members.items()]
        for member, content in listed:
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return target.getvalue()


def cifar_entry(content: bytes, label_bytes: int = 1, side: int = 8) -> DatasetInfo:
    """Return the entry of a .tar.gz of CIFAR's binary version."""
    original = {
        "format": "cifar",
        "resolution": side,
        "archive": file_of(content, "cifar.tar.gz"),
        "train": CIFAR_TRAIN,
        "test": [CIFAR_TEST],
        "label_bytes": label_bytes,
    }
    return entry(original, (side,), channels=3)


def hdf5_entry(content: bytes, resolutions: tuple[int, ...] = (8,), **more: Any) -> DatasetInfo:
    """Return the entry of an HDF5 file."""
    original = {
        "format": "hdf5",
        "resolution": max(resolutions),
        "archive": file_of(content, "all.h5"),
        "images": "images",
        "labels": "ans",
        **more,
    }
    return entry(original, resolutions, channels=3)


def write(folder: Path, files: dict[str, bytes]) -> None:
    """Write files into a folder, which is made."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)


def made(info: DatasetInfo, folder: Path, resolution: int = 8) -> dict[str, np.ndarray]:
    """Make an archive of files that are there already, and return its arrays."""
    make_archive(info, resolution, folder, download=False, retries=DEFAULT_RETRIES)
    with np.load(folder / info.archive_name(resolution)) as archive:
        return dict(archive)


def pooled(arrays: dict[str, np.ndarray], *splits: str) -> list[tuple[bytes, int]]:
    """Return the images and labels of several splits as a sorted list, in which order does not matter."""
    return sorted(
        (image.tobytes(), int(label))
        for split in splits
        for image, label in zip(arrays[f"{split}_images"], arrays[f"{split}_labels"], strict=True)
    )


def refused(info: DatasetInfo, folder: Path) -> str:
    """Return the one line that a conversion is refused with; nothing is left beside the published files."""
    before = sorted(folder.rglob("*"))
    with pytest.raises(DataError) as caught:
        made(info, folder)
    (line,) = caught.value.problems
    assert [path for path in sorted(folder.rglob("*")) if path.suffix != ".lock"] == before
    return line
