"""Whole pictures of any size and shape as a stream, for what is said of every place in them."""

from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from visionforge.data.picture_sources import ArchiveImages, PictureFiles
from visionforge.data.pictures import PictureError, read_whole, scaled_whole
from visionforge.data.placement import Fit
from visionforge.data.stream import archive_slices, bombs_refused, with_channels
from visionforge.errors import DataError

Pixels = npt.NDArray[np.uint8]


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
    listed: Sequence[PictureFiles | ArchiveImages], side: int | None, channels: int, threads: int, fit: Fit = "crop"
) -> Generator[WholePicture, None, None]:
    """Yield all pictures in input order, some decoded ahead.

    Args:
        listed: What `list_pictures` gives.
        side: The shorter side is scaled to so many pixels, as training pictures were; None keeps the size.
        channels: 1 turns colours into luma, 3 repeats grey.
        threads: Number of threads that decode.
        fit: `pad` scales the longer side instead.

    Raises:
        DataError: If an archive is damaged, or holds volumes.
    """
    for source in listed:
        if isinstance(source, ArchiveImages) and source.spatial_dims != 2:
            raise DataError(f"{source.path}: {source.member} holds volumes {source.shape}; the network takes images")

    def decoded(name: str, read: Callable[[], tuple[Pixels, tuple[int, int]]]) -> WholePicture:
        try:
            image, size = read()
            return WholePicture(name, np.array(with_channels(image, channels), order="C"), size)
        except PictureError as error:
            return WholePicture(name, None, (0, 0), str(error))
        except Exception as error:  # on damaged files, Pillow's readers raise almost anything
            return WholePicture(name, None, (0, 0), f"cannot be read ({str(error) or type(error).__name__})")

    def of_array(array: Pixels) -> tuple[Pixels, tuple[int, int]]:
        plain = array[:, :, 0] if array.shape[2:] == (1,) else array
        return scaled_whole(Image.fromarray(plain), side, fit), (array.shape[0], array.shape[1])

    def asked() -> Iterator[tuple[str, Callable[[], tuple[Pixels, tuple[int, int]]]]]:
        for source in listed:
            if isinstance(source, PictureFiles):
                for path in source.paths:
                    name = path.encode("utf-8", "backslashreplace").decode("utf-8")
                    yield name, lambda path=path: read_whole(Path(path), side, fit)  # type: ignore[misc]
            else:
                for names, part in archive_slices(source):
                    for name, array in zip(names, part, strict=True):
                        yield name, lambda array=array: of_array(array)  # type: ignore[misc]

    waiting: deque[Future[WholePicture]] = deque()
    with bombs_refused(), ThreadPoolExecutor(threads, "visionforge-decode") as pool:
        try:
            for name, read in asked():
                waiting.append(pool.submit(decoded, name, read))
                if len(waiting) > (2 * threads if side is not None else 1):  # of any size, they may be very large
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)
