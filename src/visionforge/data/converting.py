"""From published files of another format to an archive: once, within bounded memory, there whole or not at all."""

import errno
import logging
import shutil
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from visionforge.data.fetch_once import LOCK_TIMEOUT_S
from visionforge.data.formats.cifar import cifar_pools
from visionforge.data.formats.hdf5 import NEEDS_H5PY, has_h5py, hdf5_pools
from visionforge.data.formats.idx import idx_pools
from visionforge.data.formats.pool import Pool, Wanted
from visionforge.data.info import SPLITS, DatasetInfo, Split
from visionforge.data.npy import npy_header
from visionforge.data.originals import AnyOriginal
from visionforge.data.published import published_files
from visionforge.data.store import SPARE_BYTES
from visionforge.data.stratify import stratified_order
from visionforge.errors import DataError
from visionforge.fetch import Retries, transfer_bar
from visionforge.runs.files import replacing
from visionforge.runs.locks import LockedError, held

log = logging.getLogger(__name__)

BLOCK_BYTES = 1 << 24  # of published images in memory

READERS: Final[dict[str, Callable[[Any, Mapping[str, Path], Wanted], list[Pool]]]] = {
    "idx": idx_pools,
    "cifar": cifar_pools,
    "hdf5": hdf5_pools,
}


@dataclass(frozen=True)
class Part:
    """The images of one split.

    Attributes:
        pool: Where they are.
        chosen: (n,) their positions there, ascending.
    """

    pool: Pool
    chosen: npt.NDArray[np.integer]


def make_archive(info: DatasetInfo, resolution: int, folder: Path, download: bool, retries: Retries) -> None:
    """Make an archive of the published files, which are downloaded if they are missing and that is allowed.

    Args:
        info: The data set; it has an `original`.
        resolution: Height and width of its images; published images that are larger are scaled down.
        folder: Folder of the archives.
        download: Download what is missing.
        retries: How often and how patiently that is tried.

    Raises:
        DataError: If a file is missing or damaged, or the archive cannot be written.
    """
    original = info.original
    assert original is not None
    if original.format == "hdf5" and not has_h5py():  # before gigabytes are downloaded
        raise DataError(f"{info.name}: {NEEDS_H5PY}")
    path = folder / info.archive_name(resolution)
    paths = published_files(info, original, folder, download, retries)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with held(Path(f"{path}.lock"), str(path), LOCK_TIMEOUT_S):
            if path.is_file():  # another process has made it
                return
            for left in folder.glob(f".{path.name}.*.tmp"):  # by a process that was killed
                left.unlink(missing_ok=True)
            needed = info.max_archive_bytes(resolution)
            if shutil.disk_usage(folder).free < needed + SPARE_BYTES:
                raise OSError(errno.ENOSPC, f"{needed / 1e6:,.0f} MB are needed")
            with ExitStack() as files:
                parts = _parts(info, original, paths, folder, files)
                with replacing(path) as (file, _):
                    _write(file, path.name, info, resolution, parts)
    except LockedError as error:
        owner = error.owner or "another process"
        raise DataError(f"{path}: {owner} has held its lock for {LOCK_TIMEOUT_S:.0f} s") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be written ({error.strerror or error})") from error
    log.info("made %s of %s", path.name, ", ".join(paths))


def _parts(
    info: DatasetInfo, original: AnyOriginal, paths: Mapping[str, Path], folder: Path, files: ExitStack
) -> dict[Split, Part]:
    """Open the published files, and draw the splits that their authors did not publish."""
    counts = info.splits
    test = counts.test if original.has_test else 0
    sides = (original.resolution,) * 2
    shape = sides if info.channels == 1 else (*sides, info.channels)
    wanted = Wanted(info.images - test, test, shape, folder, files)
    pools = READERS[original.format](original, paths, wanted)
    for pool in pools:
        low, high = int(pool.labels.min()), int(pool.labels.max())
        if low < 0 or high >= len(info.classes):
            wrong = low if low < 0 else high
            raise DataError(f"{info.name}: a published label is {wrong}, but there are {len(info.classes)} classes")
    drawn_test = 0 if test else counts.test
    train, val, drawn = draw_splits(pools[0].labels, original.split_seed, counts.val, drawn_test, pools[0].alone)
    rest = Part(pools[1], np.arange(test)) if test else Part(pools[0], drawn)
    return {"train": Part(pools[0], train), "val": Part(pools[0], val), "test": rest}


