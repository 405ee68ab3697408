"""Whole pictures of any size and shape as a stream, for what is said of every place in them."""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from visionforge.data.intensity import Range
from visionforge.data.picture_sources import ArchiveImages, PictureFiles
from visionforge.data.pictures import PIXEL_BYTES, PictureError, decoded_bytes, read_whole, scaled_whole
from visionforge.data.placement import Fit
from visionforge.data.stream import archive_slices, bombs_refused, require_archives, with_channels

AHEAD_BYTES = 512_000_000  # of pictures that are decoded, or wait for the network or in it; a single one may be larger
Pixels = npt.NDArray[np.uint8]
Read = Callable[[], tuple[Pixels, tuple[int, int]]]


@dataclass(frozen=True)
class WholePicture:
    """A picture, and what became of it.

    Attributes:
        name: Its path, or its place in an archive.
        image: (C, H, W) uint8 as a network is shown it; None if it could not be read.
        size: Height and width that it has itself, in pixels.
        reason: Why it could not be read.
    """

    name: str
    image: Pixels | None
    size: tuple[int, int]
    reason: str = ""


def whole_pictures(
    listed: Sequence[PictureFiles | ArchiveImages],
    side: int | None,
    channels: int,
    threads: int,
    fit: Fit = "crop",
    intensity: Range | None = None,
) -> Generator[WholePicture, None, None]:
    """Yield all pictures in input order, some decoded ahead, as far as that takes little memory.

    Args:
        listed: What `list_pictures` gives.
        side: The shorter side is scaled to so many pixels, as training pictures were; None keeps the size.
        channels: 1 turns colours into luma, 3 repeats grey.
        threads: Number of threads that decode.
        fit: `pad` scales the longer side instead.
        intensity: Deep grey values that become 0 and 255; of the training images.

    Raises:
        DataError: If an archive is damaged, or holds volumes.
    """
    require_archives(listed, 2)

    def decoded(name: str, read: Read) -> WholePicture:
        try:
            image, size = read()
            return WholePicture(name, with_own_channels(image, channels), size)
        except PictureError as error:
            return WholePicture(name, None, (0, 0), str(error))
        except Exception as error:  # on damaged files, Pillow's readers raise almost anything
            return WholePicture(name, None, (0, 0), f"cannot be read ({str(error) or type(error).__name__})")

    def of_array(array: Pixels) -> tuple[Pixels, tuple[int, int]]:
        plain = array[:, :, 0] if array.shape[2:] == (1,) else array
        return scaled_whole(Image.fromarray(plain), side, fit), (array.shape[0], array.shape[1])

    def asked() -> Iterator[tuple[str, int, Read]]:
        for source in listed:
            if isinstance(source, PictureFiles):
                for path in source.paths:
                    name = path.encode("utf-8", "backslashreplace").decode("utf-8")
                    yield name, decoded_bytes(Path(path)), partial(read_whole, Path(path), side, fit, intensity)
            else:
                for names, part in archive_slices(source):
                    for name, array in zip(names, part, strict=True):
                        needed = array.shape[0] * array.shape[1] * PIXEL_BYTES
                        yield name, needed, lambda array=array: of_array(array)  # type: ignore[misc]

    waiting: deque[tuple[int, Future[WholePicture]]] = deque()
    with bombs_refused(), ThreadPoolExecutor(threads, "visionforge-decode") as pool:
        try:
            for name, needed, read in asked():
                while waiting and (len(waiting) > 2 * threads or _taken(waiting) + needed > AHEAD_BYTES):
                    yield waiting.popleft()[
                        1
                    ].result()  # before the next one is begun, whoever takes it is done with it
                waiting.append((needed, pool.submit(decoded, name, read)))
            while waiting:
                yield waiting.popleft()[1].result()
        finally:
            pool.shutdown(cancel_futures=True)


def with_own_channels(image: Pixels, channels: int) -> Pixels:
    """Return an image (H, W) or (H, W, 3) as (C, H, W), a copy in its order."""
    return np.array(with_channels(image, channels), order="C")


def _taken(waiting: Iterable[tuple[int, Future[WholePicture]]]) -> int:
    """Return the bytes of pictures: until they are decoded what that needs, then what is left of it."""
    total = 0
    for needed, future in waiting:
        image = future.result().image if future.done() else None
        total += needed if image is None else image.nbytes
    return total
