"""Pictures of any number as a stream of batches: files, folders and archives, decoded ahead in a few threads.

What is kept in memory is the list of the paths and a few batches of decoded images, however many there are.
"""

import threading
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from math import ceil, prod
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image

from visionforge.data.intensity import Range
from visionforge.data.npy import read_header
from visionforge.data.picture_sources import ArchiveImages, PictureFiles
from visionforge.data.pictures import PictureError, pad_square, read_picture, resize_square, warn_of_bombs_only
from visionforge.data.placement import Fit
from visionforge.data.volume_files import read_volume, require_cube, volume_with_channels
from visionforge.data.zipped import READ_ERRORS, open_zip
from visionforge.errors import DataError

if TYPE_CHECKING:
    from torch import Tensor

Found = TypeVar("Found")
PIECE = 16  # pictures that a thread takes at once; handing over single small ones would cost as much as reading them
PIECE_BYTES = 1 << 24  # of an archive, at most so many are read at once
Pixels = npt.NDArray[np.uint8]
Decoded = tuple[str, Pixels | PictureError]  # the name, and the image (C, R, R) or what is wrong with it


@dataclass(frozen=True)
class Batch:
    """Some pictures, in input order.

    Attributes:
        names: Path of each image, or its place in an archive.
        pixels: (B, C, R, R) uint8, or volumes (B, C, R, R, R); B may be 0.
        failures: Names of the pictures that could not be read, and why.
    """

    names: list[str]
    pixels: Pixels
    failures: list[tuple[str, str]]

    @property
    def images(self) -> "Tensor":
        """Return the pixels as a tensor."""
        import torch

        return torch.from_numpy(self.pixels)


def picture_batches(
    listed: Sequence[PictureFiles | ArchiveImages],
    resolution: int,
    channels: int,
    batch_size: int,
    threads: int,
    spatial_dims: int = 2,
    fit: Fit = "crop",
    intensity: Range | None = None,
) -> Generator[Batch, None, None]:
    """Yield all pictures in input order, decoded ahead by a few batches at most.

    Close the generator to stop early; its threads end after the picture they are at.

    Args:
        listed: What `list_pictures` gives.
        resolution: Height and width R that every picture is scaled and cut to, as imported training images are.
        channels: 1 turns colours into luma, 3 repeats grey.
        batch_size: Images per batch; only the last has fewer, and those that end with as many failures.
        threads: Number of threads that decode.
        spatial_dims: 3 for volumes, which must have R voxels along each axis.
        fit: How a picture becomes a square, see `read_picture`; of the training images, as a rule.
        intensity: Deep grey values that become 0 and 255; of the training images.

    Raises:
        DataError: If an archive is damaged, or holds images where volumes are asked for, or the other way round.
    """
    require_archives(listed, spatial_dims)
    stop = threading.Event()
    names: list[str] = []
    images: list[Pixels] = []
    failures: list[tuple[str, str]] = []

    def batch() -> Batch:
        stacked = np.stack(images) if images else np.empty((0, channels, *[resolution] * spatial_dims), np.uint8)
        full = Batch(names[:], stacked, failures[:])
        for part in (names, images, failures):
            part.clear()
        return full

    with bombs_refused(), ThreadPoolExecutor(threads, "visionforge-decode") as pool:
        try:
            pieces = _pieces(listed, resolution, channels, stop, spatial_dims, fit, intensity)
            ahead = in_order(pool, pieces, threads + ceil(batch_size / PIECE))  # the next batch, a piece per thread
            for name, result in chain.from_iterable(ahead):
                if isinstance(result, PictureError):
                    failures.append((name, str(result)))
                else:
                    names.append(name)
                    images.append(result)
                if batch_size in (len(images), len(failures)):
                    yield batch()
            if images or failures:
                yield batch()
        finally:
            stop.set()
            pool.shutdown(cancel_futures=True)


def require_archives(listed: Sequence[PictureFiles | ArchiveImages], spatial_dims: int) -> None:
    """Check that archives hold what a network takes, and are whole: each is read through before anything is said of it.

    Its checksum follows its last image, and an hour of predictions would be lost by then.

    Raises:
        DataError: If one is damaged, or holds images where volumes are asked for, or the other way round.
    """
    for source in listed:
        if not isinstance(source, ArchiveImages):
            continue
        if source.spatial_dims != spatial_dims:
            kinds = {2: "images", 3: "volumes"}
            raise DataError(
                f"{source.path}: {source.member} holds {kinds[source.spatial_dims]} {source.shape}; "
                f"the network takes {kinds[spatial_dims]}"
            )
        for _ in archive_slices(source):
            pass


