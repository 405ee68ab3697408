"""Read an NPZ archive without trusting it: every fact is compared with the catalog before a byte is unpacked.

An archive is a ZIP file of six ``.npy`` members, ``{train,val,test}_{images,labels}.npy``. Images are uint8 of shape
(N, H, W) or (N, H, W, 3), volumes (N, D, H, W) or (N, D, H, W, 3); labels are integers of shape (N,), (N, 1) or,
where an image may have several, (N, L); masks (N, H, W); or boxes, a row of (M, 6) each, with the number of its image
first. Names and groups may be beside them; see `side_table`.
"""

import hashlib
import zipfile
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from visionforge.config.schema.tasks import task_named
from visionforge.data.info import SPLITS, DatasetInfo, Split
from visionforge.data.npy import read_array, read_header
from visionforge.data.side_table import read_side_table
from visionforge.data.zipped import READ_ERRORS, open_zip
from visionforge.errors import DataError


@dataclass(frozen=True)
class SplitArrays:
    """The images and labels of one split, in archive order.

    Attributes:
        images: (N, H, W) or (N, H, W, 3) uint8; of volumes (N, D, H, W) or (N, D, H, W, 3).
        labels: (N,) int64; (N, L) uint8 with values 0 and 1 where an image may have several; masks (N, H, W) uint8; or
            boxes (N, M, 5) float32, see `visionforge.config.schema.task.Task`.
    """

    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[Any]


def channels_of(shape: tuple[int, ...]) -> int:
    """Return the channels of images or volumes by the shape of their array: 3 of colour, whose last axis they are.

    Nothing else ends in an axis of 3, since images and volumes have at least 8 pixels.
    """
    return 3 if len(shape) > 3 and shape[-1] == 3 else 1


def md5_of(path: Path) -> str:
    """Return the MD5 of a file as hexadecimal; an unchanged file is read once per process."""
    stat = path.stat()
    return _md5_of(str(path), stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=64)
def _md5_of(path: str, size: int, mtime_ns: int) -> str:
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()


def verify_archive(path: Path, info: DatasetInfo, resolution: int) -> None:
    """Check an archive against its catalog entry: MD5, then keys, dtypes, shapes and counts of all six members.

    Label values are checked by `read_split`, which has them in memory anyway.

    Raises:
        DataError: One line that names the file and everything that is wrong with it.
    """
    problems = structure_problems(path, info, resolution)
    expected = info.archives[resolution].md5 if resolution in info.archives else None
    if expected is not None:
        actual = md5_of(path)
        if actual != expected:
            problems.insert(0, f"MD5 is {actual}, the catalog says {expected}")
    if problems:
        raise DataError(f"{path}: not the archive of {info.name}: {'; '.join(problems)}; delete it and get it again")


def structure_problems(path: Path, info: DatasetInfo, resolution: int) -> list[str]:
    """Return what is wrong with the members of an archive, without unpacking their data."""
    try:
        with open_zip(path) as archive:
            problems = _member_problems(archive, info, resolution)
        return problems or _side_problems(path, info)
    except zipfile.BadZipFile:
        return [f"no complete ZIP file ({path.stat().st_size:,} bytes: truncated, or something else)"]
    except READ_ERRORS as error:
        return [f"cannot be read ({error})"]


def _member_problems(archive: zipfile.ZipFile, info: DatasetInfo, resolution: int) -> list[str]:
    names = archive.namelist()
    wanted = [f"{split}_{kind}.npy" for split in SPLITS for kind in ("images", "labels")]
    missing = [name.removesuffix(".npy") for name in wanted if name not in names]
    if missing:
        return [f"missing keys: {', '.join(missing)} (it has: {', '.join(sorted(names)[:8]) or 'none'})"]
    problems = []
    for split in SPLITS:
        for kind in ("images", "labels"):
            problem = _header_problem(archive, split, kind, info, resolution)
            if problem:
                problems.append(f"{split}_{kind}: {problem}")
    return problems


def _side_problems(path: Path, info: DatasetInfo) -> list[str]:
    problems = []
    for split in SPLITS:
        try:
            kept = tuple(read_side_table(path, split, getattr(info.splits, split)).columns)
            if info.columns not in ((), kept):  # an entry need not name them
                problems.append(f"{split} has the columns {', '.join(kept) or 'none'}, not {', '.join(info.columns)}")
        except DataError as error:
            problems += [problem.removeprefix(f"{path}: ") for problem in error.problems]
    return problems