def draw_splits(
    labels: npt.NDArray[np.integer],
    seed: int,
    val: int,
    test: int,
    alone: npt.NDArray[np.bool_] | None = None,
) -> tuple[npt.NDArray[np.integer], npt.NDArray[np.integer], npt.NDArray[np.integer]]:
    """Return the positions of training, validation and test images, each ascending, drawn by class.

    Every split has the classes in their overall shares, as nearly as whole images can. `RandomState` is used because
    its stream is frozen, so the splits are the same with every NumPy.

    Args:
        labels: (N,) class of each image.
        seed: Draws them.
        val: Number of validation images.
        test: Number of test images.
        alone: (N,) whether no other image shows the same object; the others are training images, so that none is in
            two splits.

    Raises:
        DataError: If there are fewer of those that stand alone.
    """
    order = stratified_order(labels, np.random.RandomState(seed).permutation(len(labels)))
    if alone is not None:
        if np.count_nonzero(alone) < val + test:
            raise DataError(f"original: {np.count_nonzero(alone):,} images stand alone, {val + test:,} are to be drawn")
        order = np.concatenate([order[alone[order]], order[~alone[order]]])
    return np.sort(order[val + test :]), np.sort(order[:val]), np.sort(order[val : val + test])


# --- writing


def _write(file: Any, name: str, info: DatasetInfo, resolution: int, parts: Mapping[Split, Part]) -> None:
    """Write the six arrays uncompressed, since they are mapped in place; equal content gives equal bytes."""
    total = info.images * prod(info.image_shape(resolution))
    few = len(info.classes) <= 1 << 8
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive, transfer_bar(name, total) as advance:
        for split in SPLITS:
            part = parts[split]
            labels = part.pool.labels[part.chosen].astype(np.uint8 if few else np.dtype("<i8"))
            shape = (len(part.chosen), *info.image_shape(resolution))
            blocks = _blocks(part, info, resolution, advance)
            _add(archive, f"{split}_images", shape, np.dtype(np.uint8), blocks)
            _add(archive, f"{split}_labels", labels.shape, labels.dtype, [labels.tobytes()])


def _blocks(part: Part, info: DatasetInfo, resolution: int, advance: Callable[[int], None]) -> Iterator[bytes]:
    original = info.original
    assert original is not None
    step = max(1, BLOCK_BYTES // (original.resolution**2 * info.channels))
    for start in range(0, len(part.pool.labels), step):
        stop = min(start + step, len(part.pool.labels))
        low, high = np.searchsorted(part.chosen, [start, stop])
        if low == high:
            continue
        images = part.pool.images(start, stop)[part.chosen[low:high] - start]
        data = (images if resolution == original.resolution else scaled(images, resolution)).tobytes()
        yield data
        advance(len(data))


def scaled(images: npt.NDArray[np.uint8], resolution: int) -> npt.NDArray[np.uint8]:
    """Return images (n, H, W) or (n, H, W, 3) at another resolution, antialiased bicubic as imported pictures are."""
    from PIL import Image

    from visionforge.data.pictures import resize_square

    return np.stack([resize_square(Image.fromarray(image), resolution) for image in images])


def _add(
    archive: zipfile.ZipFile,
    name: str,
    shape: Sequence[int],
    dtype: np.dtype[Any],
    blocks: Iterable[bytes],
) -> None:
    header = npy_header(shape, dtype)
    member = zipfile.ZipInfo(f"{name}.npy")  # without the time
    member.create_system = 3  # as Unix says it, wherever it is made
    member.file_size = len(header) + prod(shape) * dtype.itemsize
    with archive.open(member, "w") as target:
        target.write(header)
        for block in blocks:
            target.write(block)