def in_order(pool: ThreadPoolExecutor, tasks: Iterable[Callable[[], Found]], most: int) -> Iterator[Found]:
    """Yield what tasks return, in their order, while the pool works on the next ones.

    Args:
        pool: Its threads do the work.
        tasks: Taken one by one.
        most: So many are in work or done while one is waited for.
    """
    waiting: deque[Future[Found]] = deque()
    for task in tasks:
        waiting.append(pool.submit(task))
        if len(waiting) > most:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


@contextmanager
def bombs_refused() -> Iterator[None]:
    """Turn Pillow's warning of a decompression bomb into an error, for all threads.

    `read_picture` does so as well, but the filters are the process's: a thread that leaves such a block would take them
    away from one that is inside.
    """
    with warnings.catch_warnings():
        warn_of_bombs_only()
        yield


def _pieces(
    listed: Sequence[PictureFiles | ArchiveImages],
    resolution: int,
    channels: int,
    stop: threading.Event,
    spatial_dims: int,
    fit: Fit,
    intensity: Range | None,
) -> Iterator[Callable[[], list[Decoded]]]:
    """Yield functions that decode a few pictures each; the parts of an archive are read here, one after the other."""
    volumes = spatial_dims == 3

    def decode(names: Sequence[str], read: Callable[[int], Pixels]) -> list[Decoded]:
        results: list[Decoded] = []
        for position, name in enumerate(names):
            if stop.is_set():
                break
            try:
                read_one = read(position)
                shaped = volume_with_channels(read_one, channels) if volumes else with_channels(read_one, channels)
                results.append((name, shaped))
            except PictureError as error:
                results.append((name, error))
            except Exception as error:  # on damaged files, Pillow's readers raise almost anything
                results.append((name, PictureError(f"cannot be read ({str(error) or type(error).__name__})")))
        return results

    def files(paths: Sequence[str]) -> list[Decoded]:
        names = [path.encode("utf-8", "backslashreplace").decode("utf-8") for path in paths]
        if volumes:
            return decode(names, lambda position: read_volume(Path(paths[position]), resolution, intensity))
        return decode(names, lambda position: read_picture(Path(paths[position]), resolution, fit, intensity))

    def rows(names: Sequence[str], part: Pixels) -> list[Decoded]:
        if volumes:
            return decode(names, lambda position: _cube(part[position], resolution))
        return decode(names, lambda position: _scaled(part[position], resolution, fit))

    for source in listed:
        if isinstance(source, PictureFiles):
            for start in range(0, len(source), PIECE):
                yield lambda paths=source.paths[start : start + PIECE]: files(paths)  # type: ignore[misc]
        else:
            for names, part in archive_slices(source):
                yield lambda names=names, part=part: rows(names, part)  # type: ignore[misc]


def archive_slices(source: ArchiveImages) -> Iterator[tuple[list[str], Pixels]]:
    """Yield the names and images (n, H, W[, C]) of an archive in order, unpacked as they come."""
    row_bytes = prod(source.shape[1:])
    step = max(1, min(PIECE, PIECE_BYTES // row_bytes))
    try:
        with open_zip(source.path) as archive, archive.open(f"{source.member}.npy") as file:
            if read_header(file)[0] != source.shape:
                raise ValueError("it has changed")
            for start in range(0, len(source), step):
                count = min(step, len(source) - start)
                data = file.read(count * row_bytes)
                if len(data) != count * row_bytes:
                    raise EOFError("it ends too early")
                part = np.frombuffer(data, np.uint8).reshape(count, *source.shape[1:])
                yield [source.name(row) for row in range(start, start + count)], part
    except READ_ERRORS as error:
        raise DataError(f"{source.path}: {source.member} cannot be unpacked ({error})") from error


def _cube(volume: Pixels, resolution: int) -> Pixels:
    """Return a volume (D, H, W[, C]) of the network's size as it is.

    Raises:
        PictureError: If it has another.
    """
    require_cube(volume.shape, resolution)
    return volume


def _scaled(image: Pixels, resolution: int, fit: Fit) -> Pixels:
    """Return an image (H, W[, C]) as (R, R[, 3]), scaled as pictures are if it has another size."""
    image = image[:, :, 0] if image.shape[2:] == (1,) else image
    if image.shape[:2] == (resolution, resolution):
        return image
    return (pad_square if fit == "pad" else resize_square)(Image.fromarray(image), resolution)


def with_channels(image: Pixels, channels: int) -> Pixels:
    """Return an image (R, R) or (R, R, 3) as (C, R, R)."""
    if channels == 1:
        return (image if image.ndim == 2 else np.asarray(Image.fromarray(image).convert("L")))[None]
    return np.broadcast_to(image, (channels, *image.shape)) if image.ndim == 2 else image.transpose(2, 0, 1)