def _header_problem(
    archive: zipfile.ZipFile, split: Split, kind: str, info: DatasetInfo, resolution: int
) -> str | None:
    member = archive.getinfo(f"{split}_{kind}.npy")
    try:
        with archive.open(member) as file:
            shape, dtype = read_header(file)
            header = file.tell()
    except READ_ERRORS as error:
        return f"damaged ({error})"
    if dtype.hasobject:
        return "holds Python objects (pickle), which are never loaded"
    count = getattr(info.splits, split)
    allowed: list[tuple[int | None, ...]]
    if kind == "images":
        allowed = [(count, *info.image_shape(resolution))]
        if dtype != np.uint8:
            return f"dtype is {dtype}, expected uint8"
    else:
        task = task_named(info.task)
        allowed = task.label_shapes(count, len(info.classes), sides_of(info, resolution))
        if dtype.kind not in task.label_types:
            return f"dtype is {dtype}, expected {'integers' if task.label_types == 'iu' else 'numbers'}"
    if not any(_is_of(shape, wanted) for wanted in allowed):
        expected = " or ".join(str(wanted).replace("None", "any number") for wanted in allowed)
        return f"shape is {shape}, expected {expected}"
    size = header + prod(shape) * dtype.itemsize
    if member.file_size != size:
        return f"unpacks to {member.file_size:,} bytes, expected {size:,}"
    return None


def _is_of(shape: tuple[int, ...], wanted: tuple[int | None, ...]) -> bool:
    """Return whether a shape is the wanted one, in which None is any number."""
    return len(shape) == len(wanted) and all(side in (None, found) for found, side in zip(shape, wanted, strict=True))


def sides_of(info: DatasetInfo, resolution: int) -> tuple[int, ...]:
    """Return height and width of the images of an entry, or depth, height and width."""
    return (resolution,) * info.spatial_dims


def read_split(path: Path, info: DatasetInfo, split: Split) -> SplitArrays:
    """Unpack one split of a verified archive into memory.

    Raises:
        DataError: If the data is damaged (CRC) or a label is out of range.
    """
    most = getattr(info.splits, split) * info.image_bytes(max(info.resolutions or (1,)))
    images = _read_member(path, f"{split}_images", most)
    return SplitArrays(images, check_split_labels(path, info, split, images.shape[1]))


def read_labels(path: Path, info: DatasetInfo, split: Split, resolution: int) -> npt.NDArray[Any]:
    """Return the labels of one split of an archive of labels, as their task keeps them.

    Raises:
        DataError: If they are damaged, or not what the catalog says.
    """
    try:
        with open_zip(path) as archive:
            problem = _header_problem(archive, split, "labels", info, resolution)
    except READ_ERRORS as error:
        problem = f"cannot be read ({error})"
    if problem is not None:
        raise DataError(f"{path}: {split}_labels: {problem}; get it again")
    return check_split_labels(path, info, split, resolution)


def check_split_labels(path: Path, info: DatasetInfo, split: Split, resolution: int) -> npt.NDArray[Any]:
    """Unpack and return the labels of one split; see `check_labels`."""
    images = getattr(info.splits, split)
    each = task_named(info.task).label_bytes(len(info.classes), sides_of(info, resolution))
    labels = _read_member(path, f"{split}_labels", images * each)
    return check_labels(labels, info, f"{path}: {split}_labels", images, resolution)


def _read_member(path: Path, name: str, most: int) -> npt.NDArray[Any]:
    try:
        with open_zip(path) as archive:
            member = archive.getinfo(f"{name}.npy")
            with archive.open(member) as file:
                return read_array(file, member.file_size, most)
    except READ_ERRORS as error:
        raise DataError(f"{path}: {name} cannot be unpacked ({error}); delete the file and get it again") from error


def check_labels(
    labels: npt.NDArray[Any], info: DatasetInfo, where: str, images: int, resolution: int
) -> npt.NDArray[Any]:
    """Return labels as their task keeps them: (N,) int64, (N, L) uint8 where an image may have several, masks or boxes.

    Args:
        labels: Those of an archive.
        info: The catalog entry.
        where: What they are called in messages.
        images: Number of images of the split.
        resolution: Height and width of the images, and depth of volumes.

    Raises:
        DataError: If there are none, or one is outside the classes of the catalog entry or its image.
    """
    task = task_named(info.task)
    if problem := task.label_problem(labels, images, len(info.classes), sides_of(info, resolution)):
        raise DataError(f"{where}: {problem}")
    return task.stored(labels, images)
